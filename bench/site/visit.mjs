// Visits of a site's page in Chromium: node visit.mjs MODULES CHROMIUM URL TIMES > visits, JSON.
// Each has a browser of its own with nothing kept, asks the example once the page lets it, and then comes again.
// Milliseconds are counted from the moment when the address is opened.
import { createRequire } from "node:module";
import path from "node:path";

const [modules, executablePath, url, times] = process.argv.slice(2);
const { chromium } = createRequire(path.join(modules, "package.json"))("playwright-core");
const visits = [];
for (let number = 0; number < Number(times); number += 1) {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  page.setDefaultTimeout(300_000);
  const first = await visit(page, () => page.goto(url));
  await page.getByText("Kept here").waitFor();
  const second = await visit(page, () => page.reload());
  await browser.close();
  visits.push({ first, second });
}
console.log(JSON.stringify(visits));

async function visit(page, open) {
  const began = performance.now();
  await open();
  await said(page, "^Ready");
  const ready = performance.now() - began;
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await said(page, "^Answered");
  const answered = performance.now() - began;
  return { ready, answered, where: await page.textContent("#where"), proof: await page.textContent("#proof") };
}

/** Wait until the page says something; an error that it says instead ends the program. */
async function said(page, pattern) {
  await page.waitForFunction((text) => {
    const status = document.getElementById("status");
    return new RegExp(text).test(status.textContent) || status.className === "wrong";
  }, pattern);
  const status = await page.textContent("#status");
  if (!new RegExp(pattern).test(status)) throw new Error(status);
}
