/** Reads Prometheus' text format, and makes rates and quantiles of two readings. */

/** One sample: the name, its labels and value. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g;

/** The samples of a page whose names begin with `prefix`. */
export function samplesOf(page: string, prefix: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of page.split("\n")) {
    if (!line.startsWith(prefix)) continue;
    const match = LINE.exec(line);
    if (match === null) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) labels[name!] = value!;
    samples.push({ name: match[1]!, labels, value: Number(match[3]!.replace("Inf", "Infinity")) });
  }
  return samples;
}

/** The sum of the samples of a name that `wanted` takes. */
export function sumOf(
  samples: readonly Sample[],
  name: string,
  wanted: (sample: Sample) => boolean = () => true,
): number {
  let sum = 0;
  for (const sample of samples) if (sample.name === name && wanted(sample)) sum += sample.value;
  return sum;
}

/** The counts of a histogram's buckets over all label sets: upper bound to count, cumulative. */
export function bucketsOf(samples: readonly Sample[], name: string): Map<number, number> {
  const buckets = new Map<number, number>();
  for (const { name: sample, labels, value } of samples) {
    if (sample !== `${name}_bucket`) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  return new Map([...buckets].sort(([a], [b]) => a - b));
}

/** The quantile of what was counted between two readings, by the line within its bucket; NaN when nothing was. */
export function quantileOf(
  before: ReadonlyMap<number, number>,
  now: ReadonlyMap<number, number>,
  q: number,
): number {
  const counts = [...now].map(([bound, count]) =>
    [bound, Math.max(0, count - (before.get(bound) ?? 0))] as const
  );
  const total = counts.at(-1)?.[1] ?? 0;
  if (total === 0) return NaN;
  let below = 0;
  let lower = 0;
  for (const [bound, count] of counts) {
    if (count >= q * total) {
      if (bound === Infinity) return lower;
      return lower + (bound - lower) * (q * total - below) / Math.max(1, count - below);
    }
    below = count;
    lower = bound;
  }
  return lower;
}
