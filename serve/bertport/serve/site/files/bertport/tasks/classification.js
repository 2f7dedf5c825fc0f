/** text-classification, text-ranking and multiple-choice: tasks whose answer is made of a few logits of each text. */
import { argmax, largest, softmax } from "../arrays.js";
import { BundleError, excerpt, InputTextError, MissingHeadError } from "../errors.js";
import { ACTIVATIONS, activated, checkColumns, labelled } from "./labels.js";
import { boolean, encodedPair, hasFields, isPair, oneOf, rowOf, textOrPair, textsIn, wholeNumber, } from "./task.js";
const HEAD = "sequence-classification";
/** Functions that a caller of text-ranking may choose: the softmax of one logit is 1, whatever the document. */
const FUNCTIONS = ["sigmoid", "none"];
/** The row of text-classification. */
export const textClassification = {
    parameters: ["top_k", "function_to_apply", "truncation"],
    bind(parameters, context) {
        const { entry, labels } = labelled(HEAD, context.manifest);
        const activation = oneOf("function_to_apply", parameters.function_to_apply, ACTIVATIONS, usual(entry, labels.length));
        const top = parameters.top_k === undefined ? "best" : parameters.top_k;
        const count = top === "best" ? 1 : wholeNumber("top_k", top, labels.length);
        const truncation = boolean("truncation", parameters.truncation);
        return {
            head: HEAD,
            prepare(input) {
                const read = textOrPair("text-classification", input);
                const text = typeof read === "string" || read[1] ? read : read[0]; // an empty second text is none
                return {
                    rows: [rowOf(encodedPair(text, context, { truncation }))],
                    answer([values]) {
                        const row = values;
                        checkColumns(row, labels, context.manifest);
                        const scores = activated(row.data, activation);
                        const ranked = largest(scores, count).map((column) => ({
                            label: labels[column],
                            score: scores[column],
                        }));
                        return top === "best" ? ranked[0] : ranked;
                    },
                };
            },
        };
    },
};
/** Return what transformers' pipeline makes of the logits of so many labels, by the head's problem type. */
function usual(entry, count) {
    if (entry.problemType === "regression")
        return "none";
    return entry.problemType === "multi_label_classification" || count === 1 ? "sigmoid" : "softmax";
}
/** The row of text-ranking: a ranking for a query with documents, and a score for a pair of a query and a document. */
export const textRanking = {
    parameters: ["top_k", "return_documents", "function_to_apply", "truncation"],
    bind(parameters, context) {
        const { manifest } = context;
        const entry = manifest.heads[HEAD];
        if (entry?.labels && entry.labels.length !== 1) {
            throw new MissingHeadError(`text-ranking needs a classifier of one label, which says how well a text fits, and that of ${manifest.name} ` +
                `has ${entry.labels.length}: use a bundle that has one`);
        }
        const stated = oneOf("activation", entry?.activation, ACTIVATIONS, "sigmoid");
        const activation = oneOf("function_to_apply", parameters.function_to_apply, FUNCTIONS, stated);
        const top = wholeNumber("top_k", parameters.top_k, Number.MAX_SAFE_INTEGER);
        const shown = boolean("return_documents", parameters.return_documents);
        const truncation = boolean("truncation", parameters.truncation);
        function scoreOf(values) {
            if (values.width === 1)
                return activated(values.data, activation)[0];
            throw new BundleError(`text-ranking takes the one value of a classifier of one label, and that of ${manifest.name} gives ` +
                `${values.width}: use a bundle that has one`);
        }
        return {
            head: HEAD,
            prepare(input) {
                const { query, documents, alone } = queryIn(input);
                return {
                    rows: rowsOf(query, documents, context, truncation),
                    answer(values) {
                        const scores = values.map(scoreOf);
                        if (alone)
                            return scores[0];
                        return largest(scores, Math.min(top, scores.length)).map((place) => {
                            const ranked = { corpus_id: place, score: scores[place] };
                            return shown ? { ...ranked, text: documents[place] } : ranked;
                        });
                    },
                };
            },
        };
    },
};
function queryIn(input) {
    for (const field of ["documents", "texts"]) {
        if (hasFields(input, ["query", field]) && typeof input.query === "string") {
            return { query: input.query, documents: textsIn(field, input[field]), alone: false };
        }
    }
    const pair = hasFields(input, ["text", "text_pair"]) ? [input.text, input.text_pair] : input;
    if (isPair(pair))
        return { query: pair[0], documents: [pair[1]], alone: true };
    throw new InputTextError(`text-ranking takes {"query": …, "documents": […]}, or a pair of a query and a document, not ${excerpt(input)}`);
}
/** The row of multiple-choice. */
export const multipleChoice = {
    parameters: ["truncation"],
    bind(parameters, context) {
        const truncation = boolean("truncation", parameters.truncation);
        return {
            head: "multiple-choice",
            prepare(input) {
                const { prompt, choices } = choicesIn(input);
                return {
                    rows: rowsOf(prompt, choices, context, truncation),
                    answer(values) {
                        const probabilities = softmax(values.map((row) => row.data[0]));
                        const label = argmax(probabilities);
                        return { label, choice: choices[label], score: probabilities[label], probabilities };
                    },
                };
            },
        };
    },
};
function choicesIn(input) {
    for (const field of ["prompt", "text"]) {
        if (hasFields(input, [field, "choices"]) && typeof input[field] === "string") {
            return { prompt: input[field], choices: textsIn("choices", input.choices) };
        }
    }
    throw new InputTextError(`multiple-choice takes {"prompt": …, "choices": […]} with a text for a prompt, not ${excerpt(input)}`);
}
function rowsOf(first, seconds, context, truncation) {
    const pairs = seconds.map((second) => [first, second]);
    return pairs.map((pair) => rowOf(encodedPair(pair, context, { truncation })));
}
