/** What the page and the model's worker say to each other. */

import type { Proof } from "../src/golden.js";
import type { Device, Site } from "./listing.js";

/** What the page asks. */
export type Request =
  | { readonly kind: "load"; readonly site: Site; readonly variant: string; readonly device: Device }
  | { readonly kind: "ask"; readonly task: string; readonly inputs: readonly unknown[]; readonly parameters: object }
  | { readonly kind: "prove" };

/** What `load` answers. */
export interface Loaded {
  readonly tasks: readonly string[];
  readonly threads: number;
  /** Milliseconds of a short text, after one that was not timed. */
  readonly shortText: number;
}

/** What `ask` answers. */
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

/** What the worker says. */
export type Message =
  | { readonly kind: "progress"; readonly bytes: number }
  | { readonly kind: "answer"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly name: string; readonly message: string };
