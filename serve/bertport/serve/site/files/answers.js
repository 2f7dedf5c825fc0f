/** Answers in the form in which the server gives them, which views.js shows. */
import { unit } from "./bertport/arrays.js";
import { UsageError } from "./bertport/index.js";
/** Parameters of tasks here, beside those that the page gives. */
const DEFAULTS = {
    "text-classification": { top_k: null },
    "token-classification": { aggregation_strategy: "simple" },
};
/** Return the answers to inputs of a task, in order. */
export async function answer(model, task, inputs, parameters) {
    if (task === "sentence-similarity")
        return similarities(model, inputs);
    const answers = await model.predict(task, inputs, { ...DEFAULTS[task], ...parameters });
    return answers.map((value, index) => formed(task, value, inputs[index]));
}
function formed(task, value, input) {
    if (task === "text-classification")
        return [value];
    if (task === "token-classification" || task === "replaced-tokens")
        return counted(value, input);
    if (task !== "question-answering")
        return value;
    return counted(Array.isArray(value) ? value : [value], input.context);
}
/** Return rows whose places count characters, as the server does, in place of UTF-16 units. */
function counted(rows, text) {
    const characters = (units) => Array.from(text.slice(0, units)).length;
    return rows.map((row) => ({ ...row, start: characters(row.start), end: characters(row.end) }));
}
const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
const far = (power) => (a, b) => {
    const sum = a.reduce((total, value, index) => total + Math.abs(value - b[index]) ** power, 0);
    return -(sum ** (1 / power));
};
/** Functions that compare two vectors, by the names that a manifest may state. */
const COMPARE = {
    cosine: (a, b) => dot(unit(a), unit(b)),
    dot,
    euclidean: far(2),
    manhattan: far(1),
};
/** Return the similarity of texts: of vectors that the model was trained to make, or else of the means over their tokens. */
async function similarities(model, inputs) {
    const facts = model.manifest.heads.embedding?.embedding;
    const compare = COMPARE[facts ? facts.similarity : "cosine"];
    if (!compare)
        throw new UsageError("the bundle compares vectors in a way that this page does not know: make it again");
    const made = [];
    for (const input of inputs) {
        const texts = [input.source_sentence, ...input.sentences];
        const vectors = facts
            ? await model.predict("embeddings", texts)
            : (await model.predict("features", texts, { pooling: "mean" }));
        const [source, ...others] = vectors;
        made.push(others.map((other) => compare(source, other)));
    }
    return made;
}
