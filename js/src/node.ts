/** bertport in Node.js: a bundle in a directory, and onnxruntime-node. */

import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import path from "node:path";
import type { ReadFile } from "./bundle.js";
import { BundleError, ProviderError } from "./errors.js";
import type { OnnxRuntime } from "./graph.js";
import { type LoadOptions, Model } from "./model.js";

export * from "./index.js";

/** Options of `load` in Node.js: the runtime is onnxruntime-node unless another is passed. */
export type NodeOptions = Omit<LoadOptions, "readFile" | "runtime"> & { readonly runtime?: OnnxRuntime };

/**
 * Return a model from a bundle's directory.
 *
 * ONNX Runtime's telemetry is switched off, unless its environment variable says otherwise.
 */
export async function load(directory: string, options: NodeOptions = {}): Promise<Model> {
  const runtime = options.runtime ?? (await onnxRuntime());
  return Model.load({ ...options, runtime, readFile: directoryReader(directory) });
}

/**
 * Return what reads the files of a bundle's directory: regular ones inside it, links followed.
 *
 * A snapshot in the cache of huggingface_hub, `models--ORG--NAME/snapshots/REVISION`, consists of links to
 * `models--ORG--NAME/blobs`: files there are the bundle's as well.
 */
export function directoryReader(directory: string): ReadFile {
  return async (name, most) => {
    const root = await realpath(directory);
    const file = await realpath(path.join(root, ...name.split("/")));
    const place = path.relative(root, file); // absolute where it is on another drive of Windows
    const outside = place === ".." || place.startsWith(`..${path.sep}`) || path.isAbsolute(place);
    if (outside && path.dirname(file) !== blobsOf(root)) {
      throw new BundleError(`${name} is a link that leaves the bundle: do not use a bundle from this source`);
    }
    const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    try {
      const status = await handle.stat();
      if (!status.isFile())
        throw new BundleError(`${name} is not a regular file: copy the bundle again, or export again`);
      const content = new Uint8Array(Math.min(status.size, most + 1));
      let length = 0;
      while (length < content.length) {
        const { bytesRead } = await handle.read(content, length, content.length - length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      return content.subarray(0, length);
    } finally {
      await handle.close();
    }
  };
}

/** Return the blobs of the Hub's repository that a directory is a snapshot of, or is in one; undefined for another. */
function blobsOf(root: string): string | undefined {
  for (let place = root; place !== path.dirname(place); place = path.dirname(place)) {
    const snapshots = path.dirname(place);
    const repository = path.dirname(snapshots);
    if (path.basename(snapshots) === "snapshots" && path.basename(repository).startsWith("models--")) {
      return path.join(repository, "blobs");
    }
  }
  return undefined;
}

async function onnxRuntime(): Promise<OnnxRuntime> {
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  try {
    const module = await import("onnxruntime-node");
    return (module.default ?? module) as unknown as OnnxRuntime;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    throw new ProviderError(`running a model needs onnxruntime-node (${reason}): npm install onnxruntime-node`);
  }
}
