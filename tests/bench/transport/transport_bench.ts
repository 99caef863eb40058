/** Quantum channels against the raw socket (latency) and the runtime's own QUIC (bulk). Each figure is the median of RUNS
 *  runs after one that warms up, rival and subject in turns, between two workers on loopback. Everything of Quantum's is
 *  encrypted. */
import { type BenchRow, median, spread } from "../row.ts";
import { Asked } from "./ask.ts";
import type { Ping } from "./quantum_worker.ts";
import type { RawPing } from "./raw_worker.ts";

const RUNS = 5;
const PING_ROUNDS = 6_000;
const FLOOD_ROUNDS = 150_000;
const BULK_BYTES = 256_000_000;

/** Measures and returns the rows of the transport. */
export async function bench(): Promise<BenchRow[]> {
  return [...await latency(), ...await floods(), ...await bulk()];
}

async function latency(): Promise<BenchRow[]> {
  const raw = await connected("./raw_worker.ts");
  const quantum = await connected("./quantum_worker.ts");
  const rawRuns: RawPing[] = [];
  const quantumRuns: Ping[] = [];
  for (let run = -1; run < RUNS; run++) {
    const ping = { do: "ping", bytes: 64, rounds: PING_ROUNDS };
    const floor = await raw.client.ask<RawPing>({ ...ping, port: raw.port });
    const subject = await quantum.client.ask<Ping>(ping);
    if (run < 0) continue;
    rawRuns.push(floor);
    quantumRuns.push(subject);
  }
  stop(raw, quantum);
  const rawP50 = rawRuns.map(({ p50Us }) => p50Us);
  const rawP99 = rawRuns.map(({ p99Us }) => p99Us);
  const p50 = against("p50", quantumRuns.map(({ p50Us }) => p50Us), rawP50);
  return [
    row("raw listenDatagram ping-pong, 64 B, p50", "µs", rawP50),
    row("raw listenDatagram ping-pong, 64 B, p99", "µs", rawP99),
    { ...p50, bar: "<= 2x raw ping-pong", pass: (p50.ratio ?? Infinity) <= 2 },
    against("p99", quantumRuns.map(({ p99Us }) => p99Us), rawP99),
  ];
}

function against(which: string, values: number[], floor: number[]): BenchRow {
  const measured = row(`Quantum stream echo, 64 B, one at a time, ${which}`, "µs", values);
  const rival = { name: `raw ping-pong ${which}`, value: median(floor) };
  return { ...measured, against: rival, ratio: measured.value / rival.value };
}

async function floods(): Promise<BenchRow[]> {
  const quantum = await connected("./quantum_worker.ts");
  const rates: number[] = [];
  for (let run = -1; run < RUNS; run++) {
    const flood = { do: "flood", bytes: 64, inFlight: 256, rounds: FLOOD_ROUNDS };
    const rate = await quantum.client.ask<number>(flood);
    if (run >= 0) rates.push(rate);
  }
  stop(quantum);
  const measured = row("Quantum stream echo, 64 B, 256 in flight", "calls/s", rates);
  return [{ ...measured, bar: ">= 120,000 calls/s", pass: measured.value >= 120_000 }];
}

async function bulk(): Promise<BenchRow[]> {
  const quic = await connected("./quic_worker.ts");
  const quantum = await connected("./quantum_worker.ts");
  const quicRates: number[] = [];
  const quantumRates: number[] = [];
  for (let run = -1; run < RUNS; run++) {
    const rival = await quic.client.ask<number>({ do: "bulk", bytes: BULK_BYTES });
    const subject = await quantum.client.ask<number>({ do: "bulk", bytes: BULK_BYTES });
    if (run < 0) continue;
    quicRates.push(rival / 1e6);
    quantumRates.push(subject / 1e6);
  }
  stop(quic, quantum);
  const measured = row("Quantum bulk, one stream, loopback", "MB/s", quantumRates);
  const rival = { name: "Deno.connectQuic, one stream", value: median(quicRates) };
  return [
    row("Deno.connectQuic bulk, one stream, loopback", "MB/s", quicRates),
    {
      ...measured,
      against: rival,
      ratio: measured.value / rival.value,
      bar: ">= 300 MB/s",
      pass: measured.value >= 300,
    },
  ];
}

interface Connected {
  readonly server: Asked;
  readonly client: Asked;
  readonly port: number;
}

async function connected(file: string): Promise<Connected> {
  const server = new Asked(file);
  const client = new Asked(file);
  const port = await server.ask<number>({ do: "listen" });
  if (!file.includes("raw")) await client.ask({ do: "connect", port });
  return { server, client, port };
}

function stop(...pairs: Connected[]): void {
  for (const { server, client } of pairs) {
    server.stop();
    client.stop();
  }
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
