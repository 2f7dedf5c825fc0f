/** A bundle: files that are compared with the hashes of its manifest before they are used. */
import { BertportError, BundleError, excerpt, ProviderError, reasonOf, UsageError } from "./errors.js";
import { normalizedDigest, sha256 } from "./hashing.js";
import { LARGEST_MANIFEST, readManifest } from "./manifest.js";
/** A bundle whose manifest has been read. */
export class Bundle {
    manifest;
    readFile;
    constructor(
    /** The manifest: what the bundle states about itself. */
    manifest, readFile) {
        this.manifest = manifest;
        this.readFile = readFile;
    }
    /**
     * Return a bundle of which the manifest alone is read.
     *
     * @param readFile - returns the content of a file.
     * @param digest - the digest that the bundle must have; undefined for any.
     */
    static async open(readFile, digest) {
        const expected = typeof digest === "string" ? normalizedDigest(digest) : undefined;
        if (digest !== undefined && expected === undefined) {
            throw new UsageError(`the digest ${excerpt(digest)} is not a SHA-256: give sha256: and 64 hexadecimal digits`);
        }
        const manifest = await readManifest(await contentOf(readFile, "manifest.json", LARGEST_MANIFEST));
        if (expected !== undefined && expected !== manifest.digest) {
            throw new BundleError(`the bundle has the digest ${manifest.digest}, and ${expected} was asked for: it is another bundle, or was ` +
                "changed; get the one that is meant, or ask for this one");
        }
        return new Bundle(manifest, readFile);
    }
    /**
     * Return the content of a listed file, which is as it was exported.
     *
     * @throws BundleError when the file is missing or changed.
     */
    async read(name) {
        const entry = this.manifest.files[name];
        if (entry === undefined || !Object.hasOwn(this.manifest.files, name)) {
            throw new BundleError(`the bundle lists no file ${excerpt(name)}: export again`);
        }
        const content = await contentOf(this.readFile, name, entry.size);
        if (content.length !== entry.size) {
            const size = content.length > entry.size ? `more than ${entry.size}` : `${content.length}`;
            throw new BundleError(`${name} has ${size} bytes and manifest.json says ${entry.size}: copy the bundle again, or export again`);
        }
        const hash = await sha256(content);
        if (hash !== entry.sha256) {
            throw new BundleError(`${name} was changed after it was written (its SHA-256 is ${hash} and manifest.json says ${entry.sha256}): ` +
                "copy the bundle again, or export again");
        }
        return content;
    }
    /** Return the content of a listed file as JSON. */
    async json(name) {
        const content = await this.read(name);
        let value;
        try {
            value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
        }
        catch (error) {
            throw new BundleError(`${name} is not JSON (${reasonOf(error, 200)}): export again`);
        }
        if (typeof value !== "object" || value === null || Array.isArray(value)) {
            throw new BundleError(`${name} is ${excerpt(value)} and should be an object: export again`);
        }
        return value;
    }
}
async function contentOf(readFile, name, most) {
    let content;
    try {
        content = await readFile(name, most);
    }
    catch (error) {
        if (error instanceof BertportError)
            throw error;
        if (error instanceof RangeError) {
            throw new ProviderError(`${name} does not fit into memory (${reasonOf(error, 200)}): close other programs, or choose a smaller variant`);
        }
        throw new BundleError(`${name} cannot be read (${reasonOf(error, 200)}): copy the bundle whole, or export again`);
    }
    // Hashing and opening must see the same bytes: memory that other threads write to is copied first.
    return content.buffer instanceof ArrayBuffer ? content : new Uint8Array(content);
}
