/** Bundles in memory for tests: the default bundle of the checkout, whole or changed. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { ReadFile } from "../src/bundle.js";
import { digestOf, sha256 } from "../src/hashing.js";

/** The directory of the default bundle: that of the checkout, unless the environment names another. */
export const DEFAULT =
  process.env.BERTPORT_BUNDLE ?? fileURLToPath(new URL("../../../models/default", import.meta.url));

/** Files by their path inside the bundle. */
export type Files = Record<string, Uint8Array<ArrayBuffer>>;

/** JSON values of a manifest, for tests that change them. */
export type Json = any;

/** Return the content of a file of the default bundle. */
export function original(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(path.join(DEFAULT, name)));
}

/** Return the manifest of the default bundle. */
export function manifest(): Json {
  return JSON.parse(new TextDecoder().decode(original("manifest.json")));
}

/** Return a manifest of format 2 as its file, with its digest. */
export async function sealed(value: Json): Promise<Uint8Array<ArrayBuffer>> {
  const zeros = `sha256:${"0".repeat(64)}`;
  const text = JSON.stringify({ ...value, digest: zeros });
  const content = new TextEncoder().encode(text);
  return new TextEncoder().encode(text.replace(zeros, (await digestOf(content)) as string));
}

/** Return what reads the default bundle with some files changed, added or (null) missing, and a manifest to match. */
export async function changed(
  files: Record<string, Uint8Array<ArrayBuffer> | null>,
  change: (value: Json) => void = () => {},
): Promise<ReadFile> {
  const value = manifest();
  for (const [name, content] of Object.entries(files)) {
    if (content) value.files[name] = { size: content.length, sha256: await sha256(content) };
  }
  change(value);
  const stored: Record<string, Uint8Array<ArrayBuffer> | null> = { "manifest.json": await sealed(value), ...files };
  return async (name) => {
    const content = Object.hasOwn(stored, name) ? stored[name] : original(name);
    if (!content) throw new Error("no such file");
    return content;
  };
}

/** Return JSON as a file. */
export function json(value: Json): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}
