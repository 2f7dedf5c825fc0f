/** Files of the site: from the cache where they were kept, else from the server, counted as they arrive. */
import { BertportError, reasonOf } from "./bertport/errors.js";
import { sha256 } from "./bertport/hashing.js";
import { cacheName, withCache } from "./listing.js";
/** Reads files of the site, and keeps those that are as they should be for visits without a network. */
export class Downloads {
    base;
    site;
    progress;
    /** Whether each file that was read is kept. */
    kept = true;
    done = 0;
    cache;
    /**
     * @param base - address of the site.
     * @param site - its listing.
     * @param progress - is told how many bytes have arrived.
     */
    constructor(base, site, progress) {
        this.base = base;
        this.site = site;
        this.progress = progress;
        this.cache = cacheName(base, site.version);
    }
    /**
     * Return the content of a file; of one that is larger than `most` bytes, one byte more at most.
     *
     * @throws Error, with what the server says of a file that it does not give; BertportError, which is a sentence, where
     *   the network ends.
     */
    async read(path, most) {
        const address = new URL(path.split("/").map(encodeURIComponent).join("/"), this.base).href;
        const found = await withCache(this.cache, (cache) => cache.match(address));
        const content = await this.content(found ?? (await asked(address)), path, most);
        if (!found)
            this.kept = (await this.keep(address, path, content)) && this.kept;
        return content;
    }
    /** Keep a file that has the hash of the site's listing; returns whether it is kept now. */
    async keep(address, path, content) {
        const kept = await withCache(this.cache, async (cache) => {
            const whole = (await sha256(content)) === this.site.files[path]?.sha256;
            if (whole)
                await cache.put(address, new Response(content));
            return whole;
        });
        return kept ?? false;
    }
    async content(response, path, most) {
        if (!response.ok)
            throw new Error(`the server says ${response.status} of it`);
        const parts = [];
        let length = 0;
        const reader = response.body?.getReader();
        while (reader && length <= most) {
            const { done, value } = await reader.read().catch((error) => {
                throw new BertportError(`${path} broke off on its way (${reasonOf(error, 120)}): load the page again`);
            });
            if (done)
                break;
            parts.push(value);
            length += value.length;
            this.done += value.length;
            this.progress(this.done);
        }
        if (length > most)
            await reader?.cancel();
        const content = new Uint8Array(Math.min(length, most + 1));
        let at = 0;
        for (const part of parts) {
            content.set(part.subarray(0, content.length - at), at);
            at += part.length;
        }
        parts.length = 0;
        if (path in this.site.files)
            return content;
        throw new Error("site.json does not list it");
    }
}
/** Ask the server: what the browser kept by itself may be of an older version of the site, and would be refused. */
async function asked(address) {
    try {
        return await fetch(address, { cache: "no-cache" });
    }
    catch {
        throw new BertportError("the server of this page cannot be reached: load it again when there is a network");
    }
}
