import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import * as onnx from "onnxruntime-node";
import { Bundle } from "../src/bundle.js";
import type { OnnxRuntime } from "../src/graph.js";
import { type FilledMask, load as loadAnywhere, type Model, preferred } from "../src/index.js";
import { readManifest } from "../src/manifest.js";
import { directoryReader, load } from "../src/node.js";
import { Tokens } from "../src/tokenizer.js";
import { changed, DEFAULT, json, manifest, original, sealed } from "./files.js";

const runtime = onnx as unknown as OnnxRuntime;
let model: Model;

function bestOf(answer: FilledMask[] | FilledMask[][] | undefined): FilledMask {
  return answer?.flat()[0] as FilledMask;
}

before(async () => {
  model = await load(DEFAULT);
});
after(async () => model.release());

test("int8-dynamic answers where nothing is asked for", () => {
  assert.equal(model.variant, "int8-dynamic");
  assert.deepEqual(model.tasks, ["fill-mask", "next-sentence", "features"]);
});

test("every variant answers alike", async () => {
  const text = "The man took off his [MASK] and sat down by the fire.";
  const best = bestOf(await model.ask("fill-mask", text, { top_k: 1 }));
  const logits: number[] = [];
  for (const variant of ["portable", "fp32"]) {
    const other = await load(DEFAULT, { variant });
    const word = bestOf(await other.ask("fill-mask", text, { top_k: 1 }));
    assert.equal(word.token, best.token);
    logits.push(word.score);
    await other.release();
  }
  assert.ok(Math.abs((logits[0] as number) - (logits[1] as number)) < 1e-5);
});

test("a text with several masks has a list for each, and keeps the other masks", async () => {
  const lists = (await model.ask("fill-mask", "[MASK] isn't the [MASK].", { top_k: 2 })) as { sequence: string }[][];
  assert.deepEqual(
    lists.map((list) => list.length),
    [2, 2],
  );
  assert.match(lists[0]?.[0]?.sequence ?? "", /^\[CLS\] .* the \[MASK\]\. \[SEP\]$/);
});

test("a sequence that is put together is the one that is decoded as a whole", async () => {
  const tokens = await Tokens.read(await Bundle.open(directoryReader(DEFAULT)));
  const ids = tokens.encode("He isn't [MASK], he said: unbelievably [MASK]!").ids;
  for (const position of [1, 5, ids.length - 2]) {
    for (const skipSpecial of [true, false]) {
      const filled = tokens.filling(ids.slice(0, position), ids.slice(position + 1), { skipSpecial });
      for (const id of [101, 103, 2203, 1005, 1012, 2135]) {
        const whole = ids.map((known, place) => (place === position ? id : known));
        assert.equal(filled(id), tokens.decode(whole, { skipSpecial }));
      }
    }
  }
});

test("targets compete alone, and their scores stay those of the vocabulary", async () => {
  const warnings: string[] = [];
  const told = await load(DEFAULT, { warn: (message) => warnings.push(message) });
  const words = await told.ask("fill-mask", "He ate a [MASK].", { targets: ["apple", "qwertyuiop", "apple"] });
  assert.equal((words as unknown[]).length, 2);
  assert.match(warnings[0] ?? "", /qwertyuiop.* is not in the vocabulary: its first piece/);
  await told.release();
});

test("a pair is judged by probabilities of both labels", async () => {
  const answer = await model.ask("next-sentence", ["He went to the store.", "He bought a bottle of milk."]);
  assert.deepEqual(Object.keys(answer.probabilities), ["is_next", "not_next"]);
  assert.equal(answer.follows, answer.label === "is_next");
  assert.equal(answer.score, answer.probabilities[answer.label]);
  assert.ok(Math.abs(Object.values(answer.probabilities).reduce((sum, share) => sum + share) - 1) < 1e-6);
});

