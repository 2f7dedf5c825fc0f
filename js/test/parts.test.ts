import assert from "node:assert/strict";
import { test } from "node:test";
import { argmax, largest, sigmoid, softmax, unit } from "../src/arrays.js";
import { plan } from "../src/batching.js";
import { excerpt, reasonOf } from "../src/errors.js";
import { externalFiles } from "../src/external.js";
import { bertNormalizer } from "../src/normalizer.js";
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

test("the files that a graph takes weights from are read before it is opened", () => {
  assert.deepEqual(externalFiles(original("onnx/model.onnx")), []);
  assert.deepEqual(externalFiles(original("onnx/model_serving.onnx")), ["model.onnx"]);
  assert.throws(() => externalFiles(original("onnx/model_serving.onnx").slice(0, -5)), /ends early|not an ONNX file/);
  assert.throws(() => externalFiles(Uint8Array.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f)), /ends early/);
  assert.throws(() => externalFiles(Uint8Array.of(0xff)), /not an ONNX file/);
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
