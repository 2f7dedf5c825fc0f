/** Answers in the form in which the server gives them, which views.js shows. */

import { unit } from "../src/arrays.js";
import { type Model, type TaskName, UsageError } from "../src/index.js";

/** Parameters of tasks here, beside those that the page gives. */
const DEFAULTS: Readonly<Record<string, object>> = {
  "text-classification": { top_k: null },
  "token-classification": { aggregation_strategy: "simple" },
};

/** Return the answers to inputs of a task, in order. */
export async function answer(
  model: Model,
  task: string,
  inputs: readonly unknown[],
  parameters: object,
): Promise<unknown[]> {
  if (task === "sentence-similarity") return similarities(model, inputs);
  const answers: unknown[] = await model.predict(task as TaskName, inputs, { ...DEFAULTS[task], ...parameters });
  return answers.map((value, index) => formed(task, value, inputs[index]));
}

function formed(task: string, value: unknown, input: unknown): unknown {
  if (task === "text-classification") return [value];
  if (task === "token-classification" || task === "replaced-tokens") return counted(value as Place[], input as string);
  if (task !== "question-answering") return value;
  return counted(Array.isArray(value) ? value : [value as Place], (input as { context: string }).context);
}

interface Place {
  readonly start: number;
  readonly end: number;
}

/** Return rows whose places count characters, as the server does, in place of UTF-16 units. */
function counted(rows: readonly Place[], text: string): Place[] {
  const characters = (units: number) => Array.from(text.slice(0, units)).length;
  return rows.map((row) => ({ ...row, start: characters(row.start), end: characters(row.end) }));
}

type Compare = (a: Float32Array, b: Float32Array) => number;

const dot: Compare = (a, b) => a.reduce((sum, value, index) => sum + value * (b[index] as number), 0);
const far =
  (power: 1 | 2): Compare =>
  (a, b) => {
    const sum = a.reduce((total, value, index) => total + Math.abs(value - (b[index] as number)) ** power, 0);
    return -(sum ** (1 / power));
  };
/** Functions that compare two vectors, by the names that a manifest may state. */
const COMPARE: Readonly<Record<string, Compare>> = {
  cosine: (a, b) => dot(unit(a), unit(b)),
  dot,
  euclidean: far(2),
  manhattan: far(1),
};

/** Return the similarity of texts: of vectors that the model was trained to make, or else of the means over their tokens. */
async function similarities(model: Model, inputs: readonly unknown[]): Promise<number[][]> {
  const facts = model.manifest.heads.embedding?.embedding;
  const compare = COMPARE[facts ? facts.similarity : "cosine"];
  if (!compare)
    throw new UsageError("the bundle compares vectors in a way that this page does not know: make it again");
  const made: number[][] = [];
  for (const input of inputs as readonly { source_sentence: string; sentences: string[] }[]) {
    const texts = [input.source_sentence, ...input.sentences];
    const vectors = facts
      ? await model.predict("embeddings", texts)
      : ((await model.predict("features", texts, { pooling: "mean" })) as Float32Array[]);
    const [source, ...others] = vectors as [Float32Array, ...Float32Array[]];
    made.push(others.map((other) => compare(source, other)));
  }
  return made;
}
