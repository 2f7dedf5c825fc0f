// Photographs the server's page: node page.mjs MODULES CHROMIUM URL DIRECTORY.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

async function photograph(name, options, ask) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(url);
  await page.getByRole("radio", { name: "fill-mask" }).waitFor();
  await ask(page);
  await page.getByText(/^Answered by/).waitFor();
  for (let again = 0; again < 5; again += 1) { // the first answers of a kind take longer
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    await page.waitForTimeout(700);
  }
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: !options.isMobile });
  await context.close();
}

const desk = { width: 1100, height: 700 };
await photograph("page-fill-mask", { viewport: desk, colorScheme: "light" }, async (page) => {
  await page.getByRole("textbox", { name: /Text with/ }).fill("He poured her a cup of [MASK].");
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await page.getByText("Python", { exact: true }).click();
});
await photograph("page-next-sentence-dark", { viewport: desk, colorScheme: "dark" }, async (page) => {
  await page.getByRole("radio", { name: "next sentence" }).check();
  await page.locator("#examples button").first().click();
});
const phone = { viewport: { width: 375, height: 1130 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
await photograph("page-phone", phone, async (page) => {
  await page.getByRole("radio", { name: "similarity" }).check();
  await page.locator("#examples button").first().tap();
});
await browser.close();
