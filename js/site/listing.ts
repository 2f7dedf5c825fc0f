/** What site.json says: what the site holds, with the hash of each file, as `bertport site` wrote it. */

/** One graph of the site's bundle. */
export interface SiteVariant {
  readonly name: string;
  /** Bytes that are read before it answers, the bundle's other files included. */
  readonly bytes: number;
  /** Whether the site holds what runs it on a GPU. */
  readonly webgpu: boolean;
}

/** The content of site.json. */
export interface Site {
  /** Stands for every file of the site; it begins with the digest of the bundle. */
  readonly version: string;
  readonly title: string;
  readonly name: string;
  /** The digest that the bundle must have. */
  readonly digest: string;
  readonly licence: string | null;
  /** Version of onnxruntime-web. */
  readonly runtime: string;
  readonly tasks: readonly string[];
  readonly heads: readonly string[];
  readonly mask_token: string | null;
  readonly variants: readonly SiteVariant[];
  /** Size and SHA-256 of every file that the page reads but site.json and service-worker.js. */
  readonly files: Readonly<Record<string, { readonly size: number; readonly sha256: string }>>;
}

/** Device on which graphs run. */
export type Device = "cpu" | "gpu";

/** Files of onnxruntime-web that each device needs. */
export const RUNTIMES: Readonly<Record<Device, { module: string; glue: string; wasm: string }>> = {
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
export function cacheName(base: string, version: string): string {
  return `${cachePrefix(base)}${version}`;
}

/** Return the beginning of the names of all caches of the site. */
export function cachePrefix(base: string): string {
  return `bertport-site ${new URL(base).pathname} `;
}

/**
 * Do something with a cache that is there; return undefined where it is not, or where the browser keeps nothing.
 *
 * The service worker alone makes the cache of its version, and removes those of others: to open one that it has removed
 * would make it again, so that it is looked for and used under the lock under which the service worker removes it.
 */
export async function withCache<Result>(
  name: string,
  use: (cache: Cache) => Promise<Result>,
): Promise<Result | undefined> {
  const used = async () => ((await caches.has(name)) ? use(await caches.open(name)) : undefined);
  try {
    return await (navigator.locks ? navigator.locks.request(name, { mode: "shared" }, used) : used());
  } catch {
    return undefined; // as in some private windows, and on a full disk
  }
}
