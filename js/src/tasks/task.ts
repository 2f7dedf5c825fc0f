/** Tasks: how each reads an input, which head it needs, and how its answer is made of that head's output. */

import { excerpt, InputTextError, UsageError } from "../errors.js";
import type { Row, Values } from "../graph.js";
import type { HeadName } from "../heads.js";
import type { Manifest } from "../manifest.js";
import type { Encoded, Text, Tokens } from "../tokenizer.js";

/** The model that a task is bound to. */
export interface Context {
  readonly manifest: Manifest;
  readonly tokens: Tokens;
  /** Passes a warning to the caller. */
  readonly warn: (message: string) => void;
}

/** An input that was read: its rows, and what makes the answer of their shares of the output. */
export interface Prepared<Answer> {
  readonly rows: readonly Row[];
  answer(values: readonly Values[]): Answer;
}

/** A task with its parameters checked. */
export interface Bound<Input, Answer> {
  /** Head whose output it takes; null for the hidden states. */
  readonly head: HeadName | null;
  /** Read one input; InputTextError for one that the task cannot take. */
  prepare(input: Input): Prepared<Answer>;
}

/** One row of the table. */
export interface Task<Input, Parameters, Answer> {
  /** Names of its parameters. */
  readonly parameters: readonly (keyof Parameters & string)[];
  /** Check parameters and return the task bound to them. */
  bind(parameters: Parameters, context: Context): Bound<Input, Answer>;
}

/** Parameters of every task. */
export interface Shared {
  /** Cut an input that is too long, of a pair the longer text, instead of refusing it. */
  readonly truncation?: boolean;
}

/** Most rows that one input may make. */
export const MOST_ROWS = 16_384;

/** Return a row of an encoded text. */
export function rowOf(encoded: Encoded, positions: readonly number[] = []): Row {
  if (encoded.ids.length) return { ids: encoded.ids, types: encoded.types, positions };
  throw new InputTextError("the input has no tokens (the tokenizer drops all of it, and adds none): leave it out");
}

/** Return a text of an input: a text, or an object with the one field `text`. */
export function oneText(task: string, value: unknown): string {
  const text = hasFields(value, ["text"]) ? value.text : value;
  if (typeof text === "string") return text;
  throw new InputTextError(`${task} takes a text, or {"text": …}, not ${excerpt(value)}`);
}

/** Return the pair of an input: two texts in a list, or an object with `text` and `text_pair`. */
export function twoTexts(task: string, value: unknown): readonly [string, string] {
  const pair = hasFields(value, ["text", "text_pair"]) ? [value.text, value.text_pair] : value;
  if (isPair(pair)) return pair;
  throw new InputTextError(
    `${task} takes two texts, ["A", "B"] or {"text": "A", "text_pair": "B"}, not ${excerpt(value)}`,
  );
}

/** Return the text or pair of an input. */
export function textOrPair(task: string, value: unknown): Text {
  return isPair(value) || hasFields(value, ["text", "text_pair"]) ? twoTexts(task, value) : oneText(task, value);
}

/** Return the texts of a list, each of which makes a row. */
export function textsIn(name: string, value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length < 1 || value.length > MOST_ROWS) {
    throw new InputTextError(`${name} is a list of 1 to ${MOST_ROWS} texts, not ${excerpt(value)}`);
  }
  const wrong = value.findIndex((text) => typeof text !== "string");
  if (wrong < 0) return value;
  throw new InputTextError(`${name} is a list of texts, and number ${wrong + 1} is ${excerpt(value[wrong])}`);
}

/** Return whether a value is an object with these fields and no others. */
export function hasFields<K extends string>(value: unknown, names: readonly K[]): value is Record<K, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.keys(value).length === names.length && names.every((name) => Object.hasOwn(value, name));
}

/** Return the pair of texts where the model takes pairs. */
export function encodedPair(pair: Text, context: Context, options: { truncation: boolean }): Encoded {
  const { segmentCount } = context.manifest;
  const encoded = context.tokens.encode(pair, options);
  refuseSegments(pair, encoded, segmentCount);
  return encoded;
}

/** Refuse a pair of a model that cannot tell its texts apart. */
export function refuseSegments(text: Text, encoded: Encoded, segmentCount: number): void {
  if (typeof text === "string" || Math.max(...encoded.types) < segmentCount) return;
  throw new InputTextError(
    `the input is a pair of texts and the model knows ${segmentCount} segment${segmentCount === 1 ? "" : "s"} ` +
      `(type_vocab_size): give one text: ${excerpt(text)}`,
  );
}

/** Return a parameter that is true or false. */
export function boolean(name: string, value: unknown, fallback = false): boolean {
  if (value === undefined) return fallback;
  if (typeof value === "boolean") return value;
  throw new UsageError(`${name} is true or false, not ${excerpt(value)}`);
}

/** Return a parameter that is a whole number. */
export function wholeNumber(
  name: string,
  value: unknown,
  fallback: number,
  least = 1,
  most = Number.MAX_SAFE_INTEGER,
): number {
  if (value === undefined || value === null) return fallback;
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} up` : `from ${least} to ${most}`;
  throw new UsageError(`${name} is a number ${range}, not ${excerpt(value)}`);
}

/** Return a parameter that is one of some names. */
export function oneOf<N extends string>(name: string, value: unknown, names: readonly N[], fallback: N): N {
  if (value === undefined || value === null) return fallback;
  if (names.includes(value as N)) return value as N;
  throw new UsageError(`unknown ${name} ${excerpt(value)}: choose ${names.join(", ")}`);
}

/** Return whether a value is a list of two texts. */
export function isPair(value: unknown): value is readonly [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((text) => typeof text === "string");
}
