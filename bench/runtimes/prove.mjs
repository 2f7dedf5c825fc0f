// Proofs of the package of js/ in a runtime: node prove.mjs PACKAGE RUNTIME [wasm] < job > {proofs}, JSON, by variant.
// The job is {bundle, variants}; RUNTIME is the entry of onnxruntime-node or onnxruntime-web. A refused one has {message}.
import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const [, , place, entry, provider] = process.argv;
const { load } = await import(pathToFileURL(path.join(place, "build/src/node.js")));
const module = await import(pathToFileURL(entry));
const runtime = module.InferenceSession ? module : module.default;
if (provider === "wasm") runtime.env.wasm.numThreads = 1;
const { bundle, variants } = JSON.parse(readFileSync(0, "utf-8"));
const proofs = {};
for (const variant of variants) {
  try {
    const sessionOptions = provider ? { executionProviders: [provider] } : {};
    const model = await load(bundle, { variant, runtime, sessionOptions, warn: () => {} });
    proofs[variant] = await model.prove();
    await model.release();
  } catch (error) {
    proofs[variant] = { message: String(error.message ?? error) };
  }
}
console.log(JSON.stringify({ proofs }));
