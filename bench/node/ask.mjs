// Answers of the package: node ask.mjs PACKAGE < requests > answers, both JSON.
// A request is {bundle, variant, asked: [[task, inputs, parameters], …]}; what is refused answers {name, message}.
import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { load } = await import(pathToFileURL(path.join(process.argv[2], "build/src/node.js")));
const written = (_key, value) => (value instanceof Float32Array ? Array.from(value) : value);
const answers = [];
for (const { bundle, variant, asked } of JSON.parse(readFileSync(0, "utf-8"))) {
  const made = [];
  try {
    const model = await load(bundle, { variant, warn: () => {} });
    for (const [task, inputs, parameters] of asked) {
      try {
        made.push(await answer(model, task, inputs, parameters));
      } catch (error) {
        made.push({ name: error.name, message: error.message });
      }
    }
    await model.release();
  } catch (error) {
    made.push({ name: error.name, message: error.message });
  }
  answers.push(made);
}
console.log(JSON.stringify(answers, written));

// Beside the tasks there are `ids`, those of each input with segments, and `prove`, the check of golden vectors.
function answer(model, task, inputs, parameters) {
  if (task === "prove") return model.prove();
  if (task !== "ids") return model.predict(task, inputs, parameters);
  return inputs.map((text) => {
    const { ids, types } = model.tokens.encode(text, { truncation: true });
    return [ids, types];
  });
}
