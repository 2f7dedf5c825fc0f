// Drives the page in Chromium: node page.mjs MODULES CHROMIUM URL SCREENSHOTS; prints what it saw as JSON.

import { createRequire } from "node:module";
import { join } from "node:path";
import assert from "node:assert/strict";

const [modules, executablePath, url, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const seen = { hosts: new Set(), complaints: [] };

async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("request", (request) => { if (!request.url().startsWith("data:")) seen.hosts.add(new URL(request.url()).origin); });
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) seen.complaints.push(message.text());
  });
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(url);
  await page.getByRole("button", { name: "Ask", exact: true }).waitFor();
  await page.getByRole("radio", { name: "fill-mask" }).waitFor();
  return page;
}

const answered = (page) => page.getByText(/^Answered by/).waitFor();
const words = (page) => page.locator("#results article").first().locator("td.word").allTextContents();
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

// Light, on a desk.
const page = await open({ viewport: { width: 1100, height: 900 }, colorScheme: "light" });
await page.getByRole("textbox", { name: /Text with/ }).fill("He poured her a cup of [MASK].");
await page.getByRole("spinbutton", { name: /Answers per mask/ }).fill("7");
await page.getByRole("button", { name: "Ask", exact: true }).click();
await answered(page);
seen.variants = await page.locator("#results article h2").allTextContents();
seen.words = await words(page);
seen.timings = await page.locator("#results .timing").allTextContents();
seen.widths = await page.locator("#results article").first().locator(".bar").evaluateAll(
  (bars) => bars.map((bar) => bar.getBoundingClientRect().width));
for (const title of ["The JSON", "curl", "Python"]) await page.getByText(title, { exact: true }).click();
seen.json = JSON.parse(await page.locator("#json").textContent());
seen.curl = await page.locator("#curl").textContent();
seen.python = await page.locator("#python").textContent();
await page.screenshot({ path: join(screenshots, "page-fill-mask.png"), fullPage: true });
await page.getByRole("textbox", { name: /Text with/ }).fill("Nothing is hidden here.");
await page.getByRole("button", { name: "Ask", exact: true }).click();
await page.locator("#results .wrong").first().waitFor();
seen.wrong = await page.locator("#results .wrong").first().textContent();
assert(await fits(page));

// An answer that is under way when another task is chosen is shown nowhere.
await page.evaluate(() => {
  document.getElementById("form").requestSubmit();
  document.querySelector('input[name="task"][value="next-sentence"]').click();
});
await page.waitForTimeout(2000);
assert.equal(await page.locator("#results article").count(), 0);
assert.equal(await page.textContent("#status"), "");
await page.getByRole("radio", { name: "fill-mask" }).check();

// With nothing but the keyboard: to the second task, into its boxes, and off.
await page.getByRole("radio", { name: "fill-mask" }).focus();
await page.keyboard.press("ArrowRight");
assert(await page.getByRole("radio", { name: "next sentence" }).isChecked());
let at = "";
for (let presses = 0; presses < 12 && at !== "TEXTAREA"; presses += 1) {
  await page.keyboard.press("Tab");
  at = await page.evaluate(() => document.activeElement.tagName);
}
assert.equal(at, "TEXTAREA");
await page.keyboard.press("Control+A");
await page.keyboard.type("He opened the door of the old house and went in.");
await page.keyboard.press("Tab");
await page.keyboard.press("Control+A");
await page.keyboard.type("It was dark inside, and nobody answered when he called.");
await page.keyboard.press("Control+Enter");
await answered(page);
seen.follows = await page.locator("#results h3").first().textContent();
seen.labels = await words(page);
seen.pythonPair = await page.locator("#python").textContent();

// A wrong number of answers per mask is no reason to ask nothing of another task.
await page.getByRole("radio", { name: "fill-mask" }).check();
await page.getByRole("spinbutton", { name: /Answers per mask/ }).fill("99");
await page.getByRole("radio", { name: "similarity" }).check();
await page.getByRole("button", { name: "Ask", exact: true }).click();
await answered(page);

// Dark.
const dark = await open({ viewport: { width: 1100, height: 900 }, colorScheme: "dark" });
await dark.getByRole("radio", { name: "next sentence" }).check();
await dark.locator("#examples button").first().click();
await answered(dark);
seen.grounds = [];
for (const each of [page, dark]) seen.grounds.push(await each.evaluate(() => getComputedStyle(document.body).backgroundColor));
await dark.screenshot({ path: join(screenshots, "page-next-sentence-dark.png"), fullPage: true });

// On a phone.
const phone = await open({ viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
await phone.getByRole("radio", { name: "similarity" }).check();
await phone.locator("#examples button").first().tap();
await answered(phone);
seen.similar = await words(phone);
assert(await fits(phone));
await phone.screenshot({ path: join(screenshots, "page-phone.png"), fullPage: true });

// The documentation.
const docs = await open({ viewport: { width: 1100, height: 900 }, colorScheme: "light" });
await docs.getByRole("link", { name: "API" }).click();
await docs.getByRole("heading", { name: "bertport: API" }).waitFor();
seen.operations = await docs.locator(".operation h2").allTextContents();
assert(await fits(docs));
await docs.screenshot({ path: join(screenshots, "docs.png") });

await browser.close();
console.log(JSON.stringify({ ...seen, hosts: [...seen.hosts] }));
