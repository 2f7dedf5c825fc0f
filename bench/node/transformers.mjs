// Answers of transformers.js from bundles: node transformers.mjs MODULES < requests > answers, both JSON.
// A request is {bundle, task, inputs, options, opened}; inputs are lists of arguments, and `opened`, if it is there, are
// options of the pipeline that name another file than that of the portable graph. What fails answers {message}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const entry = createRequire(path.join(process.argv[2], "x.js")).resolve("@huggingface/transformers");
const { env, pipeline } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;
const answers = [];
for (const { bundle, task, inputs, options, opened } of JSON.parse(readFileSync(0, "utf-8"))) {
  env.localModelPath = path.dirname(bundle) + path.sep;
  const made = [];
  try {
    const ask = await pipeline(task, path.basename(bundle), { dtype: "fp32", device: "cpu", ...opened });
    for (const given of inputs) {
      const answer = await ask(...given, options);
      made.push(answer.tolist ? answer.tolist() : answer);
    }
    await ask.dispose();
  } catch (error) {
    made.push({ message: String(error.message).split("\n")[0] });
  }
  answers.push(made);
}
console.log(JSON.stringify({ version: env.version, answers }));
