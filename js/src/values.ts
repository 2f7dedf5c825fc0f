/** JSON values of a bundle's files, read strictly: errors name the place and what was expected there. */

import { BundleError, excerpt } from "./errors.js";

/** What an error says of a file that no exporter wrote. */
export const DAMAGED = "the bundle is damaged; export again";

/** A JSON value with its place, which its errors name. */
export class Value {
  constructor(
    readonly raw: unknown,
    private readonly where: string,
  ) {}

  at(key: string): Value {
    const object = this.object();
    return new Value(Object.hasOwn(object, key) ? object[key] : undefined, `${this.where}: ${key}`);
  }

  text(): string {
    return typeof this.raw === "string" && !/\p{Cs}/u.test(this.raw) ? this.raw : this.refuse("a text");
  }

  number(): number {
    return Number.isSafeInteger(this.raw) && (this.raw as number) >= 0
      ? (this.raw as number)
      : this.refuse("a whole number");
  }

  real(): number {
    return Number.isFinite(this.raw) ? (this.raw as number) : this.refuse("a number");
  }

  list(): Value[] {
    if (!Array.isArray(this.raw)) return this.refuse("a list");
    return this.raw.map((inner) => new Value(inner, this.where));
  }

  map(): Record<string, Value> {
    const entries = Object.entries(this.object());
    return Object.fromEntries(
      entries.map(([key, inner]) => [key, new Value(inner, `${this.where}: ${key.slice(0, 80)}`)]),
    );
  }

  numbers(): number[] {
    return this.list().map((inner) => inner.number());
  }

  /** Return what `read` makes of the value; null where there is none. */
  optional<T>(read: (value: Value) => T): T | null {
    return this.raw === undefined || this.raw === null ? null : read(this);
  }

  isObject(): boolean {
    return typeof this.raw === "object" && this.raw !== null && !Array.isArray(this.raw);
  }

  private object(): Record<string, unknown> {
    return this.isObject() ? (this.raw as Record<string, unknown>) : this.refuse("an object");
  }

  private refuse(expected: string): never {
    if (this.raw === undefined) throw new BundleError(`${this.where} is missing: ${DAMAGED}`);
    throw new BundleError(`${this.where}: expected ${expected}, found ${excerpt(this.raw, 80)}: ${DAMAGED}`);
  }
}

/** Return what `read` makes of each value of an object, by its key. */
export function mapped<T>(value: Value, read: (value: Value) => T): Record<string, T> {
  const made: [string, T][] = Object.entries(value.map()).map(([key, inner]) => [key, read(inner)]);
  return Object.fromEntries(made);
}
