/** Counts of values by upper bound, in the shape that metric systems take. */
export interface HistogramSnapshot {
  /** Inclusive upper bounds, ascending. */
  readonly bounds: readonly number[];
  /** How many values fell into each bucket; one more than `bounds`, for the values above the last. Not cumulative. */
  readonly counts: readonly number[];
  readonly count: number;
  readonly sum: number;
}

/** Collects values; cheap enough for every group commit. */
export interface Histogram {
  observe(value: number): void;
  snapshot(): HistogramSnapshot;
}

/** Creates an empty histogram; `bounds` are the upper bounds of its buckets, ascending. */
export function createHistogram(bounds: readonly number[]): Histogram {
  const counts = new Array<number>(bounds.length + 1).fill(0);
  let count = 0, sum = 0;
  return {
    observe(value) {
      let bucket = 0;
      while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
      counts[bucket]!++;
      count++;
      sum += value;
    },
    snapshot: () => ({ bounds, counts: [...counts], count, sum }),
  };
}
