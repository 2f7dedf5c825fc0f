/** Golden vectors: texts with the ids that the tokenizer must make, and inputs with the outputs that a graph must give. */
import { BundleError, excerpt, InputTextError, ProviderError } from "./errors.js";
import { DAMAGED, mapped, Value } from "./values.js";
const GOLDEN_VERSION = 1;
const LARGEST = 2 ** 20;
const MOST_TEXTS = 64;
const MOST_BATCHES = 8;
const MOST_TOKENS = 512;
/** Compare a tokenizer and a graph with the golden vectors of their bundle. */
export async function prove(bundle, variant, tokens, graph) {
    const golden = await readGolden(bundle);
    const wanted = Object.hasOwn(golden.variants, variant) ? golden.variants[variant] : undefined;
    if (!wanted) {
        throw new BundleError(`the golden vectors of ${bundle.manifest.name} have no outputs of variant ${excerpt(variant)} (they have ` +
            `${Object.keys(golden.variants).join(", ")}): make them with bertport golden`);
    }
    if (!Object.keys(wanted).length) {
        throw new BundleError(`the golden vectors of ${bundle.manifest.name} have no output of variant ${excerpt(variant)}: make them anew ` +
            "with bertport golden --overwrite");
    }
    const differences = golden.texts.flatMap((text) => differenceOfIds(text, tokens));
    const outputs = {};
    for (const [index, feeds] of golden.batches.entries()) {
        let given;
        try {
            given = await graph.raw(feeds, Object.keys(wanted));
        }
        catch (error) {
            if (!(error instanceof ProviderError))
                throw error;
            differences.push(`the graph fails in batch ${index}: ${error.message}`);
            continue;
        }
        for (const [output, expected] of Object.entries(wanted)) {
            const { worst, wrong } = compared(output, expected, given[output], index);
            differences.push(...wrong);
            outputs[output] = { worst: Math.max(worst, outputs[output]?.worst ?? 0), tolerance: expected.tolerance };
        }
    }
    return { holds: differences.length === 0, differences, texts: golden.texts.length, outputs };
}
async function readGolden(bundle) {
    const { goldenVectors: name, files, maxLength } = bundle.manifest;
    if (name === null) {
        throw new BundleError(`${bundle.manifest.name} has no golden vectors to check it by: make them with bertport golden`);
    }
    if ((files[name]?.size ?? 0) > LARGEST) {
        throw new BundleError(`${name} has more than ${LARGEST} bytes, more than golden vectors have: ${DAMAGED}`);
    }
    const root = new Value(await bundle.json(name), name);
    const version = root.at("golden_version").number();
    if (version !== GOLDEN_VERSION) {
        throw new BundleError(`${name} has version ${version} and this package reads ${GOLDEN_VERSION}: install a later version`);
    }
    const texts = root.at("texts").list().map(textOf);
    const batches = root
        .at("batches")
        .list()
        .map((batch) => mapped(batch.at("inputs"), feedOf));
    const largest = Math.max(0, ...batches.flatMap((feeds) => Object.values(feeds).map(({ data }) => data.length)));
    const widest = Math.max(0, ...batches.map((feeds) => feeds.input_ids?.dims[1] ?? 0));
    if (texts.length > MOST_TEXTS || batches.length > MOST_BATCHES || largest > MOST_TOKENS || widest > maxLength) {
        throw new BundleError(`${name} has ${texts.length} texts and ${batches.length} batches of up to ${largest} tokens, more than golden vectors have: ${DAMAGED}`);
    }
    const variants = mapped(root.at("variants"), (variant) => mapped(variant.at("outputs"), outputOf));
    const outputs = Object.values(variants).flatMap((wanted) => Object.entries(wanted));
    // A row of a batch that there is not would be compared with nothing.
    const wrong = outputs.find(([, { shapes, rows }]) => shapes.length !== batches.length || rows.some((row) => row.batch >= batches.length));
    if (wrong) {
        throw new BundleError(`${name} lists a batch of ${excerpt(wrong[0])} that is not there: ${DAMAGED}`);
    }
    const empty = outputs.find(([, { rows }]) => !rows.length); // with which any graph would hold
    if (empty)
        throw new BundleError(`${name} lists no row of ${excerpt(empty[0])}: ${DAMAGED}`);
    return { texts, batches, variants };
}
function textOf(value) {
    return {
        text: value.at("text").text(),
        pair: value.at("pair").optional((pair) => pair.text()),
        ids: value.at("ids").numbers(),
        types: value.at("type_ids").numbers(),
    };
}
function feedOf(value) {
    const rows = value.list();
    if (!rows.some((row) => Array.isArray(row.raw)))
        return { data: value.numbers(), dims: [rows.length] };
    const given = rows.map((row) => row.numbers());
    const width = given[0]?.length ?? 0;
    if (given.every((row) => row.length === width))
        return { data: given.flat(), dims: [rows.length, width] };
    throw new BundleError(`the golden vectors have a batch whose rows differ in length: ${DAMAGED}`);
}
function outputOf(value) {
    return {
        tolerance: value.at("tolerance").real(),
        shapes: value
            .at("shapes")
            .list()
            .map((shape) => shape.numbers()),
        rows: value
            .at("rows")
            .list()
            .map((row) => ({
            batch: row.at("batch").number(),
            row: row.at("row").number(),
            columns: row.at("columns").optional((columns) => columns.numbers()),
            values: row
                .at("values")
                .list()
                .map((item) => item.real()),
            largest: row.at("largest").optional((count) => count.number()) ?? 0,
            rms: row.at("rms").real(),
        })),
    };
}
function differenceOfIds(golden, tokens) {
    const text = golden.pair === null ? golden.text : [golden.text, golden.pair];
    let encoded;
    try {
        encoded = tokens.encode(text);
    }
    catch (error) {
        if (!(error instanceof InputTextError))
            throw error;
        return [`the tokenizer refuses ${excerpt(text)}: ${error.message}`];
    }
    const { ids, types } = encoded;
    if (!equal(ids, golden.ids)) {
        return [`the ids of ${excerpt(text)} are ${excerpt(ids, 120)}, not ${excerpt(golden.ids, 120)}`];
    }
    return equal(types, golden.types) ? [] : [`the segments of ${excerpt(text)} are not those stated`];
}
function compared(name, golden, tensor, batch) {
    const shape = golden.shapes[batch] ?? [];
    if (!equal(tensor.dims, shape)) {
        const wrong = [`${name} has the shape ${excerpt(tensor.dims)} in batch ${batch}, not ${excerpt(shape)}`];
        return { worst: Number.POSITIVE_INFINITY, wrong };
    }
    const width = tensor.dims.at(-1) ?? 1;
    const wrong = [];
    let worst = 0;
    for (const row of golden.rows.filter((candidate) => candidate.batch === batch)) {
        const values = tensor.data.subarray(row.row * width, (row.row + 1) * width);
        const columns = row.columns ?? Array.from(values, (_, column) => column);
        const far = Math.max(0, ...columns.map((column, place) => distance(values[column], row.values[place])));
        worst = Math.max(worst, far);
        const place = `${name}, batch ${batch}, row ${row.row}`;
        // Comparisons are written so that NaN fails them.
        if (!(columns.length === row.values.length && far <= golden.tolerance)) {
            wrong.push(`${place}: a value differs by ${far}, and ${golden.tolerance} is allowed`);
        }
        if (!largestHold(values, columns, row, golden.tolerance)) {
            wrong.push(`${place}: another value than those stated is among the ${row.largest} largest`);
        }
        const rms = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
        if (!(Math.abs(rms - row.rms) <= golden.tolerance)) {
            wrong.push(`${place}: the root mean square is ${rms}, not ${row.rms}`);
        }
    }
    return { worst, wrong };
}
function largestHold(values, columns, row, tolerance) {
    if (row.largest === 0)
        return true;
    const bound = (row.values[row.largest - 1] ?? Number.NaN) + tolerance;
    const stated = new Set(columns.slice(0, row.largest));
    return values.every((value, column) => stated.has(column) || value <= bound);
}
function distance(value, expected) {
    const far = Math.abs((value ?? Number.NaN) - (expected ?? Number.NaN));
    return Number.isNaN(far) ? Number.POSITIVE_INFINITY : far;
}
function equal(a, b) {
    return a.length === b.length && a.every((value, index) => value === b[index]);
}
