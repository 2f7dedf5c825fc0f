/** The manifest of a bundle: formats 1 and 2, in the shape of format 2, as far as this package needs it. */

import { BundleError, excerpt, reasonOf } from "./errors.js";
import { digestOf } from "./hashing.js";
import { DAMAGED, mapped, Value } from "./values.js";

/** The newest format that is read. */
export const FORMAT_VERSION = 2;
/** Bytes of a manifest, at most. */
export const LARGEST_MANIFEST = 16 * 2 ** 20;
const LONGEST_PATH = 512;
const LONGEST_INPUT = 1_000_000;
/** Precision of the recipes of format 1 whose name it is not. */
const PRECISIONS: ReadonlyMap<string, string> = new Map([
  ["int8-static", "int8-static-symmetric"],
  ["int8-static-cpu", "int8-static"],
  ["fp32-weights16", "fp32"],
]);

/** One file of the bundle. */
export interface FileEntry {
  /** Size in bytes. */
  readonly size: number;
  /** SHA-256 of the content, in hexadecimal. */
  readonly sha256: string;
}

/** Settings that sentence-transformers records for a model whose head makes one vector of a text. */
export interface Embedding {
  /** Numbers of the vector, as the graph gives it. */
  readonly dimension: number;
  /** Beginnings of texts by the name of their use. */
  readonly prompts: Readonly<Record<string, string>>;
  /** Name of the default prompt; null for none. */
  readonly defaultPrompt: string | null;
  /** Default length to which a vector is cut; null where it stays whole. */
  readonly truncateDim: number | null;
  /** How two vectors are compared: `cosine`, `dot`, `euclidean` or `manhattan`. */
  readonly similarity: string;
  /** Whether the tokens of a prompt are left out of the vector, which the graph cannot do. */
  readonly leavesPromptOut: boolean;
}

/** One head of the model, and what its output means. */
export interface HeadEntry {
  /** A label per column of the last axis; null where it does not classify. */
  readonly labels: readonly string[] | null;
  /** Problem type as transformers calls it; null without labels. */
  readonly problemType: string | null;
  /** Column of the label that means yes; null where there is none. */
  readonly positive: number | null;
  /** Function that makes scores of the logits where it is not the one of the problem type; null elsewhere. */
  readonly activation: string | null;
  /** Settings of a head that makes vectors of texts; null for another head. */
  readonly embedding: Embedding | null;
}

/** One graph of the bundle. */
export interface Variant {
  /** Path of the graph inside the bundle. */
  readonly file: string;
  /** `portable` (every position decoded) or `serving` (has the input `masked_positions`). */
  readonly kind: string;
  /** Files inside the bundle that hold the graph's initializers, beside the graph itself. */
  readonly externalData: readonly string[];
  /** Names of the graph's outputs. */
  readonly outputs: readonly string[];
  /** Versions of the operator sets used, by domain. */
  readonly operatorDomains: Readonly<Record<string, number>>;
  /** How products are computed: `fp32`, `int8-dynamic`, … */
  readonly precision: string;
  /** The CPU instruction set it was made for; null where any will do. */
  readonly isa: string | null;
}

/** The fields of a manifest that this package reads. */
export interface Manifest {
  /** The format it is stored in. */
  readonly formatVersion: number;
  /** `sha256:` and 64 digits that stand for all of the bundle. */
  readonly digest: string;
  /** Name shown to people. */
  readonly name: string;
  /** Rows of the word embedding. */
  readonly vocabSize: number;
  /** Rows of the token type embedding, at least 1. */
  readonly segmentCount: number;
  /** The segment of every token; null where the tokenizer gives each its own. */
  readonly segments: number | null;
  /** The heads present, by name. */
  readonly heads: Readonly<Record<string, HeadEntry>>;
  /** Longest input, in tokens, special tokens included. */
  readonly maxLength: number;
  /** Variants by name. */
  readonly variants: Readonly<Record<string, Variant>>;
  /** Name of the file of golden vectors; null where there is none. */
  readonly goldenVectors: string | null;
  /** Every file of the bundle but manifest.json and README.md, by path. */
  readonly files: Readonly<Record<string, FileEntry>>;
}

