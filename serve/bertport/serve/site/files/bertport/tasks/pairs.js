/** next-sentence and sentence-order: which of two labels fits a pair of texts, with the probabilities of both. */
import { argmax, softmax } from "../arrays.js";
import { MissingHeadError } from "../errors.js";
import { checkColumns, labelled } from "./labels.js";
import { boolean, rowOf, twoTexts } from "./task.js";
/** The row of next-sentence. */
export const nextSentence = judge("next-sentence", "nsp", (verdict, yes) => ({
    ...verdict,
    follows: yes,
}));
/** The row of sentence-order. */
export const sentenceOrder = judge("sentence-order", "sop", (verdict, yes) => ({
    ...verdict,
    in_order: yes,
}));
function judge(name, head, answer) {
    return {
        parameters: ["truncation"],
        bind(parameters, { tokens, manifest }) {
            const { entry, labels } = labelled(head, manifest);
            const truncation = boolean("truncation", parameters.truncation);
            if (manifest.segmentCount < 2 || !tokens.takesPairs) {
                throw new MissingHeadError(`${name} takes two texts, and ${manifest.name} cannot tell two apart: use a bundle that was trained on pairs`);
            }
            return {
                head,
                prepare(input) {
                    const encoded = tokens.encode(twoTexts(name, input), { truncation });
                    return {
                        rows: [rowOf(encoded)],
                        answer([values]) {
                            const row = values;
                            checkColumns(row, labels, manifest);
                            const shares = softmax(row.data);
                            const best = argmax(shares);
                            const probabilities = Object.fromEntries(labels.map((label, column) => [label, shares[column]]));
                            const verdict = { label: labels[best], score: shares[best], probabilities };
                            return answer(verdict, best === entry.positive);
                        },
                    };
                },
            };
        },
    };
}
