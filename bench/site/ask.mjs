// Answers of a site in Chromium: node ask.mjs MODULES CHROMIUM URL < requests > answers, both JSON.
// A request is {variant, device, texts, timed}; each has a browser of its own, with nothing kept.
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
  answers.push(await page.evaluate(answered, { ...request, url }));
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
  const began = performance.now();
  const { Client } = await import(new URL("client.js", url));
  const site = await (await fetch(new URL("site.json", url))).json();
  const client = new Client();
  const { threads } = await client.load(site, variant, device);
  const loaded = performance.now() - began;
  await client.ask("fill-mask", texts.slice(0, 1));
  const first = performance.now() - began;
  const { answers, milliseconds } = await client.ask("fill-mask", texts);
  let single = 0; // one after the other, as visitors ask
  for (const text of texts.slice(0, timed)) single += (await client.ask("fill-mask", [text])).milliseconds;
  const proof = await client.prove();
  client.end();
  return { answers, milliseconds, single: timed ? single / timed : null, loaded, first, threads, proof };
}
