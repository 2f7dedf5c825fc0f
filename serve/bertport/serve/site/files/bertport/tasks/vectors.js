/** features and embeddings: vectors of tokens or of texts. */
import { unit } from "../arrays.js";
import { excerpt, MissingHeadError, UsageError } from "../errors.js";
import { rowAt } from "./labels.js";
import { boolean, encodedPair, oneOf, oneText, rowOf, textOrPair, wholeNumber, } from "./task.js";
const POOLINGS = ["none", "cls", "mean", "pooler"];
const LONGEST_PROMPT = 4096;
/** The row of features: a vector, or with pooling `none` one for each token, special tokens included. */
export const features = {
    parameters: ["pooling", "normalize", "truncation"],
    bind(parameters, context) {
        const pooling = oneOf("pooling", parameters.pooling, POOLINGS, "none");
        const normalize = boolean("normalize", parameters.normalize);
        const truncation = boolean("truncation", parameters.truncation);
        if (normalize && pooling === "none") {
            throw new UsageError("normalize: true needs one vector per text: choose pooling 'cls', 'mean' or 'pooler'");
        }
        return {
            head: pooling === "pooler" ? "pooler" : null,
            prepare(input) {
                const encoded = encodedPair(textOrPair("features", input), context, { truncation });
                return {
                    rows: [rowOf(encoded)],
                    answer([values]) {
                        const states = Array.from({ length: values?.rows ?? 0 }, (_, row) => rowAt(values, row).slice());
                        if (pooling === "none")
                            return states;
                        const vector = pooling === "mean" ? mean(states) : states[0];
                        return normalize ? unit(vector) : vector;
                    },
                };
            },
        };
    },
};
/** The row of embeddings: the vector of a text that the model was trained to make. */
export const embeddings = {
    parameters: ["prompt", "prompt_name", "truncate_dim", "normalize", "truncation"],
    bind(parameters, { tokens, manifest }) {
        const facts = manifest.heads.embedding?.embedding;
        if (!facts) {
            throw new MissingHeadError(`${manifest.name} does not record what makes its vectors of texts: export a model of sentence-transformers`);
        }
        const prompt = promptOf(parameters, facts, manifest.name);
        const size = wholeNumber("truncate_dim", parameters.truncate_dim, facts.truncateDim ?? facts.dimension, 1, facts.dimension);
        const normalize = boolean("normalize", parameters.normalize);
        const truncation = boolean("truncation", parameters.truncation);
        return {
            head: "embedding",
            prepare(input) {
                const encoded = tokens.encode(prompt + oneText("embeddings", input), { truncation });
                return {
                    rows: [rowOf(encoded)],
                    answer([values]) {
                        const vector = values.data.slice(0, size);
                        return normalize ? unit(vector) : vector;
                    },
                };
            },
        };
    },
};
function promptOf(parameters, facts, name) {
    const { prompt: given = null, prompt_name: asked = null } = parameters;
    for (const value of [given, asked]) {
        if (value !== null && typeof value !== "string")
            throw new UsageError(`a prompt is a text, not ${excerpt(value)}`);
    }
    if (given !== null && asked !== null) {
        throw new UsageError("a prompt and a prompt_name were given, which say the same: leave one of them out");
    }
    const named = asked ?? facts.defaultPrompt;
    if (given === null && named !== null && !Object.hasOwn(facts.prompts, named)) {
        const known = Object.keys(facts.prompts).join(", ") || "none";
        throw new UsageError(`unknown prompt ${excerpt(named)}: choose one of the model's (${known})`);
    }
    const prompt = given ?? (named === null ? "" : (facts.prompts[named] ?? ""));
    const length = Array.from(prompt).length; // characters, as Python counts them, and not UTF-16 units
    if (length > LONGEST_PROMPT) {
        throw new UsageError(`the prompt has ${length} characters and may have ${LONGEST_PROMPT}: give a shorter one`);
    }
    if (prompt && facts.leavesPromptOut) {
        throw new UsageError(`${name} makes vectors without the tokens of a prompt (include_prompt), which its graph cannot tell apart: give texts without a prompt`);
    }
    return prompt;
}
function mean(states) {
    const [first] = states;
    const sums = Array.from(first, (_, column) => states.reduce((sum, state) => sum + state[column], 0));
    return Float32Array.from(sums, (sum) => sum / states.length);
}
