/** One figure of one benchmark, measured beside its rival or floor in the same run. */
export interface BenchRow {
  /** What was measured, with its conditions: `unary RPC, 64 B, one at a time, p50`. */
  readonly name: string;
  /** Median over the runs. */
  readonly value: number;
  /** Unit of `value`, of `spread` and of `against.value`: `µs`, `calls/s`, `MB/s`, `s`, `MB`. */
  readonly unit: string;
  /** Smallest and largest run. */
  readonly spread: readonly [number, number];
  /** The rival or floor of the same run, when there is one. */
  readonly against?: { readonly name: string; readonly value: number };
  /** `value` divided by `against.value`. */
  readonly ratio?: number;
  /** What is asked for, in words: `p50 <= 2x raw ping-pong`. */
  readonly bar?: string;
  /** Whether the bar was met; unset without a bar. */
  readonly pass?: boolean;
}

/** The median of at least one number. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("Cannot take the median of nothing");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? 0)) / 2;
}

/** Smallest and largest of at least one number. */
export function spread(values: readonly number[]): readonly [number, number] {
  return [Math.min(...values), Math.max(...values)];
}
