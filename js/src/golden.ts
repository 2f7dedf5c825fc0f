/** Golden vectors: texts with the ids that the tokenizer must make, and inputs with the outputs that a graph must give. */

import type { Bundle } from "./bundle.js";
import { BundleError, excerpt } from "./errors.js";
import type { FloatTensor, Graph } from "./graph.js";
import type { Tokens } from "./tokenizer.js";

const GOLDEN_VERSION = 1;

/** What the check of golden vectors gave. */
export interface Proof {
  /** Whether all ids are equal, and all outputs within their tolerances. */
  readonly holds: boolean;
  /** One sentence for each difference, in the order of the file; none where it holds. */
  readonly differences: readonly string[];
  /** Texts whose ids were compared. */
  readonly texts: number;
  /** For each output the largest difference of a listed value, and what is allowed. */
  readonly outputs: Readonly<Record<string, { readonly worst: number; readonly tolerance: number }>>;
}

interface GoldenText {
  readonly text: string;
  readonly pair: string | null;
  readonly ids: readonly number[];
  readonly type_ids: readonly number[];
}

interface GoldenRow {
  readonly batch: number;
  readonly row: number;
  readonly columns: readonly number[] | null;
  readonly values: readonly number[];
  readonly largest: number;
  readonly rms: number;
}

interface GoldenOutput {
  readonly tolerance: number;
  readonly shapes: readonly (readonly number[])[];
  readonly rows: readonly GoldenRow[];
}

interface Golden {
  readonly golden_version: number;
  readonly texts: readonly GoldenText[];
  readonly batches: readonly { readonly inputs: Readonly<Record<string, readonly (number | readonly number[])[]>> }[];
  readonly variants: Readonly<Record<string, { readonly outputs: Readonly<Record<string, GoldenOutput>> }>>;
}

/** Compare a tokenizer and a graph with the golden vectors of their bundle. */
export async function prove(bundle: Bundle, variant: string, tokens: Tokens, graph: Graph): Promise<Proof> {
  const { goldenVectors, name } = bundle.manifest;
  if (goldenVectors === null) {
    throw new BundleError(`${name} has no golden vectors to prove itself by: make them with bertport in Python`);
  }
  const golden = (await bundle.json(goldenVectors)) as unknown as Golden;
  if (golden.golden_version !== GOLDEN_VERSION) {
    throw new BundleError(
      `${goldenVectors} has version ${excerpt(golden.golden_version)} and this package reads ${GOLDEN_VERSION}: install a later version`,
    );
  }
  const wanted = Object.hasOwn(golden.variants, variant) ? golden.variants[variant] : undefined;
  if (!wanted) {
    throw new BundleError(
      `${goldenVectors} has no outputs of variant ${excerpt(variant)}: choose ${Object.keys(golden.variants).join(", ")}, or make them again with bertport in Python`,
    );
  }
  const differences = golden.texts.flatMap((text) => differenceOfIds(text, tokens));
  const outputs: Record<string, { worst: number; tolerance: number }> = {};
  for (const [index, { inputs }] of golden.batches.entries()) {
    const feeds = Object.entries(inputs).map(
      ([key, rows]) => [key, { data: rows.flat(), dims: shapeOf(rows) }] as const,
    );
    const given = await graph.raw(Object.fromEntries(feeds), Object.keys(wanted.outputs));
    for (const [output, expected] of Object.entries(wanted.outputs)) {
      const { worst, wrong } = compared(output, expected, given[output] as FloatTensor, index);
      differences.push(...wrong);
      outputs[output] = { worst: Math.max(worst, outputs[output]?.worst ?? 0), tolerance: expected.tolerance };
    }
  }
  return { holds: differences.length === 0, differences, texts: golden.texts.length, outputs };
}

function differenceOfIds(golden: GoldenText, tokens: Tokens): string[] {
  const text = golden.pair === null ? golden.text : ([golden.text, golden.pair] as const);
  const { ids, types } = tokens.encode(text);
  if (!equal(ids, golden.ids))
    return [`the ids of ${excerpt(text)} are ${excerpt(ids, 120)}, not ${excerpt(golden.ids, 120)}`];
  return equal(types, golden.type_ids) ? [] : [`the segments of ${excerpt(text)} are not those stated`];
}

function compared(
  name: string,
  golden: GoldenOutput,
  tensor: FloatTensor,
  batch: number,
): { worst: number; wrong: string[] } {
  const shape = golden.shapes[batch] ?? [];
  if (!equal(tensor.dims, shape)) {
    return {
      worst: Number.POSITIVE_INFINITY,
      wrong: [`${name} has the shape ${excerpt(tensor.dims)}, not ${excerpt(shape)}`],
    };
  }
  const width = tensor.dims.at(-1) ?? 1;
  const wrong: string[] = [];
  let worst = 0;
  for (const row of golden.rows.filter((candidate) => candidate.batch === batch)) {
    const values = tensor.data.subarray(row.row * width, (row.row + 1) * width);
    const columns = row.columns ?? Array.from(values, (_, column) => column);
    const far = Math.max(0, ...columns.map((column, place) => distance(values[column], row.values[place])));
    worst = Math.max(worst, far);
    const place = `${name}, batch ${batch}, row ${row.row}`;
    // Comparisons are written so that NaN fails them.
    if (!(columns.length === row.values.length && far <= golden.tolerance)) {
      wrong.push(`${place}: a value differs by ${far}, and ${golden.tolerance} is allowed`);
    }
    if (row.largest > 0 && !largestHold(values, columns.slice(0, row.largest), row, golden.tolerance)) {
      wrong.push(`${place}: another value than those stated is among the ${row.largest} largest`);
    }
    const rms = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    if (!(Math.abs(rms - row.rms) <= golden.tolerance)) {
      wrong.push(`${place}: the root mean square is ${rms}, not ${row.rms}`);
    }
  }
  return { worst, wrong };
}

function largestHold(values: Float32Array, first: readonly number[], row: GoldenRow, tolerance: number): boolean {
  const bound = (row.values[row.largest - 1] as number) + tolerance;
  const stated = new Set(first);
  return values.every((value, column) => stated.has(column) || value <= bound);
}

function distance(value: number | undefined, expected: number | undefined): number {
  const far = Math.abs((value ?? Number.NaN) - (expected ?? Number.NaN));
  return Number.isNaN(far) ? Number.POSITIVE_INFINITY : far;
}

function shapeOf(rows: readonly (number | readonly number[])[]): number[] {
  const [first] = rows;
  return Array.isArray(first) ? [rows.length, first.length] : [rows.length];
}

function equal(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
