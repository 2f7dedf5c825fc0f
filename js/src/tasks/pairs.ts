/** next-sentence and sentence-order: which of two labels fits a pair of texts, with the probabilities of both. */

import { argmax, softmax } from "../arrays.js";
import { MissingHeadError } from "../errors.js";
import { checkColumns, labelled } from "./labels.js";
import { boolean, rowOf, type Shared, type Task, twoTexts } from "./task.js";

/** Which of two labels fits a pair of texts. */
export interface Verdict {
  /** The more probable label, as the bundle records it. */
  readonly label: string;
  /** Probability of the label. */
  readonly score: number;
  /** Probability of each label. */
  readonly probabilities: Readonly<Record<string, number>>;
}

/** Whether a text follows another. */
export interface NextSentence extends Verdict {
  /** Whether the label says that the second text follows the first. */
  readonly follows: boolean;
}

/** Whether two texts stand in the order in which they were written. */
export interface SentenceOrder extends Verdict {
  /** Whether the label says that the first text came before the second. */
  readonly in_order: boolean;
}

/** The row of next-sentence. */
export const nextSentence = judge<NextSentence>("next-sentence", "nsp", (verdict, yes) => ({
  ...verdict,
  follows: yes,
}));
/** The row of sentence-order. */
export const sentenceOrder = judge<SentenceOrder>("sentence-order", "sop", (verdict, yes) => ({
  ...verdict,
  in_order: yes,
}));

function judge<A extends Verdict>(
  name: string,
  head: "nsp" | "sop",
  answer: (verdict: Verdict, yes: boolean) => A,
): Task<unknown, Shared, A> {
  return {
    parameters: ["truncation"],
    bind(parameters, { tokens, manifest }) {
      const { entry, labels } = labelled(head, manifest);
      const truncation = boolean("truncation", parameters.truncation);
      if (manifest.segmentCount < 2 || !tokens.takesPairs) {
        throw new MissingHeadError(
          `${name} takes two texts, and ${manifest.name} cannot tell two apart: use a bundle that was trained on pairs`,
        );
      }
      return {
        head,
        prepare(input) {
          const encoded = tokens.encode(twoTexts(name, input), { truncation });
          return {
            rows: [rowOf(encoded)],
            answer([values]) {
              const row = values as NonNullable<typeof values>;
              checkColumns(row, labels, manifest);
              const shares = softmax(row.data);
              const best = argmax(shares);
              const probabilities = Object.fromEntries(
                labels.map((label, column) => [label, shares[column] as number]),
              );
              const verdict = { label: labels[best] as string, score: shares[best] as number, probabilities };
              return answer(verdict, best === entry.positive);
            },
          };
        },
      };
    },
  };
}