test("features are one vector per token or per text", async () => {
  const states = (await model.ask("features", "some text")) as Float32Array[];
  assert.equal(states.length, 4);
  const mean = (await model.ask("features", "some text", { pooling: "mean", normalize: true })) as Float32Array;
  assert.equal(mean.length, 384);
  const long = `${"a ".repeat(600)} [MASK]`; // which matters to fill-mask alone
  assert.equal(((await model.ask("features", long, { truncation: true })) as Float32Array[]).length, 512);
  assert.ok(Math.abs(mean.reduce((sum, value) => sum + value * value, 0) - 1) < 1e-5);
});

test("an input's answer does not depend on those beside it", async () => {
  const texts = ["Paris is [MASK].", "He went to the very very very very very very very far [MASK].", "[MASK]."];
  const portable = await load(DEFAULT, { variant: "portable" });
  const together = await portable.predict("fill-mask", texts, { top_k: 1 });
  for (const [index, text] of texts.entries()) {
    const alone = bestOf(await portable.ask("fill-mask", text, { top_k: 1 }));
    const beside = bestOf(together[index]);
    assert.equal(beside.token, alone.token);
    assert.ok(Math.abs(beside.score - alone.score) < 1e-5);
  }
  await portable.release();
});

const mistakes: [string, unknown, object, string, RegExp][] = [
  ["fill-mask", "no mask", {}, "InputTextError", /No mask_token \(\[MASK\]\)/],
  ["fill-mask", 3, {}, "InputTextError", /takes a text, or \{"text": …\}, not 3/],
  ["fill-mask", { text: "[MASK]", more: 1 }, {}, "InputTextError", /takes a text/],
  ["fill-mask", `[MASK] ${"a ".repeat(600)}`, {}, "InputTextError", /has 603 tokens and the model takes 512/],
  ["fill-mask", `${"a ".repeat(600)} [MASK]`, { truncation: true }, "InputTextError", /cut off a \[MASK\]/],
  ["fill-mask", `[MASK] ${"a".repeat(200_000)}`, {}, "InputTextError", /200000 are the most/],
  ["fill-mask", "[MASK] \ud800", {}, "InputTextError", /not Unicode text/],
  ["fill-mask", "[MASK]", { topk: 1 }, "UsageError", /unknown parameter "topk"/],
  ["fill-mask", "[MASK]", { top_k: 0 }, "UsageError", /top_k is a number from 1 up, not 0/],
  ["fill-mask", "[MASK]", { top_k: 40_000 }, "UsageError", /the vocabulary has 30522 words/],
  ["fill-mask", "[MASK]", { targets: [] }, "UsageError", /holds no word/],
  ["fill-mask", "[MASK]", { targets: ["a", "\ud800"] }, "UsageError", /the target "\\ud800" is not Unicode text/],
  ["next-sentence", "one", {}, "InputTextError", /takes two texts/],
  ["next-sentence", ["a", "b", "c"], {}, "InputTextError", /takes two texts/],
  ["features", "a", { pooling: "max" }, "UsageError", /unknown pooling "max": choose none, cls, mean, pooler/],
  ["features", "a", { normalize: true }, "UsageError", /one vector per text/],
  ["text-classification", "a", {}, "MissingHeadError", /needs the head 'sequence-classification'.*mlm, nsp, pooler/],
  ["zero-shot-classification", "a", {}, "UsageError", /not in this package: use bertport in Python/],
  ["toString", "a", {}, "UsageError", /unknown task "toString"/],
];

for (const [task, input, parameters, name, message] of mistakes) {
  test(`${task} of ${String(JSON.stringify(input)).slice(0, 30)} with ${JSON.stringify(parameters)} is refused`, async () => {
    await assert.rejects(model.ask(task as "fill-mask", input, parameters), { name, message });
  });
}

test("inputs that are no list are refused", async () => {
  await assert.rejects(model.predict("fill-mask", "[MASK]" as never), /for one input use ask/);
});

