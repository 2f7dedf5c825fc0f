/** What site.json says: what the site holds, with the hash of each file, as `bertport site` wrote it. */
/** Files of onnxruntime-web that each device needs. */
export const RUNTIMES = {
    cpu: {
        module: "runtime/ort.wasm.min.js",
        glue: "runtime/ort-wasm-simd-threaded.js",
        wasm: "runtime/ort-wasm-simd-threaded.wasm",
    },
    gpu: {
        module: "runtime/ort.webgpu.min.js",
        glue: "runtime/ort-wasm-simd-threaded.asyncify.js",
        wasm: "runtime/ort-wasm-simd-threaded.asyncify.wasm",
    },
};
/** Return the name of the cache of a version of the site, which the service worker and the model's worker share. */
export function cacheName(base, version) {
    return `${cachePrefix(base)}${version}`;
}
/** Return the beginning of the names of all caches of the site. */
export function cachePrefix(base) {
    return `bertport-site ${new URL(base).pathname} `;
}
/**
 * Do something with a cache that is there; return undefined where it is not, or where the browser keeps nothing.
 *
 * The service worker alone makes the cache of its version, and removes those of others: to open one that it has removed
 * would make it again, so that it is looked for and used under the lock under which the service worker removes it.
 */
export async function withCache(name, use) {
    const used = async () => ((await caches.has(name)) ? use(await caches.open(name)) : undefined);
    try {
        return await (navigator.locks ? navigator.locks.request(name, { mode: "shared" }, used) : used());
    }
    catch {
        return undefined; // as in some private windows, and on a full disk
    }
}
