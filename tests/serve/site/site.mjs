// Drives sites in Chromium: node site.mjs MODULES CHROMIUM URL DIRECTORY; prints what it saw as JSON.
// URL is of a server of DIRECTORY/served, where good/, heads' names, headers/, renewed/, aged/ and broken ones are sites.

import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";

const [modules, executablePath, url, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const seen = { hosts: new Set(), complaints: [], errors: {}, heads: {} };
const launch = (...flags) => chromium.launch({ executablePath, args: ["--no-sandbox", ...flags] });

async function watched(context, quiet = false) {
  const page = await context.newPage();
  page.on("request", (request) => { if (!request.url().startsWith("data:")) seen.hosts.add(new URL(request.url()).origin); });
  page.on("console", (message) => { if (message.type() === "error" && !quiet) seen.complaints.push(message.text()); });
  // Half a script is such an error; where pages are expected to fail, the sentence that they show is compared.
  page.on("pageerror", (error) => { if (!(quiet && /SyntaxError/.test(String(error)))) seen.complaints.push(String(error)); });
  return page;
}

const settled = async (page, pattern) => {
  await page.waitForFunction(
    (text) => new RegExp(text).test(document.getElementById("status").textContent)
      || document.getElementById("status").className === "wrong",
    pattern, { timeout: 240_000 });
  return page.textContent("#status");
};
const ready = (page) => settled(page, "^Ready");
const words = (page) => page.locator("#results td.word").allTextContents();
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
async function asked(page) {
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  return settled(page, "^Answered");
}
async function json(page) {
  return JSON.parse(await page.locator("#json").textContent());
}

const browser = await launch();

// First visit, light, on a desk.
const desk = await browser.newContext({ viewport: { width: 1100, height: 900 }, colorScheme: "light" });
const page = await watched(desk);
await page.goto(`${url}good/`);
assert.match(await ready(page), /^Ready/);
seen.first = await page.textContent("#where");
seen.checked = await page.textContent("#checked");
await page.getByRole("button", { name: /golden vectors/ }).click();
await page.getByText(/golden vectors (hold|do not)/).waitFor({ timeout: 120_000 });
seen.proof = await page.textContent("#proof");
await page.getByRole("textbox", { name: /Text with/ }).fill("The [MASK] barked at the [MASK].");
await asked(page);
seen.masks = await json(page);
assert.equal((await words(page)).length, 10);
await page.screenshot({ path: join(directory, "site.png"), fullPage: true });
await page.getByRole("textbox", { name: /Text with/ }).fill("Nothing is hidden here.");
seen.wrong = await asked(page);

// With nothing but the keyboard.
await page.getByRole("radio", { name: "fill-mask" }).focus();
await page.keyboard.press("ArrowRight");
assert(await page.getByRole("radio", { name: "next sentence" }).isChecked());
let at = "";
for (let presses = 0; presses < 12 && at !== "TEXTAREA"; presses += 1) {
  await page.keyboard.press("Tab");
  at = await page.evaluate(() => document.activeElement.tagName);
}
assert.equal(at, "TEXTAREA");
await page.keyboard.press("Control+Enter");
await settled(page, "^Answered");
seen.pair = await json(page);
// A wrong number of answers per mask is no reason to ask nothing of another task.
await page.getByRole("radio", { name: "fill-mask" }).check();
await page.getByRole("spinbutton", { name: /Answers per mask/ }).fill("99");
await page.getByRole("radio", { name: "similarity" }).check();
assert.match(await asked(page), /^Answered/);
seen.similar = await json(page);

// An answer that is under way when another task is chosen is shown nowhere.
await page.getByRole("radio", { name: "fill-mask" }).check();
await page.getByRole("spinbutton", { name: /Answers per mask/ }).fill("5");
await page.getByRole("textbox", { name: /Text with/ }).fill(`The [MASK] barked. ${"It was the dog. ".repeat(80)}`);
await page.evaluate(() => {
  document.getElementById("ask").click();
  document.querySelector('input[name="task"][value="next-sentence"]').click();
});
assert.match(await page.textContent("#status"), /^Ready/);
await page.waitForTimeout(3000);
assert.equal(await page.locator("#results article").count(), 0);
assert.match(await page.textContent("#status"), /^Ready/);

// The other variant, while a question and the golden vectors are under way.
seen.meanwhile = await page.evaluate(async () => {
  document.getElementById("ask").click();
  document.getElementById("prove").click();
  document.querySelector('input[name="variant"][value="portable"]').click();
  await new Promise((resolve) => { setTimeout(resolve, 100); });
  return ["status", "proof", "checked"].map((id) => document.getElementById(id).textContent);
});
assert.match(await ready(page), /^Ready/);
await page.getByRole("radio", { name: "fill-mask" }).check();
await page.getByRole("textbox", { name: /Text with/ }).fill("The [MASK] barked at the [MASK].");
await asked(page);
seen.portable = await json(page);

// The page does not freeze while the model runs.
seen.frames = await page.evaluate(async () => {
  let longest = 0;
  let last = performance.now();
  let going = true;
  const count = () => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; if (going) setTimeout(count, 0); };
  count();
  const { Client } = await import("./client.js");
  const site = await (await fetch("site.json")).json();
  const client = new Client();
  await client.load(site, site.variants[0].name, "cpu");
  last = performance.now();
  longest = 0;
  const { milliseconds } = await client.ask("fill-mask", Array(30).fill("He poured her a cup of [MASK]."));
  going = false;
  client.end();
  return { longest, milliseconds };
});

