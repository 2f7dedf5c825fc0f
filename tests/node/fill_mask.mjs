// Answers texts from a bundle with transformers.js: node fill_mask.mjs MODULES BUNDLE TEXT...
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, bundle, ...texts] = process.argv.slice(2);
const entry = createRequire(path.join(modules, "x.js")).resolve("@huggingface/transformers");
const { env, pipeline } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(bundle) + path.sep;
const fill = await pipeline("fill-mask", path.basename(bundle), { dtype: "fp32", device: "cpu" });
const answers = [];
for (const text of texts) {
  answers.push(await fill(text, { top_k: 5 }));
}
console.log(JSON.stringify({ version: env.version, answers }));
