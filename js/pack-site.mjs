// Gathers the files of the page that `bertport site` writes: npm run site -- DIRECTORY (after npm run build).
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

const target = process.argv[2];
const here = import.meta.dirname;
const tokenizers = path.join(here, "node_modules/@huggingface/tokenizers");
if (!target) throw new Error("npm run site -- DIRECTORY");

/** Copies what tsc made of a folder, its imports pointed at the places of the site, and no types. */
function copy(from, to, rewrite) {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, place] = [path.join(from, entry.name), path.join(to, entry.name)];
    if (entry.isDirectory()) copy(source, place, rewrite);
    else if (entry.name.endsWith(".js")) writeFileSync(place, rewrite(readFileSync(source, "utf-8")));
  }
}

rmSync(target, { recursive: true, force: true });
copy(path.join(here, "build/site"), target, (text) => text.replaceAll('"../src/', '"./bertport/').replace(/^export \{\};\n/m, ""));
copy(path.join(here, "build/src"), path.join(target, "bertport"), (text) =>
  text.replaceAll('"@huggingface/tokenizers"', '"../vendor/tokenizers.js"'));
rmSync(path.join(target, "bertport/node.js"));
rmSync(path.join(target, "protocol.js")); // types alone
for (const name of ["index.html", "site.css", "_headers", "runtime/LICENSE.txt"])
  cpSync(path.join(here, "site", name), path.join(target, name));
mkdirSync(path.join(target, "vendor"));
cpSync(path.join(tokenizers, "dist/tokenizers.mjs"), path.join(target, "vendor/tokenizers.js"));
cpSync(path.join(tokenizers, "LICENSE"), path.join(target, "vendor/LICENSE-tokenizers.txt"));
