/** Labels: from the logits of a head that classifies to scores under the labels that the bundle records. */

import { sigmoid, softmax } from "../arrays.js";
import { BundleError, MissingHeadError } from "../errors.js";
import type { Values } from "../graph.js";
import type { HeadEntry, Manifest } from "../manifest.js";

/** Names of the functions that make scores of logits, as transformers has them. */
export const ACTIVATIONS = ["softmax", "sigmoid", "none"] as const;
/** Name of a function that makes scores of logits. */
export type Activation = (typeof ACTIVATIONS)[number];

/** Return a head's entry, and its label per column. */
export function labelled(head: string, manifest: Manifest): { entry: HeadEntry; labels: readonly string[] } {
  const entry = manifest.heads[head];
  if (entry?.labels) return { entry, labels: entry.labels };
  throw new MissingHeadError(`${manifest.name} does not record what its ${head} labels mean: export it again`);
}

/** Refuse logits without a column for each label. */
export function checkColumns(values: Values, labels: readonly string[], manifest: Manifest): void {
  if (values.width === labels.length) return;
  throw new BundleError(
    `manifest.json of ${manifest.name} gives ${labels.length} labels to a head of ${values.width} columns: the bundle ` +
      "is damaged; export again",
  );
}

/** Return the scores of logits. */
export function activated(logits: Float32Array, activation: Activation): number[] {
  if (activation === "softmax") return softmax(logits);
  return Array.from(logits, (logit) => (activation === "sigmoid" ? sigmoid(logit) : logit));
}

/** Return the row `index` of values. */
export function rowAt(values: Values, index: number): Float32Array {
  return values.data.subarray(index * values.width, (index + 1) * values.width);
}
