import assert from "node:assert/strict";
import { test } from "node:test";
import { argmax, largest, sigmoid, softmax, unit } from "../src/arrays.js";
import { plan } from "../src/batching.js";
import { excerpt, reasonOf } from "../src/errors.js";
import { externalFiles } from "../src/external.js";
import { bertNormalizer } from "../src/normalizer.js";
import { type EmbeddingsParameters, embeddings } from "../src/tasks/vectors.js";
import { keptLengths } from "../src/tokenizer.js";
import { original } from "./files.js";

test("inputs of nearly equal length share a batch", () => {
  assert.deepEqual(plan([10, 11, 12]), [[2, 1, 0]]);
  assert.deepEqual(plan([10, 200]), [[1], [0]]);
  assert.deepEqual(plan([]), []);
  const many = plan(new Array(30).fill(100));
  assert.deepEqual(
    many.map((batch) => batch.length),
    [10, 10, 10],
  );
  assert.deepEqual(
    [...many.flat()].sort((a, b) => a - b),
    Array.from({ length: 30 }, (_, index) => index),
  );
});

test("the largest come best first, the first among equals", () => {
  assert.deepEqual(largest([1, 3, 2, 3, 0], 3), [1, 3, 2]);
  assert.deepEqual(largest([1, 2], 5), [1, 0]);
  assert.equal(argmax([0, 2, 2]), 1);
});

test("scores of logits", () => {
  assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5]);
  assert.equal(sigmoid(-1000), 0);
  assert.equal(sigmoid(0), 0.5);
  assert.deepEqual(unit(Float32Array.of(3, 4)), Float32Array.of(3 / 5, 4 / 5));
  assert.deepEqual(unit(Float32Array.of(0, 0)), Float32Array.of(0, 0));
});

test("of a pair the longer text is cut first", () => {
  assert.deepEqual(keptLengths([5, 3], 8), [5, 3]);
  assert.deepEqual(keptLengths([9, 3], 8), [5, 3]);
  assert.deepEqual(keptLengths([3, 9], 8), [3, 5]);
  assert.deepEqual(keptLengths([9, 9], 7), [3, 4]);
  assert.deepEqual(keptLengths([9], 7), [7]);
});

test("a normalized text knows the place of each character", () => {
  const normalize = bertNormalizer({
    lowercase: true,
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
  });
  const { text, starts, ends } = normalize("Né\0\u{20000}");
  assert.equal(text, "ne \u{20000} ");
  assert.deepEqual(starts, [0, 1, 3, 3, 3, 3]);
  assert.deepEqual(ends, [1, 2, 5, 5, 5, 5]);
  assert.equal(normalize("ΟΔΟΣ").text, "οδοσ"); // not ς: the Rust package lower-cases characters one by one
  assert.deepEqual(normalize("Ab"), { text: "ab", starts: [0, 1], ends: [1, 2] });
});

test("a prompt is as long as its characters, as in Python, not as its UTF-16 units", () => {
  const facts = { prompts: {}, defaultPrompt: null, dimension: 4, truncateDim: null, leavesPromptOut: false };
  const context = { tokens: {}, manifest: { name: "some", heads: { embedding: { embedding: facts } } } };
  const bind = (parameters: EmbeddingsParameters) => embeddings.bind(parameters, context as never);
  assert.equal(bind({ prompt: "😀".repeat(4096) }).head, "embedding");
  assert.throws(() => bind({ prompt: "a".repeat(4097) }), /the prompt has 4097 characters and may have 4096/);
});

test("the files that a graph takes weights from are read before it is opened", () => {
  assert.deepEqual(externalFiles(original("onnx/model.onnx")), []);
  assert.deepEqual(externalFiles(original("onnx/model_serving.onnx")), ["model.onnx"]);
  assert.throws(() => externalFiles(original("onnx/model_serving.onnx").slice(0, -5)), /ends early|not an ONNX file/);
  assert.throws(() => externalFiles(Uint8Array.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f)), /ends early/);
  assert.throws(() => externalFiles(Uint8Array.of(0xff)), /not an ONNX file/);
});

/** Return a number as protobuf writes it. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

/** Return a field of a protobuf message: a text, or another message. */
function field(number: number, content: string | readonly number[]): number[] {
  const bytes = typeof content === "string" ? [...new TextEncoder().encode(content)] : content;
  return [...varint(8 * number + 2), ...varint(bytes.length), ...bytes];
}

test("no place of a graph hides the files that it takes weights from", () => {
  const tensor = (location: string, number = 13) => field(number, [...field(1, "location"), ...field(2, location)]);
  const graph = (content: readonly number[]) => field(5, content);
  const files = (model: readonly number[]) => externalFiles(Uint8Array.from(model));
  const inGraph = (location: string, number = 13) => field(7, graph(tensor(location, number)));
  assert.deepEqual(files(inGraph("a.data")), ["a.data"]);
  assert.deepEqual(files(field(25, field(11, field(5, tensor("a.data"))))), ["a.data"]); // a function's attribute
  for (const part of [1, 2]) {
    assert.deepEqual(files(field(20, field(part, graph(tensor("a.data"))))), ["a.data"]); // training
  }
  assert.deepEqual(files(inGraph("\ufeffa.data")), ["\ufeffa.data"]); // another name than a.data
  // What is above 32 bits of a key is dropped by protobuf's own parser.
  assert.throws(() => files(inGraph("a.data", 2 ** 29 + 13)), /not an ONNX file/);
  for (const location of ["*/_ORT_MEM_ADDR_/*", "a\\b", "C:a", "a\nb"]) {
    assert.throws(() => files(inGraph(location)), { name: "BundleError", message: /is not a plain file path/ });
  }
});

test("an error quotes the beginning of what was given", () => {
  assert.equal(excerpt("a".repeat(100), 10), '"aaaaaa...');
  assert.equal(excerpt(["a", 1, null, { b: 2 }]), '["a", 1, null, {b}]');
  assert.equal(excerpt(new Float32Array(3)), "<Float32Array>");
});

test("what another program says becomes part of a sentence", () => {
  assert.equal(reasonOf(new Error('no file "a"\n  there\0\u001b[31m')), 'no file "a" there [31m');
  assert.equal(reasonOf("a".repeat(100), 10), "aaaaaaa...");
  assert.equal(reasonOf(undefined), "undefined");
});