/**
 * Return the manifest in the content of a `manifest.json`.
 *
 * @throws BundleError for what is no manifest, is of a newer format, or was changed after it was written.
 */
export async function readManifest(content: Uint8Array<ArrayBuffer>): Promise<Manifest> {
  if (content.length > LARGEST_MANIFEST) {
    throw new BundleError(
      `manifest.json has more than ${LARGEST_MANIFEST} bytes, more than any bundle's: export again`,
    );
  }
  const root = new Value(parsed(content), "manifest.json");
  if (!root.isObject() || !Number.isInteger(root.at("format_version").raw)) {
    throw new BundleError(
      "manifest.json has no format_version: this is not a bertport bundle; make one with `bertport export`",
    );
  }
  const version = root.at("format_version").number();
  if (version > FORMAT_VERSION) {
    throw new BundleError(
      `the bundle has format ${version} and this version of the package bertport reads up to ${FORMAT_VERSION}: ` +
        "install a later version",
    );
  }
  if (version < 1) {
    throw new BundleError(`manifest.json states format ${version}, and the first is 1: ${DAMAGED}`);
  }
  const digest = await sealedDigest(content, version === 1 ? undefined : (root.at("digest").raw ?? null));
  const manifest = version === 1 ? formatOne(root) : formatTwo(root);
  const whole = { ...manifest, formatVersion: version, digest };
  check(whole);
  return whole;
}

function parsed(content: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content));
  } catch (error) {
    throw new BundleError(`manifest.json is not JSON (${reasonOf(error, 200)}): ${DAMAGED}`);
  }
}

async function sealedDigest(content: Uint8Array<ArrayBuffer>, stated: unknown): Promise<string> {
  const digest = await digestOf(content, stated);
  if (digest === undefined || (stated !== undefined && digest !== stated)) {
    throw new BundleError(
      `manifest.json is not as it was written (it states the digest ${excerpt(stated, 80)} and has ` +
        `${digest ?? "another"}): copy the bundle again, or export again`,
    );
  }
  return digest;
}

type Read = Omit<Manifest, "formatVersion" | "digest">;

function formatTwo(root: Value): Read {
  const given = root.at("inputs").map();
  const segments = given.token_type_ids;
  return {
    ...common(root),
    segments: segments ? segments.at("constant").optional((value) => value.number()) : 0,
    heads: mapped(root.at("heads"), headOf),
    variants: mapped(root.at("variants"), (value) => {
      const requires = value.at("requires");
      return {
        ...graphOf(value),
        operatorDomains: mapped(requires.at("operator_domains"), (domain) => domain.number()),
        precision: requires.at("precision").text(),
        isa: requires.at("isa").optional((isa) => isa.text()),
      };
    }),
    goldenVectors: root.at("golden_vectors").optional((value) => value.at("file").text()),
  };
}

/** Read a manifest of format 1, whose inputs, heads and requirements follow from other fields. */
function formatOne(root: Value): Read {
  const heads: Record<string, HeadEntry> = {};
  const plain = { labels: null, problemType: null, positive: null, activation: null, embedding: null };
  for (const value of root.at("heads").list()) heads[value.text()] = plain;
  const judge = root.at("next_sentence").optional((value) => ({
    labels: value
      .at("labels")
      .list()
      .map((label) => label.text()),
    positive: value.at("positive").number(),
  }));
  if (heads.nsp && judge) heads.nsp = { ...plain, ...judge, problemType: "single_label_classification" };
  return {
    ...common(root),
    segments: null,
    heads,
    variants: mapped(root.at("variants"), (value) => {
      const recipe = value.at("recipe").text();
      const domains: Record<string, number> =
        value.at("domains").optional((given) => mapped(given, (domain) => domain.number())) ?? {};
      const others = Object.entries(domains).filter(([domain]) => domain !== ""); // whose version is `opset`
      return {
        ...graphOf(value),
        operatorDomains: { ...Object.fromEntries(others), "ai.onnx": value.at("opset").number() },
        precision: PRECISIONS.get(recipe) ?? recipe,
        isa: value.at("isa").optional((isa) => isa.text()),
      };
    }),
    goldenVectors: null,
  };
}

