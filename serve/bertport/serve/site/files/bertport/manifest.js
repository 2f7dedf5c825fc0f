/** The manifest of a bundle: formats 1 and 2, in the shape of format 2, as far as this package needs it. */
import { BundleError, excerpt, reasonOf } from "./errors.js";
import { digestOf } from "./hashing.js";
import { DAMAGED, mapped, Value } from "./values.js";
/** The newest format that is read. */
export const FORMAT_VERSION = 2;
/** Bytes of a manifest, at most. */
export const LARGEST_MANIFEST = 16 * 2 ** 20;
const LONGEST_PATH = 512;
const LONGEST_INPUT = 1_000_000;
/** Precision of the recipes of format 1 whose name it is not. */
const PRECISIONS = new Map([
    ["int8-static", "int8-static-symmetric"],
    ["int8-static-cpu", "int8-static"],
    ["fp32-weights16", "fp32"],
]);
/**
 * Return the manifest in the content of a `manifest.json`.
 *
 * @throws BundleError for what is no manifest, is of a newer format, or was changed after it was written.
 */
export async function readManifest(content) {
    if (content.length > LARGEST_MANIFEST) {
        throw new BundleError(`manifest.json has more than ${LARGEST_MANIFEST} bytes, more than any bundle's: export again`);
    }
    const root = new Value(parsed(content), "manifest.json");
    if (!root.isObject() || !Number.isInteger(root.at("format_version").raw)) {
        throw new BundleError("manifest.json has no format_version: this is not a bertport bundle; make one with `bertport export`");
    }
    const version = root.at("format_version").number();
    if (version > FORMAT_VERSION) {
        throw new BundleError(`the bundle has format ${version} and this version of the package bertport reads up to ${FORMAT_VERSION}: ` +
            "install a later version");
    }
    if (version < 1) {
        throw new BundleError(`manifest.json states format ${version}, and the first is 1: ${DAMAGED}`);
    }
    const digest = await sealedDigest(content, version === 1 ? undefined : (root.at("digest").raw ?? null));
    const manifest = version === 1 ? formatOne(root) : formatTwo(root);
    const whole = { ...manifest, formatVersion: version, digest };
    check(whole);
    return whole;
}
function parsed(content) {
    try {
        return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content));
    }
    catch (error) {
        throw new BundleError(`manifest.json is not JSON (${reasonOf(error, 200)}): ${DAMAGED}`);
    }
}
async function sealedDigest(content, stated) {
    const digest = await digestOf(content, stated);
    if (digest === undefined || (stated !== undefined && digest !== stated)) {
        throw new BundleError(`manifest.json is not as it was written (it states the digest ${excerpt(stated, 80)} and has ` +
            `${digest ?? "another"}): copy the bundle again, or export again`);
    }
    return digest;
}
function formatTwo(root) {
    const given = root.at("inputs").map();
    const segments = given.token_type_ids;
    return {
        ...common(root),
        segments: segments ? segments.at("constant").optional((value) => value.number()) : 0,
        heads: mapped(root.at("heads"), headOf),
        variants: mapped(root.at("variants"), (value) => {
            const requires = value.at("requires");
            return {
                ...graphOf(value),
                operatorDomains: mapped(requires.at("operator_domains"), (domain) => domain.number()),
                precision: requires.at("precision").text(),
                isa: requires.at("isa").optional((isa) => isa.text()),
            };
        }),
        goldenVectors: root.at("golden_vectors").optional((value) => value.at("file").text()),
    };
}
/** Read a manifest of format 1, whose inputs, heads and requirements follow from other fields. */
function formatOne(root) {
    const heads = {};
    const plain = { labels: null, problemType: null, positive: null, activation: null, embedding: null };
    for (const value of root.at("heads").list())
        heads[value.text()] = plain;
    const judge = root.at("next_sentence").optional((value) => ({
        labels: value
            .at("labels")
            .list()
            .map((label) => label.text()),
        positive: value.at("positive").number(),
    }));
    if (heads.nsp && judge)
        heads.nsp = { ...plain, ...judge, problemType: "single_label_classification" };
    return {
        ...common(root),
        segments: null,
        heads,
        variants: mapped(root.at("variants"), (value) => {
            const recipe = value.at("recipe").text();
            const domains = value.at("domains").optional((given) => mapped(given, (domain) => domain.number())) ?? {};
            const others = Object.entries(domains).filter(([domain]) => domain !== ""); // whose version is `opset`
            return {
                ...graphOf(value),
                operatorDomains: { ...Object.fromEntries(others), "ai.onnx": value.at("opset").number() },
                precision: PRECISIONS.get(recipe) ?? recipe,
                isa: value.at("isa").optional((isa) => isa.text()),
            };
        }),
        goldenVectors: null,
    };
}
function common(root) {
    const architecture = root.at("architecture");
    return {
        name: root.at("name").text(),
        vocabSize: architecture.at("vocab_size").number(),
        segmentCount: Math.max(1, architecture.at("type_vocab_size").number()),
        maxLength: root.at("max_length").number(),
        files: mapped(root.at("files"), (value) => ({
            size: value.at("size").number(),
            sha256: value.at("sha256").text(),
        })),
    };
}
function graphOf(value) {
    return {
        file: value.at("file").text(),
        kind: value.at("kind").text(),
        externalData: value.at("external_data").optional((files) => files.list().map((name) => name.text())) ?? [],
        outputs: value
            .at("outputs")
            .list()
            .map((name) => name.text()),
    };
}
function headOf(value) {
    return {
        labels: value.at("labels").optional((labels) => labels.list().map((label) => label.text())),
        problemType: value.at("problem_type").optional((type) => type.text()),
        positive: value.at("positive").optional((column) => column.number()),
        activation: value.at("activation").optional((name) => name.text()),
        embedding: value.at("embedding").optional((facts) => ({
            dimension: facts.at("dimension").number(),
            prompts: facts.at("prompts").optional((prompts) => mapped(prompts, (prompt) => prompt.text())) ?? {},
            defaultPrompt: facts.at("default_prompt").optional((name) => name.text()),
            truncateDim: facts.at("truncate_dim").optional((size) => size.number()),
            similarity: facts.at("similarity").optional((name) => name.text()) ?? "cosine",
            leavesPromptOut: facts
                .at("modules")
                .list()
                .some((module) => module.at("include_prompt").raw === false),
        })),
    };
}
/** Refuse well-formed fields whose values are impossible. */
function check(manifest) {
    const named = Object.values(manifest.variants).flatMap((variant) => [variant.file, ...variant.externalData]);
    if (manifest.goldenVectors !== null)
        named.push(manifest.goldenVectors);
    for (const path of named) {
        if (!Object.hasOwn(manifest.files, path)) {
            throw new BundleError(`manifest.json names ${excerpt(path)} but does not list it among its files: export again`);
        }
    }
    for (const path of Object.keys(manifest.files))
        refuseOutside(path);
    if (!(manifest.maxLength >= 1 && manifest.maxLength <= LONGEST_INPUT)) {
        throw new BundleError(`manifest.json: max_length is ${manifest.maxLength} tokens: ${DAMAGED}`);
    }
    for (const [name, head] of Object.entries(manifest.heads))
        checkLabels(name, head);
}
function checkLabels(name, head) {
    const judges = name === "nsp" || name === "sop";
    const count = head.labels?.length;
    const possible = head.positive === null || (count !== undefined && head.positive >= 0 && head.positive < count);
    if (possible && (!judges || count === undefined || (count === 2 && head.positive !== null)))
        return;
    throw new BundleError(`manifest.json gives ${count ?? 0} labels to the head ${excerpt(name)}, and calls column ${head.positive} positive: ${DAMAGED}`);
}
/** Refuse a path that is not inside the bundle. */
function refuseOutside(path) {
    if (path.length > LONGEST_PATH) {
        throw new BundleError(`manifest.json names ${excerpt(path)}, which is longer than a path is: ${DAMAGED}`);
    }
    if (path === "" || path.startsWith("/") || path.split("/").includes("..") || /[\\:\0]/.test(path)) {
        throw new BundleError(`manifest.json names ${excerpt(path)}, which is outside the bundle: do not use a bundle from this source`);
    }
}
