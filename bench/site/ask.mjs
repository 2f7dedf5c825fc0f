// Answers of a site in Chromium: node ask.mjs MODULES CHROMIUM URL < requests > answers, both JSON.
// A request is {variant, device, texts, timed, logits}; each has a browser of its own, with nothing kept.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, executablePath, url] = process.argv.slice(2);
const { chromium } = createRequire(path.join(modules, "package.json"))("playwright-core");
const FLAGS = { cpu: [], gpu: ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"] };
const answers = [];
for (const request of JSON.parse(readFileSync(0, "utf-8"))) {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", ...FLAGS[request.device]] });
  const page = await browser.newPage();
  page.setDefaultTimeout(3_600_000);
  await page.goto(new URL("site.css", url).href); // of the site, and runs nothing
  const answer = await page.evaluate(answered, { ...request, url });
  if (request.logits) answer.logits = await page.evaluate(decoded, { ...request, url, threads: answer.threads });
  answers.push(answer);
  await browser.close();
}
console.log(JSON.stringify({ answers, chromium: await version() }));

async function version() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const said = browser.version();
  await browser.close();
  return said;
}

// Runs in the page.
async function answered({ url, variant, device, texts, timed }) {
  const { Client } = await import(new URL("client.js", url));
  const site = await (await fetch(new URL("site.json", url))).json();
  const client = new Client();
  const { threads } = await client.load(site, variant, device);
  await client.ask("fill-mask", texts.slice(0, 1)); // the first of a shape takes longer
  const { answers, milliseconds } = await client.ask("fill-mask", texts);
  let single = 0; // one after the other, as visitors ask
  for (const text of texts.slice(0, timed)) single += (await client.ask("fill-mask", [text])).milliseconds;
  const proof = await client.prove();
  client.end();
  return { answers, milliseconds, single: timed ? single / timed : null, threads, proof };
}

// Runs in the page. The logits at each text's mask, one text a run: float32 in base64. The worker gives none, so that
// the package opens the variant here, as the worker does.
async function decoded({ url, variant, device, texts, threads }) {
  const { load } = await import(new URL("bertport/index.js", url));
  const { RUNTIMES } = await import(new URL("listing.js", url));
  const { module, glue, wasm } = RUNTIMES[device];
  const runtime = await import(new URL(module, url));
  runtime.env.wasm.wasmPaths = { mjs: new URL(glue, url).href, wasm: new URL(wasm, url).href };
  runtime.env.wasm.numThreads = threads;
  const readFile = async (name) =>
    new Uint8Array(await (await fetch(new URL(`bundle/${name}`, url))).arrayBuffer());
  const sessionOptions = { executionProviders: [device === "gpu" ? "webgpu" : "wasm"] };
  const model = await load({ readFile, runtime, variant, sessionOptions });
  const made = [];
  for (const text of texts) {
    const { ids, types } = model.tokens.encode(text);
    const positions = ids.flatMap((id, place) => (id === model.tokens.maskId ? [place] : []));
    const [{ data }] = await model.graph.run([{ ids, types, positions }], "logits");
    let bytes = "";
    for (const byte of new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) bytes += String.fromCharCode(byte);
    made.push(btoa(bytes));
  }
  return made;
}
