/** text-classification, text-ranking and multiple-choice: tasks whose answer is made of a few logits of each text. */

import { argmax, largest, softmax } from "../arrays.js";
import { BundleError, excerpt, InputTextError, MissingHeadError } from "../errors.js";
import type { Values } from "../graph.js";
import type { HeadEntry } from "../manifest.js";
import type { Text } from "../tokenizer.js";
import { ACTIVATIONS, type Activation, activated, checkColumns, labelled } from "./labels.js";
import {
  boolean,
  type Context,
  encodedPair,
  hasFields,
  isPair,
  oneOf,
  rowOf,
  type Shared,
  type Task,
  textOrPair,
  textsIn,
  wholeNumber,
} from "./task.js";

const HEAD = "sequence-classification";
/** Functions that a caller of text-ranking may choose: the softmax of one logit is 1, whatever the document. */
const FUNCTIONS: readonly Activation[] = ["sigmoid", "none"];

/** Parameters of text-classification. */
export interface ClassificationParameters extends Shared {
  /** `"best"`: the best label; a number: a list of so many, best first; null: a list of all. */
  readonly top_k?: number | "best" | null;
  /** What makes scores of the logits; what the head's problem type says where nothing is asked for. */
  readonly function_to_apply?: Activation;
}

/** One label of a text. */
export interface ScoredLabel {
  /** The label, as the bundle records it. */
  readonly label: string;
  /** Its probability; the logit itself where no function is applied. */
  readonly score: number;
}

/** The row of text-classification. */
export const textClassification: Task<unknown, ClassificationParameters, ScoredLabel | ScoredLabel[]> = {
  parameters: ["top_k", "function_to_apply", "truncation"],
  bind(parameters, context) {
    const { entry, labels } = labelled(HEAD, context.manifest);
    const activation = oneOf(
      "function_to_apply",
      parameters.function_to_apply,
      ACTIVATIONS,
      usual(entry, labels.length),
    );
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
            const row = values as Values;
            checkColumns(row, labels, context.manifest);
            const scores = activated(row.data, activation);
            const ranked = largest(scores, count).map((column) => ({
              label: labels[column] as string,
              score: scores[column] as number,
            }));
            return top === "best" ? (ranked[0] as ScoredLabel) : ranked;
          },
        };
      },
    };
  },
};

/** Return what transformers' pipeline makes of the logits of so many labels, by the head's problem type. */
function usual(entry: HeadEntry, count: number): Activation {
  if (entry.problemType === "regression") return "none";
  return entry.problemType === "multi_label_classification" || count === 1 ? "sigmoid" : "softmax";
}

/** Parameters of text-ranking. */
export interface RankingParameters extends Shared {
  /** How many documents are given, best first; all where nothing is asked for. */
  readonly top_k?: number | null;
  /** Give the text of each document too. */
  readonly return_documents?: boolean;
  /** What makes a score of the logit; what the bundle states, or else sigmoid, where nothing is asked for. */
  readonly function_to_apply?: Exclude<Activation, "softmax">;
}

/** A document in a ranking. */
export interface RankedText {
  /** Its place in the list given, counted from 0. */
  readonly corpus_id: number;
  /** How well it fits the query. */
  readonly score: number;
  /** The document, where documents are asked for. */
  readonly text?: string;
}

/** The row of text-ranking: a ranking for a query with documents, and a score for a pair of a query and a document. */
export const textRanking: Task<unknown, RankingParameters, RankedText[] | number> = {
  parameters: ["top_k", "return_documents", "function_to_apply", "truncation"],
  bind(parameters, context) {
    const { manifest } = context;
    const entry = manifest.heads[HEAD];
    if (entry?.labels && entry.labels.length !== 1) {
      throw new MissingHeadError(
        `text-ranking needs a classifier of one label, which says how well a text fits, and that of ${manifest.name} ` +
          `has ${entry.labels.length}: use a bundle that has one`,
      );
    }
    const stated = oneOf("activation", entry?.activation, ACTIVATIONS, "sigmoid");
    const activation = oneOf("function_to_apply", parameters.function_to_apply, FUNCTIONS, stated);
    const top = wholeNumber("top_k", parameters.top_k, Number.MAX_SAFE_INTEGER);
    const shown = boolean("return_documents", parameters.return_documents);
    const truncation = boolean("truncation", parameters.truncation);

    function scoreOf(values: Values): number {
      if (values.width === 1) return activated(values.data, activation)[0] as number;
      throw new BundleError(
        `text-ranking takes the one value of a classifier of one label, and that of ${manifest.name} gives ` +
          `${values.width}: use a bundle that has one`,
      );
    }

    return {
      head: HEAD,
      prepare(input) {
        const { query, documents, alone } = queryIn(input);
        return {
          rows: rowsOf(query, documents, context, truncation),
          answer(values) {
            const scores = values.map(scoreOf);
            if (alone) return scores[0] as number;
            return largest(scores, Math.min(top, scores.length)).map((place) => {
              const ranked = { corpus_id: place, score: scores[place] as number };
              return shown ? { ...ranked, text: documents[place] as string } : ranked;
            });
          },
        };
      },
    };
  },
};

function queryIn(input: unknown): { query: string; documents: readonly string[]; alone: boolean } {
  for (const field of ["documents", "texts"] as const) {
    if (hasFields(input, ["query", field]) && typeof input.query === "string") {
      return { query: input.query, documents: textsIn(field, input[field]), alone: false };
    }
  }
  const pair: unknown = hasFields(input, ["text", "text_pair"]) ? [input.text, input.text_pair] : input;
  if (isPair(pair)) return { query: pair[0], documents: [pair[1]], alone: true };
  throw new InputTextError(
    `text-ranking takes {"query": …, "documents": […]}, or a pair of a query and a document, not ${excerpt(input)}`,
  );
}

/** The likeliest of several choices. */
export interface Choice {
  /** The likeliest choice, counted from 0. */
  readonly label: number;
  /** Its text. */
  readonly choice: string;
  /** Its probability. */
  readonly score: number;
  /** Probability of each choice, in the order given. */
  readonly probabilities: readonly number[];
}

/** The row of multiple-choice. */
export const multipleChoice: Task<unknown, Shared, Choice> = {
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
            const probabilities = softmax(values.map((row) => row.data[0] as number));
            const label = argmax(probabilities);
            return { label, choice: choices[label] as string, score: probabilities[label] as number, probabilities };
          },
        };
      },
    };
  },
};

function choicesIn(input: unknown): { prompt: string; choices: readonly string[] } {
  for (const field of ["prompt", "text"] as const) {
    if (hasFields(input, [field, "choices"]) && typeof input[field] === "string") {
      return { prompt: input[field], choices: textsIn("choices", input.choices) };
    }
  }
  throw new InputTextError(
    `multiple-choice takes {"prompt": …, "choices": […]} with a text for a prompt, not ${excerpt(input)}`,
  );
}

function rowsOf(first: string, seconds: readonly string[], context: Context, truncation: boolean) {
  const pairs: Text[] = seconds.map((second) => [first, second] as const);
  return pairs.map((pair) => rowOf(encodedPair(pair, context, { truncation })));
}
