/** What site.json says: what the site holds, with the hash of each file, as `bertport site` wrote it. */
/** What of onnxruntime-web each device needs. */
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
/** Return what the names of all caches of the site begin with. */
export function cachePrefix(base) {
    return `bertport-site ${new URL(base).pathname} `;
}
