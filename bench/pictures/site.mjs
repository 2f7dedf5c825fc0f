// Photographs the page that `bertport site` writes: node site.mjs MODULES CHROMIUM URL DIRECTORY.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

async function photograph(name, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(240_000);
  await page.goto(url);
  await page.getByText(/^Ready/).waitFor();
  await page.getByText("Kept here").waitFor();
  for (let again = 0; again < 5; again += 1) { // the first answers of a kind take longer
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    await page.getByText(/^Answered/).waitFor();
  }
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
  await context.close();
}

await photograph("site", { viewport: { width: 1100, height: 700 }, colorScheme: "light" });
const phone = { viewport: { width: 375, height: 700 }, deviceScaleFactor: 1.5, isMobile: true, hasTouch: true };
await photograph("site-phone", { ...phone, colorScheme: "dark" });
await browser.close();
