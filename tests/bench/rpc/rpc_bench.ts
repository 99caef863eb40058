/** Unary RPC over Quantum, 64-byte bodies with a deadline each, against the raw socket (latency) and @grpc/grpc-js over TCP.
 *  Each figure is the median of RUNS runs, subject and rivals in turns, between two workers on loopback. Quantum's side is
 *  encrypted, gRPC's is not. The client measured is `callUnary`. */
import { type BenchRow, median, spread } from "../row.ts";
import { Asked } from "../transport/ask.ts";
import type { UnaryPing } from "./unary.ts";

const RUNS = 5;
const WARM_UP_ROUNDS = 20_000;
const PING_ROUNDS = 4_000;
const FLOOD_ROUNDS = 150_000;
const GRPC_FLOOD_ROUNDS = 20_000;
const BYTES = 64;
const IN_FLIGHT = 256;

/** Measures and returns the rows of RPC. */
export async function bench(): Promise<BenchRow[]> {
  const raw = await open("./raw_worker.ts", false);
  const rpc = await open("../rpc/rpc_worker.ts", true);
  const grpc = await open("../rpc/grpc_worker.ts", true);
  try {
    return [...await latency(raw, rpc, grpc), ...await throughput(rpc, grpc)];
  } finally {
    for (const { server, client } of [raw, rpc, grpc]) {
      server.stop();
      client.stop();
    }
  }
}

async function latency(raw: Pair, rpc: Pair, grpc: Pair): Promise<BenchRow[]> {
  const runs: Record<"raw" | "rpc" | "grpc", UnaryPing[]> = { raw: [], rpc: [], grpc: [] };
  for (let run = 0; run < RUNS; run++) {
    for (const [name, pair] of [["raw", raw], ["rpc", rpc], ["grpc", grpc]] as const) {
      const asked = { do: "ping", port: pair.port, bytes: BYTES, rounds: PING_ROUNDS };
      runs[name].push(await pair.client.ask<UnaryPing>(asked));
    }
  }
  const floor = median(runs.raw.map(({ p50Us }) => p50Us));
  const p50 = row(
    "unary RPC over Quantum, 64 B, one at a time, p50",
    "µs",
    runs.rpc.map(({ p50Us }) => p50Us),
  );
  const ratio = p50.value / floor;
  return [
    row("raw listenDatagram ping-pong, 64 B, p50", "µs", runs.raw.map(({ p50Us }) => p50Us)),
    {
      ...p50,
      against: { name: "raw ping-pong p50", value: floor },
      ratio,
      bar: "<= 2x raw ping-pong",
      pass: ratio <= 2,
    },
    row("unary RPC over Quantum, 64 B, one at a time, p99", "µs", runs.rpc.map(({ p99Us }) => p99Us)),
    row("unary @grpc/grpc-js over TCP, 64 B, one at a time, p50", "µs", runs.grpc.map(({ p50Us }) => p50Us)),
  ];
}

async function throughput(rpc: Pair, grpc: Pair): Promise<BenchRow[]> {
  const flood = { do: "flood", bytes: BYTES, inFlight: IN_FLIGHT };
  await rpc.client.ask({ ...flood, rounds: WARM_UP_ROUNDS });
  await grpc.client.ask({ ...flood, rounds: WARM_UP_ROUNDS / 4 });
  const rpcRates: number[] = [];
  const grpcRates: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    rpcRates.push(await rpc.client.ask<number>({ ...flood, rounds: FLOOD_ROUNDS }));
    grpcRates.push(await grpc.client.ask<number>({ ...flood, rounds: GRPC_FLOOD_ROUNDS }));
  }
  const measured = row(`unary RPC over Quantum, 64 B, ${IN_FLIGHT} in flight`, "calls/s", rpcRates);
  const rival = row(`unary @grpc/grpc-js over TCP, 64 B, ${IN_FLIGHT} in flight`, "calls/s", grpcRates);
  const ratio = measured.value / rival.value;
  return [rival, {
    ...measured,
    against: { name: "@grpc/grpc-js over TCP", value: rival.value },
    ratio,
    bar: ">= 120,000 calls/s and >= 8x @grpc/grpc-js",
    pass: measured.value >= 120_000 && ratio >= 8,
  }];
}

interface Pair {
  readonly server: Asked;
  readonly client: Asked;
  readonly port: number;
}

async function open(file: string, connects: boolean): Promise<Pair> {
  const server = new Asked(file);
  const client = new Asked(file);
  const port = await server.ask<number>({ do: "listen" });
  if (connects) await client.ask({ do: "connect", port });
  return { server, client, port };
}

function row(name: string, unit: string, values: number[]): BenchRow {
  return { name, value: median(values), unit, spread: spread(values) };
}

if (import.meta.main) {
  // deno-lint-ignore no-console -- a command's output
  console.table(
    (await bench()).map(({ name, value, unit, ratio, bar }) => ({ name, value, unit, ratio, bar })),
  );
}
