/** Arithmetic on arrays: softmax, sigmoid, norms, and the order of scores. */

/** Return the softmax of logits. */
export function softmax(logits: ArrayLike<number>): number[] {
  let most = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < logits.length; index++) most = Math.max(most, logits[index] as number);
  const weights = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Return the logistic function of a logit, without overflow. */
export function sigmoid(logit: number): number {
  const small = Math.exp(-Math.abs(logit));
  return (logit >= 0 ? 1 : small) / (1 + small);
}

/** Return the place of the largest value, the first among equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) {
    if ((values[index] as number) > (values[best] as number)) best = index;
  }
  return best;
}

/** Return the places of the `count` largest values, best first, the first among equals. */
export function largest(values: ArrayLike<number>, count: number): number[] {
  const best: number[] = [];
  for (let index = 0; index < values.length; index++) {
    const value = values[index] as number;
    if (best.length === count && value <= (values[best[count - 1] as number] as number)) continue;
    let low = 0;
    let high = best.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((values[best[middle] as number] as number) >= value) low = middle + 1;
      else high = middle;
    }
    best.splice(low, 0, index);
    if (best.length > count) best.pop();
  }
  return best;
}

/** Return a vector divided by its Euclidean length; zeros stay zeros. */
export function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => value / Math.max(length, 1e-12));
}
