/**
 * The service worker: keeps the page's own files, so that it opens without a network, and gives every answer the headers
 * without which a browser has one thread.
 *
 * `bertport site` writes the version of the site into it, so that the browser sees that there is a new one. It is a
 * classic script, since not every browser takes modules here: it imports nothing.
 */

interface ExtendableEvent extends Event {
  waitUntil(promise: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}
interface Scope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(kind: "install" | "activate", listener: (event: ExtendableEvent) => void): void;
  addEventListener(kind: "fetch", listener: (event: FetchEvent) => void): void;
}

const scope = globalThis as unknown as Scope;
const VERSION = "@version@";
const PREFIX = `bertport-site ${new URL(scope.registration.scope).pathname} `;
const CACHE = `${PREFIX}${VERSION}`;
/** The model card, which the page does without: some servers give no file of this kind. */
const CARD = "bundle/README.md";
/** What the model's worker keeps, when it has checked it: of the bundle all but what is asked for later, if ever. */
const LARGE = /^bundle\/(?!README\.md$|golden\.json$)|\.wasm$/;
const HEADERS = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "content-security-policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; " +
    "worker-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(activate()));
scope.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(scope.registration.scope)) {
    event.respondWith(respond(request));
  }
});

/** Keep the files of the page, each compared with its hash by the browser; a change on the way ends the installation. */
async function install(): Promise<void> {
  const response = await fetch(addressOf("site.json"), { cache: "no-cache" });
  const { version, files } = (await response.clone().json()) as {
    version: string;
    files: Record<string, { sha256: string }>;
  };
  if (version !== VERSION) throw new Error(`site.json is of ${version}, and this service worker of ${VERSION}`);
  const cache = await caches.open(CACHE);
  const small = Object.entries(files).filter(([path]) => !LARGE.test(path));
  await Promise.all(
    small.map(async ([path, { sha256 }]) => {
      const integrity = `sha256-${base64(sha256)}`;
      const kept = cache.add(new Request(addressOf(path), { cache: "no-cache", integrity }));
      await (path === CARD ? kept.catch(() => {}) : kept);
    }),
  );
  await cache.put(addressOf("site.json"), response);
  await scope.skipWaiting();
}

async function activate(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map(remove));
  await scope.clients.claim();
}

/** Remove an older version's cache, once no page of that version is about to put anything there. */
async function remove(name: string): Promise<void> {
  const { locks } = navigator;
  await (locks ? locks.request(name, () => caches.delete(name)) : caches.delete(name));
}

async function respond(request: Request): Promise<Response> {
  const { origin, pathname } = new URL(request.url); // the page is the same, whatever an address asks for behind them
  const address = origin + pathname;
  const kept = address === scope.registration.scope ? addressOf("index.html") : address;
  // A newer version may have removed this cache, and to open it would make it again.
  const found = await caches.match(kept, { cacheName: CACHE });
  return withHeaders(found ?? (await fetch(request)));
}

function withHeaders(response: Response): Response {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

function addressOf(path: string): string {
  return new URL(path, scope.registration.scope).href;
}

function base64(hexadecimal: string): string {
  const bytes = hexadecimal.match(/../g) ?? [];
  return btoa(String.fromCharCode(...bytes.map((byte) => Number.parseInt(byte, 16))));
}
