/** How unary calls are measured, whoever makes them. */
import { quantile } from "../transport/ask.ts";

/** What a worker of these benches is asked. */
export type UnaryMessage =
  | { readonly do: "listen" }
  | { readonly do: "connect"; readonly port: number }
  | { readonly do: "ping"; readonly bytes: number; readonly rounds: number }
  | { readonly do: "flood"; readonly bytes: number; readonly inFlight: number; readonly rounds: number };

/** Times of calls made one at a time. */
export interface UnaryPing {
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Makes `rounds` calls one at a time. */
export async function ping(call: () => Promise<unknown>, rounds: number): Promise<UnaryPing> {
  const times = new Float64Array(rounds);
  for (let i = 0; i < rounds; i++) {
    const startMs = performance.now();
    await call();
    times[i] = performance.now() - startMs;
  }
  times.sort();
  return { p50Us: quantile(times, 0.5) * 1_000, p99Us: quantile(times, 0.99) * 1_000 };
}

/** Calls a second with `inFlight` always under way. */
export async function flood(call: () => Promise<unknown>, inFlight: number, rounds: number): Promise<number> {
  const startMs = performance.now();
  let left = rounds;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (left-- > 0) await call();
  }));
  return rounds * 1_000 / (performance.now() - startMs);
}
