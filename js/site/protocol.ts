/** Messages between the page and the model's worker. */

import type { Proof } from "../src/golden.js";
import type { Device, Site } from "./listing.js";

/** Requests of the page. */
export type Request =
  | { readonly kind: "load"; readonly site: Site; readonly variant: string; readonly device: Device }
  | { readonly kind: "ask"; readonly task: string; readonly inputs: readonly unknown[]; readonly parameters: object }
  | { readonly kind: "prove" };

/** Answer to `load`. */
export interface Loaded {
  readonly threads: number;
  /** Milliseconds of a short text, after one that was not timed. */
  readonly shortText: number;
  /** Whether all that was read for it is kept for visits without a network. */
  readonly kept: boolean;
}

/** Answer to `ask`. */
export interface Answered {
  readonly answers: readonly unknown[];
  /** Milliseconds in the tokenizer and the model. */
  readonly milliseconds: number;
}

/** Answers by the kind of request. */
export interface Answers {
  load: Loaded;
  ask: Answered;
  prove: Proof;
}

/** Messages of the worker. */
export type Message =
  | { readonly kind: "progress"; readonly bytes: number }
  | { readonly kind: "answer"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly name: string; readonly message: string };