// A worker that has stopped answers no more, and whoever asks it is told so.
seen.stopped = await page.evaluate(async () => {
  const { Client } = await import("./client.js");
  const client = new Client();
  const said = () => client.prove().then(() => "", (error) => error.message);
  const asked = said();
  client.worker.dispatchEvent(new ErrorEvent("error", { message: "out of memory" }));
  return [await asked, await said()];
});

// Offline, from the second visit on.
await page.getByText("Kept here").waitFor();
await desk.setOffline(true);
await page.reload();
seen.offline = await ready(page);
seen.second = await page.textContent("#where");
seen.isolated = await page.evaluate(() => crossOriginIsolated);
seen.cores = await page.evaluate(() => navigator.hardwareConcurrency);
await asked(page);
seen.offlineWords = await words(page);
seen.offlineCard = await page.evaluate(async () => (await fetch(document.getElementById("card").href)).text());
await page.goto(`${url}good/?from=elsewhere#form`);
seen.queried = await ready(page);
await desk.setOffline(false);
seen.caches = await page.evaluate(() => caches.keys());

// Dark, and on a phone.
const dark = await watched(await browser.newContext({ viewport: { width: 1100, height: 900 }, colorScheme: "dark" }));
await dark.goto(`${url}good/`);
await ready(dark);
await dark.getByRole("radio", { name: "next sentence" }).check();
await asked(dark);
seen.grounds = [];
for (const each of [page, dark]) seen.grounds.push(await each.evaluate(() => getComputedStyle(document.body).backgroundColor));
await dark.screenshot({ path: join(directory, "site-dark.png"), fullPage: true });
const phone = await watched(await browser.newContext({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }));
await phone.goto(`${url}good/`);
await ready(phone);
await phone.locator("#examples button").first().tap();
await settled(phone, "^Answered");
await phone.getByText("The bundle", { exact: true }).tap();
seen.phoneFits = await fits(phone);
await phone.screenshot({ path: join(directory, "site-phone.png"), fullPage: true });

// Every control has a name.
seen.nameless = await page.evaluate(() => [...document.querySelectorAll("input, textarea, button, progress, select")]
  .filter((each) => !(each.labels?.length || each.textContent.trim() || each.ariaLabel)).map((each) => each.outerHTML));

// What follows has contexts of its own, and goes in two lanes: much of a visit is on one core.
await Promise.all([
  (async () => { await withHeaders(); await chosenBeforeItLoads(); await chosenWhileItLoads(); await withoutRoom(); await otherHeads(); })(),
  (async () => { await newerVersions(); await agedFiles(); await whatGoesWrong(); })(),
]);
await browser.close();
seen.hosts = [...seen.hosts].filter((host) => !/^(null|http:\/\/insecure.test)/.test(host) && !host.startsWith("file:"));
console.log(JSON.stringify(seen));

// A first visit of a server that sends the site's headers, and does not give the model card.
async function withHeaders() {
  const page = await watched(await browser.newContext());
  await page.goto(`${url}headers/`);
  await ready(page);
  seen.headers = await page.textContent("#where");
  await page.getByText("Kept here").waitFor();
  await page.context().close();
}

// On a browser that claims a GPU, and cannot use it, the CPU is chosen while the page tries the GPU, and stays chosen.
async function chosenWhileItLoads() {
  const page = await watched(await browser.newContext(), true);
  await page.addInitScript(() => {
    Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({ info: {} }) } });
  });
  await page.goto(`${url}slow/`);
  await page.locator("#progress-box").waitFor();
  await page.getByRole("radio", { name: /^CPU/ }).check();
  seen.chosen = [await ready(page), await page.textContent("#where"), await page.locator("#ask").isEnabled()];
  await page.getByRole("radio", { name: /^fp32/ }).check();
  seen.stays = [await ready(page), await page.getByRole("radio", { name: /^CPU/ }).isChecked()];
  await page.context().close();
}

