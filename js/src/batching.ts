/** Batching: inputs of nearly equal length share a run, in the batches that Python's runtime makes on a CPU. */

/** Tokens of a batch, padding included, at most; an input that is longer is a batch of its own. */
export const BATCH_TOKENS = 1024;
/** Cost of a run beside its tokens, in tokens: so much padding is worth one run less. */
export const OVERHEAD_TOKENS = 16;
const MOST_ROWS = 1024;

/**
 * Group inputs into the batches that cost least, where a batch costs its tokens, padding included, and an overhead.
 *
 * In sorted order a batch is a stretch, as wide as its first input, so that the least cost of the first so many inputs
 * follows from that of fewer. Among equal costs fewer batches are taken.
 *
 * @param lengths - tokens of each input.
 * @returns batches of indices into `lengths`, longest first.
 */
export function plan(lengths: readonly number[], budget = BATCH_TOKENS, overhead = OVERHEAD_TOKENS): number[][] {
  const order = lengths.map((_, index) => index).sort((a, b) => (lengths[b] as number) - (lengths[a] as number));
  const least: number[] = new Array(order.length + 1).fill(Number.POSITIVE_INFINITY);
  const starts: number[] = new Array(order.length + 1).fill(0);
  least[0] = 0;
  for (const [start, index] of order.entries()) {
    const width = lengths[index] as number;
    const rows = Math.min(
      order.length - start,
      Math.max(1, Math.min(MOST_ROWS, Math.floor(budget / Math.max(1, width)))),
    );
    for (let count = 1; count <= rows; count++) {
      const cost = (least[start] as number) + (overhead + count * width) * (order.length + 1) + 1;
      if (cost < (least[start + count] as number)) {
        least[start + count] = cost;
        starts[start + count] = start;
      }
    }
  }
  const batches: number[][] = [];
  for (let end = order.length; end > 0; end = starts[end] as number) {
    batches.push(order.slice(starts[end], end));
  }
  return batches.reverse();
}
