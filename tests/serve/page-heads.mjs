// Drives the page in Chromium over bundles of fine-tuned heads: node page-heads.mjs MODULES CHROMIUM URL SCREENSHOTS.
// Prints what it saw of every task that every bundle offers, on a desk, in the dark and on a phone, as JSON.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const seen = { complaints: [], hosts: new Set(), shown: {} };
const SCREENS = {
  desk: { viewport: { width: 1100, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1100, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};

for (const [screen, options] of Object.entries(SCREENS)) {
  const page = await (await browser.newContext(options)).newPage();
  page.on("request", (request) => { if (!request.url().startsWith("data:")) seen.hosts.add(new URL(request.url()).origin); });
  page.on("console", (message) => { if (message.type() === "error") seen.complaints.push(`${screen}: ${message.text()}`); });
  page.on("pageerror", (error) => seen.complaints.push(`${screen}: ${error}`));
  await page.goto(url);
  await page.locator("#tasks input").first().waitFor();
  for (const bundle of await page.locator("#bundle option").allTextContents()) {
    await page.selectOption("#bundle", bundle);
    for (const task of await page.locator("#tasks input").evaluateAll((inputs) => inputs.map((input) => input.value))) {
      await page.locator(`#tasks input[value="${task}"]`).check();
      await page.locator("#examples button").first().click();
      await page.getByText(/^Answered by/).waitFor();
      const card = page.locator("#results article").first();
      seen.shown[`${screen} ${bundle} ${task}`] = {
        wrong: await page.locator(".wrong").allTextContents(),
        fits: await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth),
        title: await card.locator("h3").allTextContents(),
        words: await card.locator("td.word").allTextContents(),
        scores: (await card.locator("td.score").allTextContents()).map(Number),
        ranks: await card.locator("td.rank").allTextContents(),
        marks: await card.locator("mark").evaluateAll((marks) => marks.map((mark) => mark.firstChild.textContent)),
        text: await card.locator(".marked").allTextContents(),
        json: JSON.parse(await page.locator("#json").textContent()).fp32,
        python: await page.locator("#python").textContent(),
      };
      if (screen === "desk") await page.screenshot({ path: join(screenshots, `page-${task}.png`), fullPage: true });
    }
  }
  if (screen !== "desk") continue;
  // Characters beyond the first plane are one each, as the server counts them.
  await page.selectOption("#bundle", "tagger");
  await page.locator('#tasks input[value="token-classification"]').check();
  await page.locator("#fields textarea").fill("\u{1F600}\u{1F600} Ada Lovelace was born in London and worked with Charles Babbage.");
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await page.getByText(/^Answered by/).waitFor();
  seen.astral = {
    json: JSON.parse(await page.locator("#json").textContent()).fp32,
    text: await page.locator("#fields textarea").inputValue(),
    marks: await page.locator("mark").evaluateAll((marks) => marks.map((mark) => mark.firstChild.textContent)),
  };
}

await browser.close();
console.log(JSON.stringify({ ...seen, hosts: [...seen.hosts] }));
