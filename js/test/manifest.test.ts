import assert from "node:assert/strict";
import { test } from "node:test";
import { Bundle } from "../src/bundle.js";
import { UsageError } from "../src/errors.js";
import { obstacle } from "../src/graph.js";
import { digestOf } from "../src/hashing.js";
import { readManifest, type Variant } from "../src/manifest.js";
import { changed, type Json, json, manifest, original, sealed } from "./files.js";

test("the default bundle's manifest is read", async () => {
  const read = await readManifest(original("manifest.json"));
  assert.equal(read.digest, manifest().digest);
  assert.equal(read.maxLength, 512);
  assert.equal(read.segments, null);
  assert.deepEqual(Object.keys(read.heads), ["mlm", "nsp", "pooler"]);
  assert.deepEqual(read.heads.nsp?.labels, ["is_next", "not_next"]);
  assert.deepEqual(read.variants.fp32?.externalData, ["onnx/model.onnx"]);
});

test("a manifest of format 1 is read in the shape of format 2", async () => {
  const { name, max_length, files, architecture } = manifest();
  const variant = {
    file: "onnx/model.onnx",
    kind: "portable",
    recipe: "fp32",
    opset: 17,
    outputs: ["logits"],
    external_data: [],
  };
  const judge = { labels: ["is_next", "not_next"], positive: 0 };
  const old = {
    format_version: 1,
    name,
    max_length,
    files,
    architecture,
    heads: ["mlm", "nsp"],
    next_sentence: judge,
    variants: { portable: variant },
  };
  const read = await readManifest(json(old));
  assert.deepEqual(read.heads.nsp?.labels, judge.labels);
  assert.deepEqual(read.variants.portable?.operatorDomains, { "ai.onnx": 17 });
  assert.match(read.digest, /^sha256:[0-9a-f]{64}$/);
  for (const [recipe, precision] of [
    ["fp32-weights16", "fp32"],
    ["fp16", "fp16"],
    ["int8-dynamic", "int8-dynamic"],
    ["int8-static", "int8-static-symmetric"], // signed, which ONNX Runtime's CPU opens and may compute wrongly
    ["int8-static-cpu", "int8-static"],
  ] as const) {
    const made = { ...variant, recipe, kind: "serving", domains: { "": 13, "com.microsoft": 1 } };
    const { variants } = await readManifest(json({ ...old, variants: { portable: variant, made } }));
    assert.equal(variants.made?.precision, precision);
    assert.deepEqual(variants.made?.operatorDomains, { "com.microsoft": 1, "ai.onnx": 17 });
    assert.equal(
      obstacle(variants.made as Variant) === undefined,
      !["fp16", "int8-static-symmetric"].includes(precision),
    );
  }
});

const damages: [string, (value: Json) => void, RegExp][] = [
  [
    "a later format",
    (value) => void (value.format_version = 3),
    /format 3 and this version .* reads up to 2: install a later/,
  ],
  ["no format", (value) => void (value.format_version = undefined), /has no format_version/],
  ["format 0", (value) => void (value.format_version = 0), /states format 0/],
  ["a path out of the bundle", (value) => void (value.files["../a"] = { size: 1, sha256: "" }), /outside the bundle/],
  ["an absolute path", (value) => void (value.files["/etc/passwd"] = { size: 1, sha256: "" }), /outside the bundle/],
  ["a path of Windows", (value) => void (value.files["a\\..\\b"] = { size: 1, sha256: "" }), /outside the bundle/],
  ["a graph that is not listed", (value) => void (value.variants.fp32.file = "onnx/x.onnx"), /does not list it/],
  ["no heads", (value) => void (value.heads = undefined), /heads is missing/],
  ["a number for a name", (value) => void (value.name = 3), /expected a text, found 3/],
  ["a negative size", (value) => void (value.files["config.json"].size = -1), /expected a whole number/],
  ["one label for a judge of pairs", (value) => void (value.heads.nsp.labels = ["a"]), /gives 1 labels/],
  ["endless inputs", (value) => void (value.max_length = 2 ** 40), /max_length/],
];

for (const [named, change, message] of damages) {
  test(`a manifest with ${named} is refused in one sentence`, async () => {
    const value = manifest();
    change(value);
    await assert.rejects(readManifest(await sealed(value)), { name: "BundleError", message });
  });
}

test("what is no manifest is refused", async () => {
  await assert.rejects(readManifest(new TextEncoder().encode("{")), /is not JSON/);
  await assert.rejects(readManifest(json([])), /has no format_version/);
  await assert.rejects(readManifest(new Uint8Array(2 ** 24 + 1)), /more than 16777216 bytes/);
});

test("a manifest of which a byte was changed is refused", async () => {
  const content = original("manifest.json");
  const text = new TextDecoder().decode(content).replace('"max_length": 512', '"max_length": 511');
  await assert.rejects(readManifest(new TextEncoder().encode(text)), /is not as it was written/);
  const marked = new Uint8Array([0xef, 0xbb, 0xbf, ...content]); // a byte order mark, which decoders drop
  assert.notEqual(await digestOf(marked, manifest().digest), manifest().digest);
  await assert.rejects(readManifest(marked), /is not JSON/);
});

test("files are compared with their hashes", async () => {
  const config = original("config.json");
  const flipped = config.slice();
  flipped[10] = (flipped[10] ?? 0) ^ 1;
  const shortened = config.slice(0, -1);
  for (const [content, message] of [
    [flipped, /config.json was changed/],
    [shortened, /bytes and manifest.json says/],
    [null, /^config.json cannot be read \(no such file\): copy the bundle whole/],
  ] as const) {
    const readFile = await changed({});
    const bundle = await Bundle.open(async (name, most) => {
      if (name !== "config.json") return readFile(name, most);
      if (content === null) throw new Error("no such file");
      return content;
    });
    await assert.rejects(bundle.read("config.json"), { name: "BundleError", message });
  }
  const bundle = await Bundle.open(await changed({}));
  assert.deepEqual(await bundle.read("config.json"), config);
  await assert.rejects(bundle.read("README.md"), /lists no file/);
  await assert.rejects(bundle.read("toString"), /lists no file/);
});

test("a reader's own sentence is kept, and a lack of memory is not blamed on the bundle", async () => {
  const readFile = await changed({});
  const full = /^config.json does not fit into memory \(allocation failed\): close other programs, or choose a smaller/;
  for (const [error, name, message] of [
    [new UsageError("load it again"), "UsageError", /^load it again$/],
    [new RangeError("allocation failed"), "ProviderError", full],
  ] as const) {
    const bundle = await Bundle.open(async (file, most) => {
      if (file === "config.json") throw error;
      return readFile(file, most);
    });
    await assert.rejects(bundle.read("config.json"), { name, message });
  }
});

test("a digest that is asked for is compared", async () => {
  const readFile = await changed({});
  const { digest } = (await Bundle.open(readFile)).manifest;
  await Bundle.open(readFile, digest.slice(7).toUpperCase());
  await assert.rejects(Bundle.open(readFile, `sha256:${"1".repeat(64)}`), /is another bundle/);
  for (const wrong of ["abc", null, 256] as string[]) {
    await assert.rejects(Bundle.open(readFile, wrong), { name: "UsageError", message: /is not a SHA-256/ });
  }
});
