// Every value of a graph on onnxruntime-web, in Node.js: node trace.mjs PACKAGE < {model, external, feeds} > values, JSON.
import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const ort = await import(pathToFileURL(path.join(process.argv[2], "dist/ort.node.min.mjs")));
ort.env.wasm.numThreads = 1;
const { model, external, feeds } = JSON.parse(readFileSync(0, "utf-8"));
const bytes = (file) => new Uint8Array(readFileSync(file));
const session = await ort.InferenceSession.create(bytes(model), {
  executionProviders: ["wasm"],
  externalData: external.map((file) => ({ path: path.basename(file), data: bytes(file) })),
  logSeverityLevel: 4,
});
const given = Object.fromEntries(session.inputNames.map((name) => {
  const { data, dims } = feeds[name];
  return [name, new ort.Tensor("int64", BigInt64Array.from(data, BigInt), dims)];
}));
const outputs = await session.run(given);
const values = Object.entries(outputs).map(([name, { data, dims }]) => [name, { dims, data: Array.from(data, Number) }]);
console.log(JSON.stringify(Object.fromEntries(values)));
