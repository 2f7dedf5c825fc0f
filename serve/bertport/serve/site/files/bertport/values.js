/** JSON values of a bundle's files, read strictly: errors name the place and what was expected there. */
import { BundleError, excerpt } from "./errors.js";
/** What an error says of a file that no exporter wrote. */
export const DAMAGED = "the bundle is damaged; export again";
/** A JSON value with its place, which its errors name. */
export class Value {
    raw;
    where;
    constructor(raw, where) {
        this.raw = raw;
        this.where = where;
    }
    at(key) {
        const object = this.object();
        return new Value(Object.hasOwn(object, key) ? object[key] : undefined, `${this.where}: ${key}`);
    }
    text() {
        return typeof this.raw === "string" && !/\p{Cs}/u.test(this.raw) ? this.raw : this.refuse("a text");
    }
    number() {
        return Number.isSafeInteger(this.raw) && this.raw >= 0
            ? this.raw
            : this.refuse("a whole number");
    }
    real() {
        return Number.isFinite(this.raw) ? this.raw : this.refuse("a number");
    }
    list() {
        if (!Array.isArray(this.raw))
            return this.refuse("a list");
        return this.raw.map((inner) => new Value(inner, this.where));
    }
    map() {
        const entries = Object.entries(this.object());
        return Object.fromEntries(entries.map(([key, inner]) => [key, new Value(inner, `${this.where}: ${key.slice(0, 80)}`)]));
    }
    numbers() {
        return this.list().map((inner) => inner.number());
    }
    /** Return what `read` makes of the value; null where there is none. */
    optional(read) {
        return this.raw === undefined || this.raw === null ? null : read(this);
    }
    isObject() {
        return typeof this.raw === "object" && this.raw !== null && !Array.isArray(this.raw);
    }
    object() {
        return this.isObject() ? this.raw : this.refuse("an object");
    }
    refuse(expected) {
        if (this.raw === undefined)
            throw new BundleError(`${this.where} is missing: ${DAMAGED}`);
        throw new BundleError(`${this.where}: expected ${expected}, found ${excerpt(this.raw, 80)}: ${DAMAGED}`);
    }
}
/** Return what `read` makes of each value of an object, by its key. */
export function mapped(value, read) {
    const made = Object.entries(value.map()).map(([key, inner]) => [key, read(inner)]);
    return Object.fromEntries(made);
}