// A variant chosen before the first one is loaded is loaded alone.
async function chosenBeforeItLoads() {
  const page = await watched(await browser.newContext(), true);
  await page.addInitScript(() => {
    navigator.serviceWorker.register = () => new Promise((resolve) => { setTimeout(resolve, 1500); });
  });
  let workers = 0;
  page.on("worker", () => { workers += 1; });
  await page.goto(`${url}slow/`);
  await page.getByRole("radio", { name: /^fp32/ }).check();
  await ready(page);
  await page.waitForTimeout(1500);
  seen.early = [await ready(page), workers];
  await page.context().close();
}

// A browser that has room for the runtime, and none for the weights.
async function withoutRoom() {
  const page = await watched(await browser.newContext(), true);
  const session = await page.context().newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize: 30_000_000 });
  await page.goto(`${url}good/`);
  seen.noRoom = [await ready(page), await page.textContent("#offline")];
  await page.context().close();
}

async function otherHeads() {
  for (const name of readdirSync(join(directory, "served")).filter((each) => each.startsWith("head-"))) {
    const head = await watched(await browser.newContext({ viewport: { width: 1100, height: 900 } }));
    await head.goto(`${url}${name}/`);
    const status = await ready(head);
    assert.match(status, /^Ready/, `${name}: ${status}`);
    for (const task of await head.locator('input[name="task"]').evaluateAll((inputs) => inputs.map((input) => input.value))) {
      await head.locator(`input[name="task"][value="${task}"]`).check();
      const said = await asked(head);
      assert.match(said, /^Answered/, `${name} ${task}: ${said}`);
      const fields = await head.locator("#fields textarea").evaluateAll((boxes) => boxes.map((box) => box.value));
      seen.heads[`${name.slice(5)} ${task}`] = { fields, json: await json(head), fits: await fits(head) };
    }
    await head.context().close();
  }
}

async function newerVersions() {
  const old = await watched(await browser.newContext());
  await old.goto(`${url}renewed/`);
  await ready(old);
  await old.getByText("Kept here").waitFor();
  seen.renewed = [];
  for (let version = 1; version <= 6; version += 1) {
    // The page is read again at once: its model's worker keeps files while the new version removes the old one's.
    await fetch(`${url}renewed`, { method: "POST" });
    await old.reload();
    await old.getByText("There is a newer version of this page.").waitFor({ timeout: 60_000 });
    await old.getByRole("button", { name: "Load it" }).click();
    await old.getByRole("heading", { name: `version ${version}` }).waitFor();
    await ready(old);
    await old.getByText("Kept here").waitFor();
    let kept = [];
    for (let tries = 0; tries < 40 && kept.length !== 1; tries += 1) {
      // The old version's files go once the new one is in charge, which the page does not wait for.
      if (tries) await old.waitForTimeout(250);
      kept = (await old.evaluate(() => caches.keys())).filter((name) => name.includes("/renewed/"));
    }
    seen.renewed.push(kept);
  }
  await old.context().close();
}

// A server that lets browsers keep its files for a day has another bundle by the next visit.
async function agedFiles() {
  const page = await watched(await browser.newContext(), true);
  await page.goto(`${url}aged/`);
  await ready(page);
  await page.getByText("Kept here").waitFor();
  await fetch(`${url}aged`, { method: "POST" });
  await page.reload();
  await page.getByText("There is a newer version of this page.").waitFor({ timeout: 60_000 });
  await page.getByRole("button", { name: "Load it" }).click();
  await page.getByRole("heading", { name: "another bundle" }).waitFor();
  seen.aged = await ready(page);
  await page.context().close();
}

async function whatGoesWrong() {
  const sites = ["changed", "missing", "cut", "operators", "nowasm", "changedwasm", "noscript", "halfscript", "listing"];
  for (const name of sites) await broken(name, `${url}${name}/`);
  await broken("no WebAssembly", `${url}good/`, { without: "WebAssembly" }); // as where it is switched off
  await broken("file", `file://${join(directory, "served", "good", "index.html")}`);
  const insecure = url.replace("127.0.0.1", "insecure.test");
  await broken("insecure", `${insecure}good/`, { flag: "--host-resolver-rules=MAP insecure.test 127.0.0.1" });
  await broken("memory", `${url}good/`, { flag: "--js-flags=--wasm-max-mem-pages=700" });
}

// Note what a page says that does not work, in a browser of its own where that takes a flag.
async function broken(name, address, { without, flag } = {}) {
  const from = flag ? await launch(flag) : browser;
  const page = await watched(await from.newContext(), true);
  if (without) await page.addInitScript((gone) => { delete globalThis[gone]; }, without);
  await page.goto(address);
  seen.errors[name] = await ready(page);
  assert.equal(await page.textContent("#checked"), "", name);
  await page.context().close();
  if (flag) await from.close();
}
