// Opens the documentation's site in Chromium: node site.mjs MODULES CHROMIUM URL SCREENSHOTS; prints what it saw as JSON.
// URL is the directory of all versions; the first of them has the page `docs/new.html`, which the second one lacks.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const seen = { complaints: [], schemes: {} };

async function open(path, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(new URL(path, url).href);
  return page;
}

const switched = async (page, version) => {
  const select = page.locator(".versions select");
  await page.waitForFunction(() => document.querySelectorAll(".versions option").length > 1);
  const options = await select.locator("option").allTextContents();
  const chosen = await select.inputValue();
  await Promise.all([page.waitForNavigation(), select.selectOption(version)]);
  await page.waitForLoadState();
  return { options, chosen, to: new URL(page.url()).pathname };
};

const start = await open("index.html", {});
await start.waitForURL("**/README.html");
seen.start = new URL(start.url()).pathname;
seen.both = await switched(await open("2.0/docs/old.html", {}), "v1");
seen.one = await switched(await open("2.0/docs/new.html", {}), "v1");

const look = (page) => page.evaluate(() => ({
  ground: getComputedStyle(document.body).backgroundColor,
  filters: [...document.querySelectorAll("article img")].map((image) => getComputedStyle(image).filter),
}));
for (const colorScheme of ["light", "dark"]) {
  const page = await open("2.0/docs/old.html", { viewport: { width: 1400, height: 900 }, colorScheme });
  seen.schemes[colorScheme] = await look(page);
  if (colorScheme === "dark") {
    const theme = () => page.evaluate(() => document.body.dataset.theme);
    const toggle = page.locator(".theme-toggle:visible").first();
    while (await theme() !== "light") await toggle.click();
    seen.schemes.chosen = await look(page);
  }
}
await browser.close();
console.log(JSON.stringify(seen));
