/** A graph that ONNX Runtime has opened, and runs of batches of it. */
import { plan } from "./batching.js";
import { BundleError, excerpt, OutputError, ProviderError, reasonOf } from "./errors.js";
import { externalFiles } from "./external.js";
import { isPerToken, POSITIONS, SEGMENTS } from "./heads.js";
const DOMAINS = new Set(["ai.onnx", "com.microsoft"]);
/**
 * Precisions that ONNX Runtime's CPU computes correctly; the others are for other devices.
 *
 * It opens int8-static-symmetric too, but makes the signed products unsigned, and on AVX2 these overflow.
 */
const PRECISIONS = new Set([
    "fp32",
    "int8-dynamic",
    "int8-static",
    "int8-weight-only",
    "int4-weight-only",
]);
/** Return why ONNX Runtime's CPU cannot run a variant; undefined where it can. */
export function obstacle(variant) {
    const unknown = Object.keys(variant.operatorDomains).filter((domain) => !DOMAINS.has(domain));
    if (unknown.length)
        return `has operators that ONNX Runtime's CPU does not know (of ${unknown.join(", ")})`;
    if (!PRECISIONS.has(variant.precision))
        return `is computed in ${variant.precision}, which is for other devices than CPUs`;
    return undefined;
}
/** Return the operator, with its domain, that ONNX Runtime says it does not have; undefined where it says something else. */
function unknownOperator(text) {
    const [, domain, name] = /([\w.]*):?\b(\w+)\(-?\d+\) is not a registered function\/op/.exec(text) ?? [];
    const standard = /No Op registered for (\w+) with domain_version|implementation for (\w+)\(\d+\)/.exec(text);
    const known = name ?? standard?.[1] ?? standard?.[2];
    return known && `${known} of ${domain || "ai.onnx"}`;
}
/** A graph of a bundle. */
export class Graph {
    session;
    runtime;
    variant;
    padId;
    constructor(session, runtime, variant, padId) {
        this.session = session;
        this.runtime = runtime;
        this.variant = variant;
        this.padId = padId;
    }
    /**
     * Open a variant's graph from its checked files, all of which are handed to ONNX Runtime in memory.
     *
     * @param options - options of a session, such as `executionProviders`.
     * @param padId - id of the padding token.
     */
    static async open(bundle, name, runtime, options, padId) {
        const variant = bundle.manifest.variants[name];
        const model = await bundle.read(variant.file);
        const externalData = [];
        for (const location of externalFiles(model)) {
            const path = resolved(variant.file, location);
            if (!variant.externalData.includes(path)) {
                throw new BundleError(`the graph of variant ${excerpt(name)} takes weights from ${excerpt(location)}, which manifest.json does not list for it: do not use a bundle from this source`);
            }
            externalData.push({ path: location, data: path === variant.file ? model : await bundle.read(path) });
        }
        try {
            // Fatal errors alone: errors are raised as well, and warnings are about placement, on which a caller cannot act.
            const settings = { logSeverityLevel: 4, ...options, externalData };
            return new Graph(await runtime.InferenceSession.create(model, settings), runtime, variant, padId);
        }
        catch (error) {
            const others = Object.keys(bundle.manifest.variants).filter((other) => other !== name);
            const advice = `choose another variant${others.length ? ` (${others.join(", ")})` : ""}, or a later onnxruntime`;
            // A name of the graph may be as long as the graph, and takes its square to look at: the beginning is enough.
            const unknown = unknownOperator(reasonOf(error, 1000));
            if (unknown) {
                throw new ProviderError(`variant ${excerpt(name)} needs the operator ${excerpt(unknown, 120)}, which this ONNX Runtime does not have: ${advice}`);
            }
            throw new ProviderError(`ONNX Runtime cannot open variant ${excerpt(name)} (${reasonOf(error)}): ${advice}`);
        }
    }
    /** Return the part of an output that belongs to each row; rows of nearly equal length share a run. */
    async run(rows, output) {
        const shares = new Array(rows.length);
        for (const batch of plan(rows.map((row) => row.ids.length))) {
            const given = batch.map((index) => rows[index]);
            const values = this.split(given, output, await this.batch(given, output));
            for (const [place, index] of batch.entries())
                shares[index] = values[place];
        }
        return shares;
    }
    /** Release the memory of the session. */
    async release() {
        await this.session.release?.();
    }
    async batch(rows, output) {
        const width = Math.max(...rows.map((row) => row.ids.length));
        const feeds = {};
        for (const name of this.session.inputNames) {
            if (name === POSITIONS) {
                const places = rows.flatMap((row, index) => row.positions.map((position) => index * width + position));
                // Before 1.32, ONNX Runtime's ReduceMax takes no empty tensor: one position is decoded for nobody.
                const decoded = places.length ? places : [0];
                feeds[name] = this.tensor(decoded, [decoded.length]);
            }
            else {
                const filling = name === "input_ids" ? this.padId : 0;
                feeds[name] = this.tensor(rows.flatMap((row) => padded(input(name, row), width, filling)), [rows.length, width]);
            }
        }
        const tensor = (await this.outputs(feeds, [output]))[output];
        if (!tensor.data.every(Number.isFinite)) {
            throw new OutputError(`the model gave NaN or infinity for a text in the output ${output}: the weights are damaged, or the variant is not for this machine: choose another variant`);
        }
        return tensor;
    }
    /**
     * Return outputs of the graph as they are.
     *
     * @param feeds - its inputs, of which those that it has not are left out.
     */
    async raw(feeds, outputs) {
        const given = Object.entries(feeds).filter(([name]) => this.session.inputNames.includes(name));
        const tensors = given.map(([name, { data, dims }]) => [name, this.tensor(data, dims)]);
        return this.outputs(Object.fromEntries(tensors), outputs);
    }
    async outputs(feeds, names) {
        const missing = names.find((name) => !this.session.outputNames.includes(name));
        if (missing !== undefined) {
            throw new BundleError(`the graph ${this.variant.file} has no output ${excerpt(missing)}: export again`);
        }
        let outputs;
        try {
            outputs = await this.session.run(feeds, names);
        }
        catch (error) {
            const shape = feeds.input_ids?.dims.join(" x ") ?? "no";
            throw new ProviderError(`ONNX Runtime could not run a batch of ${shape} tokens (${reasonOf(error)}): choose another variant, or give shorter texts`);
        }
        const wrong = names.find((name) => !(outputs[name]?.data instanceof Float32Array));
        if (wrong !== undefined) {
            throw new BundleError(`the output ${wrong} of ${this.variant.file} is not float32: export again`);
        }
        return outputs;
    }
    tensor(numbers, dims) {
        return new this.runtime.Tensor("int64", BigInt64Array.from(numbers, BigInt), dims);
    }
    /** Return the part of a batch's output that belongs to each row. */
    split(rows, output, tensor) {
        const { data } = tensor;
        const width = tensor.dims.at(-1);
        if (output === "logits" && this.variant.kind === "serving") {
            let at = 0;
            return rows.map((row) => {
                const values = share(data, at, row.positions.length, width);
                at += row.positions.length;
                return values;
            });
        }
        if (!isPerToken(output))
            return rows.map((_, index) => share(data, index, 1, width));
        const length = tensor.dims[1];
        return rows.map((row, index) => {
            if (output !== "logits")
                return share(data, index * length, row.ids.length, width);
            const decoded = new Float32Array(row.positions.length * width);
            for (const [place, position] of row.positions.entries()) {
                decoded.set(share(data, index * length + position, 1, width).data, place * width);
            }
            return { data: decoded, rows: row.positions.length, width };
        });
    }
}
function share(data, first, rows, width) {
    return { data: data.subarray(first * width, (first + rows) * width), rows, width };
}
/** Return an input of the encoder for a row; padding stands behind it, where the mask is 0. */
function input(name, row) {
    if (name === "input_ids")
        return row.ids;
    if (name === "attention_mask")
        return row.ids.map(() => 1);
    if (name === SEGMENTS)
        return row.types;
    throw new BundleError(`the graph has the input ${excerpt(name)}, which this package does not know: install a later version`);
}
function padded(numbers, width, filling) {
    return [...numbers, ...new Array(width - numbers.length).fill(filling)];
}
/** Return the path in the bundle of a location that a graph names, which counts from the graph's directory. */
function resolved(file, location) {
    return [...file.split("/").slice(0, -1), location].join("/");
}