function common(root: Value): Pick<Read, "name" | "vocabSize" | "segmentCount" | "maxLength" | "files"> {
  const architecture = root.at("architecture");
  return {
    name: root.at("name").text(),
    vocabSize: architecture.at("vocab_size").number(),
    segmentCount: Math.max(1, architecture.at("type_vocab_size").number()),
    maxLength: root.at("max_length").number(),
    files: mapped(root.at("files"), (value) => ({
      size: value.at("size").number(),
      sha256: value.at("sha256").text(),
    })),
  };
}

function graphOf(value: Value): Pick<Variant, "file" | "kind" | "externalData" | "outputs"> {
  return {
    file: value.at("file").text(),
    kind: value.at("kind").text(),
    externalData: value.at("external_data").optional((files) => files.list().map((name) => name.text())) ?? [],
    outputs: value
      .at("outputs")
      .list()
      .map((name) => name.text()),
  };
}

function headOf(value: Value): HeadEntry {
  return {
    labels: value.at("labels").optional((labels) => labels.list().map((label) => label.text())),
    problemType: value.at("problem_type").optional((type) => type.text()),
    positive: value.at("positive").optional((column) => column.number()),
    activation: value.at("activation").optional((name) => name.text()),
    embedding: value.at("embedding").optional((facts) => ({
      dimension: facts.at("dimension").number(),
      prompts: facts.at("prompts").optional((prompts) => mapped(prompts, (prompt) => prompt.text())) ?? {},
      defaultPrompt: facts.at("default_prompt").optional((name) => name.text()),
      truncateDim: facts.at("truncate_dim").optional((size) => size.number()),
      similarity: facts.at("similarity").optional((name) => name.text()) ?? "cosine",
      leavesPromptOut: facts
        .at("modules")
        .list()
        .some((module) => module.at("include_prompt").raw === false),
    })),
  };
}

/** Refuse well-formed fields whose values are impossible. */
function check(manifest: Manifest): void {
  const named = Object.values(manifest.variants).flatMap((variant) => [variant.file, ...variant.externalData]);
  if (manifest.goldenVectors !== null) named.push(manifest.goldenVectors);
  for (const path of named) {
    if (!Object.hasOwn(manifest.files, path)) {
      throw new BundleError(`manifest.json names ${excerpt(path)} but does not list it among its files: export again`);
    }
  }
  for (const path of Object.keys(manifest.files)) refuseOutside(path);
  if (!(manifest.maxLength >= 1 && manifest.maxLength <= LONGEST_INPUT)) {
    throw new BundleError(`manifest.json: max_length is ${manifest.maxLength} tokens: ${DAMAGED}`);
  }
  for (const [name, head] of Object.entries(manifest.heads)) checkLabels(name, head);
}

function checkLabels(name: string, head: HeadEntry): void {
  const judges = name === "nsp" || name === "sop";
  const count = head.labels?.length;
  const possible = head.positive === null || (count !== undefined && head.positive >= 0 && head.positive < count);
  if (possible && (!judges || count === undefined || (count === 2 && head.positive !== null))) return;
  throw new BundleError(
    `manifest.json gives ${count ?? 0} labels to the head ${excerpt(name)}, and calls column ${head.positive} positive: ${DAMAGED}`,
  );
}

/** Refuse a path that is not inside the bundle. */
function refuseOutside(path: string): void {
  if (path.length > LONGEST_PATH) {
    throw new BundleError(`manifest.json names ${excerpt(path)}, which is longer than a path is: ${DAMAGED}`);
  }
  if (path === "" || path.startsWith("/") || path.split("/").includes("..") || /[\\:\0]/.test(path)) {
    throw new BundleError(
      `manifest.json names ${excerpt(path)}, which is outside the bundle: do not use a bundle from this source`,
    );
  }
}
