// Opens the report in Chromium: node page.mjs MODULES CHROMIUM URL SCREENSHOTS; prints what it saw as JSON.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const seen = { requests: [], complaints: [], fits: {}, colours: {} };

async function open(name, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("console", (message) => seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(url);
  seen.fits[name] = await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  seen.colours[name] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.screenshot({ path: join(screenshots, `report-${name}.png`), fullPage: true });
  return page;
}

const page = await open("light", { viewport: { width: 1100, height: 900 }, colorScheme: "light" });
await open("dark", { viewport: { width: 1100, height: 900 }, colorScheme: "dark" });
await open("phone", { viewport: { width: 390, height: 844 }, colorScheme: "light", isMobile: true, hasTouch: true });
await page.emulateMedia({ media: "print" });
seen.pages = (await page.pdf({ format: "A4" })).length;

seen.headings = await page.getByRole("heading", { level: 2 }).allTextContents();
seen.plots = await page.getByRole("img").evaluateAll((images) => images.map((image) => image.getAttribute("aria-label")));
seen.inks = await page.locator("svg text").evaluateAll((texts) => [...new Set(texts.map((text) => getComputedStyle(text).fill))]);
seen.body = await page.evaluate(() => getComputedStyle(document.body).color);
seen.repeated = await page.evaluate(() => {
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  return ids.filter((each, index) => ids.indexOf(each) !== index);
});
seen.dangling = await page.evaluate(() => [...document.querySelectorAll("a[href^='#'], use")]
  .map((each) => (each.getAttribute("href") || each.getAttribute("xlink:href")).slice(1))
  .filter((id) => !document.getElementById(id)));
seen.tables = await page.locator("table").count();
seen.captions = await page.locator("table > caption").count();
seen.rowHeads = await page.locator("tbody tr > th[scope=row]").count();
seen.rows = await page.locator("tbody tr").count();
await browser.close();
console.log(JSON.stringify(seen));
