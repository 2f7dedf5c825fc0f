/** SHA-256 by Web Crypto, and the digest of a manifest. */
const ALGORITHM = "sha256:";
const ZEROS = "0".repeat(64);
/** Return the SHA-256 of bytes, in hexadecimal. */
export async function sha256(content) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
/**
 * Return the digest of a manifest: SHA-256 of its bytes, the digits of the digest that it states taken as zeros.
 *
 * @param content - manifest.json.
 * @param stated - the digest in it; undefined for format 1, which has none.
 * @returns the digest; undefined where `stated` is none, or its digits do not stand in the content once.
 */
export async function digestOf(content, stated) {
    if (stated === undefined)
        return ALGORITHM + (await sha256(content));
    if (typeof stated !== "string" || normalizedDigest(stated) !== stated)
        return undefined;
    const digits = stated.slice(ALGORITHM.length);
    const [before, after, ...more] = new TextDecoder("utf-8", { ignoreBOM: true }).decode(content).split(digits);
    if (before === undefined || after === undefined || more.length)
        return undefined;
    return ALGORITHM + (await sha256(new TextEncoder().encode(before + ZEROS + after)));
}
/** Return a digest as manifests write it, from one in either case, with or without `sha256:`; undefined for none. */
export function normalizedDigest(text) {
    const digits = text
        .trim()
        .toLowerCase()
        .replace(/^sha256:/, "");
    return /^[0-9a-f]{64}$/.test(digits) ? ALGORITHM + digits : undefined;
}
