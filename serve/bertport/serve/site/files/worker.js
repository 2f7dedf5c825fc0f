/** The worker of the page: reads the bundle, opens it with onnxruntime-web, and answers. */
import { sha256 } from "./bertport/hashing.js";
import { BertportError, load, ProviderError } from "./bertport/index.js";
import { answer } from "./answers.js";
import { Downloads } from "./download.js";
import { RUNTIMES } from "./listing.js";
const BASE = new URL(".", import.meta.url).href;
/** Most threads: more gain little for texts as short as those of a page. */
const MOST_THREADS = 4;
const PROVIDERS = { cpu: "wasm", gpu: "webgpu" };
const MEMORY = /memory|alloc|Array buffer|RangeError|out of bounds/i;
const tell = (message) => postMessage(message);
let model;
let queue = Promise.resolve();
addEventListener("message", ({ data }) => {
    queue = queue.then(() => respond(data)); // one after the other: a session runs one batch at a time
});
async function respond(request) {
    const { id } = request;
    try {
        tell({ kind: "answer", id, value: await result(request) });
    }
    catch (error) {
        const known = error instanceof BertportError;
        const said = error instanceof Error ? error.message : String(error);
        const message = known ? said : `the page failed (${said.slice(0, 300)}): load it again, or use another browser`;
        tell({ kind: "error", id, name: known ? error.name : "Error", message });
    }
}
async function result(request) {
    if (request.kind === "load")
        return loaded(request.site, request.variant, request.device);
    if (!model)
        throw new ProviderError("no model is loaded: load the page again");
    return request.kind === "prove" ? model.prove() : answered(model, request.task, request.inputs, request.parameters);
}
async function answered(from, task, inputs, parameters) {
    const began = performance.now();
    const answers = await answer(from, task, inputs, parameters);
    return { answers, milliseconds: performance.now() - began };
}
async function loaded(site, variant, device) {
    const downloads = new Downloads(BASE, site, (bytes) => tell({ kind: "progress", bytes }));
    const threads = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
    try {
        const runtime = await opened(site, device, threads, downloads);
        model = await load({
            readFile: (name, most) => downloads.read(`bundle/${name}`, most),
            runtime,
            variant,
            digest: site.digest,
            sessionOptions: { executionProviders: [PROVIDERS[device]] },
            warn: () => { },
        });
        await model.predict("features", ["a"], { pooling: "mean" });
        const began = performance.now();
        await model.predict("features", ["a"], { pooling: "mean" });
        return { threads, shortText: performance.now() - began, kept: downloads.kept };
    }
    catch (error) {
        throw explained(error, site, variant);
    }
}
/** Return onnxruntime-web with its WebAssembly in memory, which has the hash of the site's listing. */
async function opened(site, device, threads, downloads) {
    const { module, glue, wasm } = RUNTIMES[device];
    const entry = site.files[wasm];
    if (!entry)
        throw new ProviderError(`this site holds no runtime for a ${device.toUpperCase()}: choose another device`);
    let binary;
    try {
        binary = await downloads.read(wasm, entry.size);
    }
    catch (error) {
        if (error instanceof BertportError || error instanceof RangeError)
            throw error;
        throw new ProviderError(`${wasm} cannot be read (${error.message}): copy the site whole, or make it again`);
    }
    if ((await sha256(binary)) !== entry.sha256) {
        throw new ProviderError(`${wasm} was changed after it was written (its SHA-256 is not that of site.json): copy the site again, or make ` +
            "it again with bertport site");
    }
    let runtime;
    try {
        runtime = (await import(new URL(module, BASE).href));
    }
    catch (error) {
        throw new ProviderError(`${module} cannot be loaded (${error.message.slice(0, 200)}): copy the site whole`);
    }
    runtime.env.logLevel = "error";
    runtime.env.wasm.wasmBinary = binary;
    runtime.env.wasm.wasmPaths = { mjs: new URL(glue, BASE).href };
    runtime.env.wasm.numThreads = threads;
    return runtime;
}
/** Return the error of a browser without enough memory for the model as one that says so. */
function explained(error, site, variant) {
    const said = error instanceof Error ? `${error.name} ${error.message}` : String(error);
    if (!(error instanceof ProviderError || error instanceof RangeError) || !MEMORY.test(said))
        return error;
    const bytes = site.variants.find(({ name }) => name === variant)?.bytes ?? 0;
    return new ProviderError(`this browser does not have enough memory for variant "${variant}", whose files have ${(bytes / 1e6).toFixed(0)} MB ` +
        `and which needs several times that: close other tabs, or use a device with more (${said.slice(0, 120)})`);
}
