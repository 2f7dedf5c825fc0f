/** A loaded model: a bundle's tokenizer and one of its graphs, which answer inputs of the tasks that it has heads for. */
import { Bundle } from "./bundle.js";
import { excerpt, MissingHeadError, ProviderError, UsageError } from "./errors.js";
import { prove } from "./golden.js";
import { Graph, obstacle } from "./graph.js";
import { HIDDEN_STATES, OUTPUTS } from "./heads.js";
import { ELSEWHERE, TASKS } from "./tasks/table.js";
import { Tokens } from "./tokenizer.js";
/** Inputs that are prepared and run together, at most: they bound the memory of what the graph gives. */
const WINDOW = 256;
/** A bundle's tokenizer and one of its graphs. */
export class Model {
    bundle;
    variant;
    tokens;
    graph;
    warn;
    constructor(
    /** The bundle, whose files are checked when they are read. */
    bundle, 
    /** Name of the variant that answers. */
    variant, 
    /** The tokenizer. */
    tokens, graph, warn) {
        this.bundle = bundle;
        this.variant = variant;
        this.tokens = tokens;
        this.graph = graph;
        this.warn = warn;
    }
    /** Return a model, of which every file was compared with its hash before it was opened. */
    static async load(options) {
        const bundle = await Bundle.open(options.readFile, options.digest);
        const variant = chosen(bundle.manifest, options.variant);
        const tokens = await Tokens.read(bundle);
        const graph = await Graph.open(bundle, variant, options.runtime, options.sessionOptions ?? {}, tokens.padId ?? 0);
        const warn = options.warn ?? console.warn;
        const entry = bundle.manifest.variants[variant];
        if (!isRightAnywhere(entry)) {
            warn(`variant ${excerpt(variant)} is made for CPUs with ${entry.isa}, and on others its 8-bit products may ` +
                "overflow and its answers be wrong: check it by prove(), or choose another variant");
        }
        return new Model(bundle, variant, tokens, graph, warn);
    }
    /** The manifest: what the bundle states about itself. */
    get manifest() {
        return this.bundle.manifest;
    }
    /** Names of the tasks that the bundle has a head for. */
    get tasks() {
        return Object.keys(TASKS).filter((name) => {
            try {
                this.bind(name, {});
                return true;
            }
            catch {
                return false;
            }
        });
    }
    /**
     * Return the answer to one input.
     *
     * @param task - the name of a task.
     * @param input - what the task takes: a text, a pair, or an object, as in Python.
     * @param parameters - the task's, by the names that they have in Python.
     */
    async ask(task, input, parameters) {
        const [answer] = await this.predict(task, [input], parameters);
        return answer;
    }
    /** Return the answer to each input, in order; inputs of nearly equal length share a run. */
    async predict(task, inputs, parameters) {
        if (!Array.isArray(inputs))
            throw new UsageError(`inputs is a list, not ${excerpt(inputs)}: for one input use ask`);
        const bound = this.bind(task, parameters ?? {});
        const output = bound.head === null ? HIDDEN_STATES : OUTPUTS[bound.head];
        const answers = [];
        for (let start = 0; start < inputs.length; start += WINDOW) {
            const prepared = inputs.slice(start, start + WINDOW).map((input) => bound.prepare(input));
            answers.push(...(await this.answered(prepared, output)));
        }
        return answers;
    }
    /**
     * Compare tokenizer and graph with the bundle's golden vectors.
     *
     * @returns what was compared and how far it was at most; BundleError for a bundle without them.
     */
    async prove() {
        return prove(this.bundle, this.variant, this.tokens, this.graph);
    }
    /** Release the memory of the graph. */
    async release() {
        await this.graph.release();
    }
    async answered(prepared, output) {
        const shares = await this.graph.run(prepared.flatMap((input) => input.rows), output);
        let at = 0;
        return prepared.map((input) => {
            const values = shares.slice(at, at + input.rows.length);
            at += input.rows.length;
            return input.answer(values);
        });
    }
    bind(name, parameters) {
        const task = taskOf(name);
        const unknown = Object.keys(parameters).find((key) => !task.parameters.includes(key));
        if (unknown !== undefined) {
            throw new UsageError(`unknown parameter ${excerpt(unknown)} of ${name}: choose ${task.parameters.join(", ")}`);
        }
        const context = { manifest: this.manifest, tokens: this.tokens, warn: this.warn };
        this.needHead(name);
        const bound = task.bind(parameters, context);
        this.needHead(name, bound.head);
        return bound;
    }
    needHead(name, head = USUAL[name]) {
        const { heads } = this.manifest;
        if (head === null || Object.hasOwn(heads, head))
            return;
        throw new MissingHeadError(`${name} needs the head '${head}', which the checkpoint of ${this.manifest.name} does not hold ` +
            `(heads: ${Object.keys(heads).join(", ") || "none"}): use a bundle that has it`);
    }
}
/** The head of each task, as far as its parameters do not choose it. */
const USUAL = {
    "fill-mask": "mlm",
    "next-sentence": "nsp",
    "sentence-order": "sop",
    "replaced-tokens": "rtd",
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
    "text-ranking": "sequence-classification",
    features: null,
    embeddings: "embedding",
};
function taskOf(name) {
    if (Object.hasOwn(TASKS, name))
        return TASKS[name];
    const instead = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : undefined;
    if (instead)
        throw new UsageError(`${name} is not in this package: ${instead}`);
    throw new UsageError(`unknown task ${excerpt(name)}: choose ${Object.keys(TASKS).join(", ")}`);
}
/** Return the name of the variant to open; ProviderError or UsageError for one that cannot be. */
function chosen(manifest, asked) {
    const names = Object.keys(manifest.variants);
    if (asked === undefined)
        return preferred(manifest);
    const variant = Object.hasOwn(manifest.variants, asked) ? manifest.variants[asked] : undefined;
    if (!variant)
        throw new UsageError(`unknown variant ${excerpt(asked)}: choose ${names.join(", ")}`);
    const reason = obstacle(variant);
    if (reason) {
        const others = names.filter((name) => !obstacle(manifest.variants[name]));
        const advice = others.length ? `choose ${others.join(" or ")}` : "use another bundle";
        throw new ProviderError(`variant ${excerpt(asked)} ${reason}: ${advice}`);
    }
    return asked;
}
/** Return whether a variant is right on every CPU: of INT8, one made for CPUs whose 8-bit products may overflow. */
function isRightAnywhere({ isa }) {
    return isa === null || ["avx2", "avx512"].includes(isa);
}
/**
 * Return the variant to open where none is asked for: `int8-dynamic`, or else `portable`.
 *
 * INT8 is taken where it is right on every CPU: which one this is cannot be told in a browser.
 */
export function preferred(manifest) {
    const int8 = Object.hasOwn(manifest.variants, "int8-dynamic") ? manifest.variants["int8-dynamic"] : undefined;
    if (int8 && isRightAnywhere(int8) && !obstacle(int8))
        return "int8-dynamic";
    const fallback = Object.entries(manifest.variants).find(([name, variant]) => name === "portable" && !obstacle(variant));
    if (fallback)
        return "portable";
    const any = Object.entries(manifest.variants).find(([, variant]) => !obstacle(variant) && variant.isa === null);
    if (any)
        return any[0];
    const reasons = Object.entries(manifest.variants).map(([name, variant]) => `${name} ${obstacle(variant) ?? `is made for CPUs with ${variant.isa}`}`);
    throw new ProviderError(`the bundle ${manifest.name} has no variant that ONNX Runtime's CPU runs everywhere ` +
        `(${reasons.join("; ").slice(0, 300)}): name one, or use another bundle`);
}
