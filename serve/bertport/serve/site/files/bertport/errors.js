/** Errors: each is one sentence that says what was asked, what was found, and what to do. */
/** The base of every error that this package raises for what a caller can mend. */
export class BertportError extends Error {
    name = "BertportError";
}
/** A bundle that is damaged, incomplete, or not one. */
export class BundleError extends BertportError {
    name = "BundleError";
}
/** An input that a task cannot take. */
export class InputTextError extends BertportError {
    name = "InputTextError";
}
/** A task that needs a head which the bundle lacks. */
export class MissingHeadError extends BertportError {
    name = "MissingHeadError";
}
/** A parameter that is not allowed, or an unknown name of a task or variant. */
export class UsageError extends BertportError {
    name = "UsageError";
}
/** ONNX Runtime is missing, or cannot run a variant. */
export class ProviderError extends BertportError {
    name = "ProviderError";
}
/** The output of a graph holds NaN or infinity. */
export class OutputError extends BertportError {
    name = "OutputError";
}
/** Return the beginning of a value as JSON, for an error: `length` characters at most. */
export function excerpt(value, length = 60) {
    const short = typeof value === "string" ? value.slice(0, length + 1) : value;
    const text = Array.isArray(short) ? listed(short, length) : written(short);
    return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}
/** Return what an error says as part of a sentence: on one line, `length` characters at most. */
export function reasonOf(error, length = 300) {
    const said = error instanceof Error ? error.message : String(error);
    const line = said
        .slice(0, 4 * length)
        .replace(/[\s\p{Cc}]+/gu, " ")
        .trim();
    return line.length > length ? `${line.slice(0, length - 3)}...` : line;
}
function listed(values, length) {
    return `[${values
        .slice(0, length)
        .map((value) => (typeof value === "string" ? written(value.slice(0, length)) : written(value)))
        .join(", ")}]`;
}
function written(value) {
    if (typeof value === "string")
        return JSON.stringify(value);
    if (typeof value !== "object" || value === null)
        return String(value);
    if (ArrayBuffer.isView(value) || Array.isArray(value))
        return `<${value.constructor.name}>`;
    return `{${Object.keys(value).slice(0, 8).join(", ")}}`;
}
