/** Tasks: how each reads an input, which head it needs, and how its answer is made of that head's output. */
import { excerpt, InputTextError, UsageError } from "../errors.js";
/** Most rows that one input may make. */
export const MOST_ROWS = 16_384;
/** Return a row of an encoded text. */
export function rowOf(encoded, positions = []) {
    if (encoded.ids.length)
        return { ids: encoded.ids, types: encoded.types, positions };
    throw new InputTextError("the input has no tokens (the tokenizer drops all of it, and adds none): leave it out");
}
/** Return a text of an input: a text, or an object with the one field `text`. */
export function oneText(task, value) {
    const text = hasFields(value, ["text"]) ? value.text : value;
    if (typeof text === "string")
        return text;
    throw new InputTextError(`${task} takes a text, or {"text": …}, not ${excerpt(value)}`);
}
/** Return the pair of an input: two texts in a list, or an object with `text` and `text_pair`. */
export function twoTexts(task, value) {
    const pair = hasFields(value, ["text", "text_pair"]) ? [value.text, value.text_pair] : value;
    if (isPair(pair))
        return pair;
    throw new InputTextError(`${task} takes two texts, ["A", "B"] or {"text": "A", "text_pair": "B"}, not ${excerpt(value)}`);
}
/** Return the text or pair of an input. */
export function textOrPair(task, value) {
    return isPair(value) || hasFields(value, ["text", "text_pair"]) ? twoTexts(task, value) : oneText(task, value);
}
/** Return the texts of a list, each of which makes a row. */
export function textsIn(name, value) {
    if (!Array.isArray(value) || value.length < 1 || value.length > MOST_ROWS) {
        throw new InputTextError(`${name} is a list of 1 to ${MOST_ROWS} texts, not ${excerpt(value)}`);
    }
    const wrong = value.findIndex((text) => typeof text !== "string");
    if (wrong < 0)
        return value;
    throw new InputTextError(`${name} is a list of texts, and number ${wrong + 1} is ${excerpt(value[wrong])}`);
}
/** Return whether a value is an object with these fields and no others. */
export function hasFields(value, names) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return false;
    return Object.keys(value).length === names.length && names.every((name) => Object.hasOwn(value, name));
}
/** Return the pair of texts where the model takes pairs. */
export function encodedPair(pair, context, options) {
    const { segmentCount } = context.manifest;
    const encoded = context.tokens.encode(pair, options);
    refuseSegments(pair, encoded, segmentCount);
    return encoded;
}
/** Refuse a pair of a model that cannot tell its texts apart. */
export function refuseSegments(text, encoded, segmentCount) {
    if (typeof text === "string" || Math.max(...encoded.types) < segmentCount)
        return;
    throw new InputTextError(`the input is a pair of texts and the model knows ${segmentCount} segment${segmentCount === 1 ? "" : "s"} ` +
        `(type_vocab_size): give one text: ${excerpt(text)}`);
}
/** Return a parameter that is true or false. */
export function boolean(name, value, fallback = false) {
    if (value === undefined)
        return fallback;
    if (typeof value === "boolean")
        return value;
    throw new UsageError(`${name} is true or false, not ${excerpt(value)}`);
}
/** Return a parameter that is a whole number. */
export function wholeNumber(name, value, fallback, least = 1, most = Number.MAX_SAFE_INTEGER) {
    if (value === undefined || value === null)
        return fallback;
    if (Number.isSafeInteger(value) && value >= least && value <= most)
        return value;
    const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} up` : `from ${least} to ${most}`;
    throw new UsageError(`${name} is a number ${range}, not ${excerpt(value)}`);
}
/** Return a parameter that is one of some names. */
export function oneOf(name, value, names, fallback) {
    if (value === undefined || value === null)
        return fallback;
    if (names.includes(value))
        return value;
    throw new UsageError(`unknown ${name} ${excerpt(value)}: choose ${names.join(", ")}`);
}
/** Return whether a value is a list of two texts. */
export function isPair(value) {
    return Array.isArray(value) && value.length === 2 && value.every((text) => typeof text === "string");
}
