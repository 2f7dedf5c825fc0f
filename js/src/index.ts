/** bertport: answers from a bundle, wherever ONNX Runtime runs; no module of Node.js is used. */

import { type LoadOptions, Model } from "./model.js";

export type { ReadFile } from "./bundle.js";
export {
  BertportError,
  BundleError,
  InputTextError,
  MissingHeadError,
  OutputError,
  ProviderError,
  UsageError,
} from "./errors.js";
export type { Proof } from "./golden.js";
export type { OnnxRuntime, OnnxSession, OnnxTensor } from "./graph.js";
export type { Manifest, Variant } from "./manifest.js";
export { type LoadOptions, Model, preferred } from "./model.js";
export type { Choice, RankedText, ScoredLabel } from "./tasks/classification.js";
export type { FilledMask } from "./tasks/fill-mask.js";
export type { NextSentence, SentenceOrder } from "./tasks/pairs.js";
export type { Answer } from "./tasks/question-answering.js";
export type { AnswerOf, ParametersOf, TaskName } from "./tasks/table.js";
export type { Entity, TokenLabel } from "./tasks/token-classification.js";

/** Return a model, of which every file was compared with its hash before it was opened. */
export function load(options: LoadOptions): Promise<Model> {
  return Model.load(options);
}