test("a variant that is not there, or that the runtime lacks operators for, is refused", async () => {
  await assert.rejects(load(DEFAULT, { variant: "int4" }), { name: "UsageError", message: /choose portable, fp32/ });
  const foreign = await changed({}, (value) => void (value.variants.fp32.requires.operator_domains.trt = 1));
  await assert.rejects(loadAnywhere({ readFile: foreign, runtime, variant: "fp32" }), {
    name: "ProviderError",
    message: /does not know \(of trt\): choose portable or int8-dynamic/,
  });
  for (const precision of ["fp16", "int8-static-symmetric"]) {
    const other = await changed({}, (value) => void (value.variants.fp32.requires.precision = precision));
    await assert.rejects(loadAnywhere({ readFile: other, runtime, variant: "fp32" }), {
      name: "ProviderError",
      message: `variant "fp32" is computed in ${precision}, which is for other devices than CPUs: choose portable or int8-dynamic`,
    });
  }
  const none = await changed({}, (value) => {
    for (const variant of Object.values<any>(value.variants)) variant.requires.operator_domains.trt = 1;
  });
  await assert.rejects(loadAnywhere({ readFile: none, runtime }), {
    name: "ProviderError",
    message: /runs everywhere \(portable has operators [^\n]*\(of trt\); fp32 has/,
  });
});

for (const [variant, file, operator, domain] of [
  ["fp32", "onnx/model_serving.onnx", "LayerNormalization", "ai.onnx"],
  ["int8-dynamic", "onnx/model_int8_dynamic.onnx", "MatMulIntegerToFloat", "com.microsoft"],
] as const) {
  test(`a graph of ${domain} with an operator that is none is refused in one sentence`, async () => {
    const graph = original(file);
    const name = Buffer.from(operator); // NodeProto.op_type, and no node's name
    const at = Buffer.from(graph).indexOf(Buffer.from([0x22, name.length, ...name]));
    const other = operator.replace(/.$/, "x");
    graph.set(new TextEncoder().encode(other), at + 2);
    const readFile = await changed({ [file]: graph });
    await assert.rejects(loadAnywhere({ readFile, runtime, variant }), {
      name: "ProviderError",
      message: new RegExp(`^variant "${variant}" needs the operator "${other} of ${domain}", which .*: choose another`),
    });
  });
}

test("a graph that takes weights from a file which is not listed for it is refused", async () => {
  const readFile = await changed({}, (value) => void (value.variants.fp32.external_data = []));
  await assert.rejects(loadAnywhere({ readFile, runtime, variant: "fp32" }), {
    name: "BundleError",
    message: /takes weights from "model.onnx", which manifest.json does not list/,
  });
});

test("which variant is preferred", async () => {
  const read = async (change: (value: ReturnType<typeof manifest>) => void) => {
    const value = manifest();
    change(value);
    return preferred(await readManifest(await sealed(value)));
  };
  assert.equal(await read(() => {}), "int8-dynamic");
  assert.equal(await read((value) => void (value.variants["int8-dynamic"].requires.isa = "avx512_vnni")), "portable");
  assert.equal(
    await read((value) => void (value.variants["int8-dynamic"].requires.operator_domains.other = 1)),
    "portable",
  );
});

test("a variant that may be wrong on other CPUs is opened with a warning", async () => {
  for (const [isa, expected] of [
    ["avx512_vnni", /^variant "int8-dynamic" is made for CPUs with avx512_vnni, and on others .*: check it by prove/],
    ["avx2", /^$/],
    [null, /^$/],
  ] as const) {
    const warnings: string[] = [];
    const warn = (message: string) => void warnings.push(message);
    const readFile = await changed({}, (value) => void (value.variants["int8-dynamic"].requires.isa = isa));
    const told = await loadAnywhere({ readFile, runtime, variant: "int8-dynamic", warn });
    await told.release();
    assert.match(warnings.join("\n"), expected);
  }
});

test("a directory's links may not leave it, and what is no file is refused", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "bertport-"));
  try {
    await assert.rejects(load(directory), { name: "BundleError", message: /manifest.json cannot be read/ });
    symlinkSync(path.join(DEFAULT, "manifest.json"), path.join(directory, "manifest.json"));
    await assert.rejects(load(directory), /is a link that leaves the bundle/);
    symlinkSync("..", path.join(directory, "up"));
    await assert.rejects(directoryReader(directory)("up", 10), /is a link that leaves the bundle/);
    writeFileSync(path.join(directory, "a"), "abc");
    writeFileSync(path.join(directory, "..a"), "abc");
    const read = directoryReader(directory);
    assert.deepEqual(Buffer.from(await read("a", 10)).toString(), "abc");
    assert.equal((await read("..a", 10)).length, 3);
    assert.equal((await read("a", 1)).length, 2); // no more than a byte above what is allowed
    await assert.rejects(directoryReader(DEFAULT)("onnx", 10), /is not a regular file/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("in the cache of huggingface_hub a bundle's files are links to the blobs of its repository", async () => {
  const cache = mkdtempSync(path.join(tmpdir(), "bertport-"));
  try {
    const repository = path.join(cache, "models--org--name");
    const snapshot = path.join(repository, "snapshots", "abc");
    mkdirSync(path.join(snapshot, "onnx"), { recursive: true });
    for (const owner of [repository, path.join(cache, "models--org--other")]) {
      mkdirSync(path.join(owner, "blobs"), { recursive: true });
      writeFileSync(path.join(owner, "blobs", "0f"), "abc");
    }
    symlinkSync("../../../blobs/0f", path.join(snapshot, "onnx", "a"));
    symlinkSync("../../../models--org--other/blobs/0f", path.join(snapshot, "b"));
    assert.equal((await directoryReader(snapshot)("onnx/a", 10)).length, 3);
    assert.equal((await directoryReader(path.join(snapshot, "onnx"))("a", 10)).length, 3);
    await assert.rejects(directoryReader(snapshot)("b", 10), /is a link that leaves the bundle/);
  } finally {
    rmSync(cache, { recursive: true });
  }
});

test("the default bundle proves itself by its golden vectors", async () => {
  for (const variant of ["portable", "fp32", "int8-dynamic"]) {
    const other = await load(DEFAULT, { variant });
    const { holds, differences, texts, outputs } = await other.prove();
    await other.release();
    assert.deepEqual(differences, []);
    assert.ok(holds && texts > 0);
    assert.ok((outputs.logits?.worst ?? 1) < 1e-4);
  }
});

test("golden vectors: what holds, and what does not", async () => {
  const golden = await goldenOf(model);
  const name = "golden.json";
  const listed = (value: ReturnType<typeof manifest>) => void (value.golden_vectors = { file: name });
  const proven = async (change: (value: typeof golden) => void) => {
    const value = structuredClone(golden);
    change(value);
    const told = await loadAnywhere({ readFile: await changed({ [name]: json(value) }, listed), runtime });
    try {
      return await told.prove();
    } finally {
      await told.release();
    }
  };
  const proof = await proven(() => {});
  assert.deepEqual(proof.differences, []);
  assert.ok(proof.holds);
  assert.equal(proof.texts, 2);
  const logits = (value: typeof golden) => value.variants["int8-dynamic"].outputs.logits;
  const wrong: [(value: typeof golden) => void, RegExp][] = [
    [(value) => void value.texts[0]?.ids.push(1), /the ids of/],
    [(value) => void value.texts[1]?.type_ids.fill(0), /the segments of/],
    [(value) => void logits(value).rows[0].values.splice(0, 1, 100), /a value differs by \d/],
    [(value) => void Object.assign(logits(value).rows[0], { columns: [0], values: [-100] }), /among the 1 largest/],
    [(value) => void (logits(value).rows[0].rms += 1), /root mean square/],
    [(value) => void (logits(value).shapes = [[1, 5]]), /has the shape/],
    [
      (value) => void Object.assign(value.texts[0] as object, { text: "word ".repeat(5000) }),
      /^the tokenizer refuses "word .*: the input has 500\d tokens and the model takes 512: shorten it/,
    ],
    [
      (value) => void value.batches[0]?.inputs.input_ids[0]?.splice(0, 1, 10 ** 6),
      /^the graph fails in batch 0: ONNX Runtime could not run a batch of 1 x \d tokens/,
    ],
  ];
  for (const [change, message] of wrong) {
    const { holds, differences } = await proven(change);
    assert.equal(holds, false);
    assert.match(differences.join("\n"), message);
  }
  await assert.rejects(
    proven((value) => void (value.golden_version = 2)),
    /version 2 and this package reads 1/,
  );
  await assert.rejects(
    proven((value) => void logits(value).rows[0].values.splice(0, 1, null as never)),
    { name: "BundleError", message: /values: expected a number, found null/ },
  );
  await assert.rejects(
    proven((value) => void value.batches.push(...new Array(9).fill(value.batches[0]))),
    /10 batches of up to 6 tokens, more than golden vectors have/,
  );
  for (const change of [
    (value: typeof golden) => void (logits(value).rows[0].batch = 1),
    (value: typeof golden) => void logits(value).shapes.push([1, 5]),
    (value: typeof golden) => void (value.batches = []),
  ]) {
    const message = 'golden.json lists a batch of "logits" that is not there: the bundle is damaged; export again';
    await assert.rejects(proven(change), { name: "BundleError", message });
  }
  await assert.rejects(
    proven((value) => void (logits(value).rows = [] as never)),
    { name: "BundleError", message: 'golden.json lists no row of "logits": the bundle is damaged; export again' },
  );
  await assert.rejects(
    proven((value) => void (value.variants["int8-dynamic"].outputs = {} as never)),
    {
      name: "BundleError",
      message: /have no output of variant "int8-dynamic": make them anew with bertport golden --overwrite$/,
    },
  );
  const without = await loadAnywhere({
    readFile: await changed({}, (value) => void (value.golden_vectors = null)),
    runtime,
  });
  await assert.rejects(without.prove(), /has no golden vectors/);
  await without.release();
});

/** Return golden vectors of what a model gives now. */
async function goldenOf(known: Model) {
  const text = "Paris is [MASK].";
  const tokens = await Tokens.read(await Bundle.open(directoryReader(DEFAULT)));
  const single = tokens.encode(text);
  const pair = tokens.encode(["a", "b"]);
  const inputs = {
    input_ids: [[...single.ids]],
    attention_mask: [single.ids.map(() => 1)],
    token_type_ids: [[...single.types]],
    masked_positions: [single.ids.indexOf(tokens.maskId as number)],
  };
  const session = await onnx.InferenceSession.create(path.join(DEFAULT, "onnx/model_int8_dynamic.onnx"), {
    logSeverityLevel: 4,
  });
  const tensor = (rows: (number | number[])[]) => {
    const dims = Array.isArray(rows[0]) ? [rows.length, rows[0].length] : [rows.length];
    return new onnx.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), dims);
  };
  const feeds = Object.fromEntries(Object.entries(inputs).map(([key, rows]) => [key, tensor(rows)]));
  const logits = (await session.run(feeds, ["logits"])).logits as onnx.Tensor;
  await session.release();
  const values = logits.data as Float32Array;
  const best = values.indexOf(Math.max(...values));
  const row = {
    batch: 0,
    row: 0,
    columns: [best],
    values: [values[best] as number],
    largest: 1,
    rms: Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length),
  };
  return {
    golden_version: 1,
    texts: [
      { text, ids: [...single.ids], type_ids: [...single.types] },
      { text: "a", pair: "b", ids: [...pair.ids], type_ids: [...pair.types] },
    ],
    batches: [{ inputs }],
    variants: {
      [known.variant as "int8-dynamic"]: {
        outputs: { logits: { tolerance: 1e-4, shapes: [[...logits.dims]], rows: [row] as [typeof row] } },
      },
    } as {
      "int8-dynamic": { outputs: { logits: { tolerance: number; shapes: number[][]; rows: [typeof row] } } };
    },
  };
}
