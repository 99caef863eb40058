/** The key-value store: its state, the service on its log, and the real worker over Quantum. */
import { plainPut } from "../../../services/kv/txn.ts";
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  KV,
  type TxnRequestSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { kvConfigSchema } from "../../../services/kv/config.ts";
import { createKvModule } from "../../../services/kv/mod.ts";
import { MvccState } from "../../../services/kv/state.ts";
import { openLogStore } from "../../../services/kv/stores/log.ts";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import { bootWorker, freeUdpPort } from "../boot_worker.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { flood, ping } from "../rpc/unary.ts";
import { keyOf, VALUE } from "./keys.ts";
import type { StoreReport } from "./store_process.ts";

const RUNS = 3;
const STATE_OPS = 200_000;
const DURABLE_PUTS = 60_000;
const RPC_PUTS = 40_000;
const RPC_SINGLES = 1_000;
const IN_FLIGHT = 256;
const TXNS = 20_000;
const TXNS_IN_FLIGHT = 64;

export async function bench(): Promise<BenchRow[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  try {
    return [
      ...state(),
      await durablePuts(`${directory}/service`),
      ...await overQuantum(`${directory}/worker`),
      ...await recovery(`${directory}/recovery`),
    ];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Puts and gets of the pure state, without log or promises. */
function state(): BenchRow[] {
  const keys = Array.from({ length: STATE_OPS }, (_, i) => keyOf(i));
  const inserts: number[] = [], overwrites: number[] = [], gets: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const machine = new MvccState(run);
    const writeAll = () => {
      for (const key of keys) {
        machine.put(key, VALUE);
        machine.commit();
      }
    };
    inserts.push(perSecond(writeAll));
    overwrites.push(perSecond(writeAll));
    gets.push(perSecond(() => {
      for (const key of keys) machine.range({ key, range: "single" }, machine.revision);
    }));
  }
  const row = (name: string, values: number[]): BenchRow => ({
    name: `kv state, 200,000 keys of 100 B, ${name}`,
    value: median(values),
    unit: "ops/s",
    spread: spread(values),
  });
  return [row("put of a new key", inserts), row("put of an old key", overwrites), row("get", gets)];
}

function perSecond(run: () => void): number {
  const startMs = performance.now();
  run();
  return STATE_OPS * 1_000 / (performance.now() - startMs);
}

/** The service on its log, every put synced before its answer. */
async function durablePuts(directory: string): Promise<BenchRow> {
  const { service, close } = await createKvModule({
    openStore: (replay) => openLogStore({ directory, durability: "always" }, replay),
    config: kvConfigSchema.parse(undefined),
    random: { fill: (target) => target.fill(5) },
    log: { info: () => {}, error: () => {} },
    clock: performance,
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const values: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    let i = 0;
    values.push(await flood(() => service.put(plainPut(keyOf(i++), VALUE)), IN_FLIGHT, DURABLE_PUTS));
  }
  await close();
  return {
    name: `kv service, durable put of 100 B, ${IN_FLIGHT} in flight, in process`,
    value: median(values),
    unit: "puts/s",
    spread: spread(values),
  };
}

/** The real worker, asked over encrypted Quantum on loopback. */
async function overQuantum(directory: string): Promise<BenchRow[]> {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const port = freeUdpPort();
  const worker = new Worker(new URL("../../../services/kv/worker.ts", import.meta.url), { type: "module" });
  const node = openQuantumNode({ listen: { hostname: "127.0.0.1", port: 0 }, secret });
  try {
    await bootWorker(worker, {
      name: "kv",
      config: kvConfigSchema.parse(undefined),
      directory,
      secret,
      port,
    });
    const channel = await node.connect({ hostname: "127.0.0.1", port });
    const transport = createChannelTransport({ channel: () => channel });
    let i = 0;
    const put = () => callUnary(transport, KV.method.put, { key: keyOf(i++), value: VALUE });
    const get = () => callUnary(transport, KV.method.range, { key: keyOf(i++ % 1_000) });
    const txn = () => callUnary(transport, KV.method.txn, compareAndPut(i++));
    await flood(put, IN_FLIGHT, 5_000);
    await flood(txn, TXNS_IN_FLIGHT, 5_000);
    const txns: number[] = [],
      many: number[] = [],
      singles: number[] = [],
      reads: number[] = [],
      floors: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      floors.push(bareWriteUs(`${directory}.floor`));
      singles.push((await ping(put, RPC_SINGLES)).p50Us);
      many.push(await flood(put, IN_FLIGHT, RPC_PUTS));
      reads.push(await flood(get, IN_FLIGHT, RPC_PUTS));
      txns.push(await flood(txn, TXNS_IN_FLIGHT, TXNS));
    }
    const floor = median(floors);
    return [
      {
        name: `kv worker over Quantum, durable put of 100 B, ${IN_FLIGHT} in flight`,
        value: median(many),
        unit: "puts/s",
        spread: spread(many),
        bar: ">= 60,000 puts/s",
        pass: median(many) >= 60_000,
      },
      {
        name: "kv worker over Quantum, durable put of 100 B, one at a time, p50",
        value: median(singles),
        unit: "µs",
        spread: spread(singles),
        against: { name: "bare writeSync + syncDataSync", value: floor },
        ratio: median(singles) / floor,
        bar: "p50 <= 2.5x the bare write + fdatasync",
        pass: median(singles) <= 2.5 * floor,
      },
      {
        name:
          `kv worker over Quantum, durable transaction (compare + put of 100 B), ${TXNS_IN_FLIGHT} in flight`,
        value: median(txns),
        unit: "txns/s",
        spread: spread(txns),
        bar: ">= 20,000 txns/s",
        pass: median(txns) >= 20_000,
      },
      {
        name: `kv worker over Quantum, get of 100 B, ${IN_FLIGHT} in flight`,
        value: median(reads),
        unit: "gets/s",
        spread: spread(reads),
      },
    ];
  } finally {
    await node.close();
    worker.terminate();
  }
}

/** Puts a key if it has not the version that no key has. */
function compareAndPut(i: number): MessageInitShape<typeof TxnRequestSchema> {
  const key = keyOf(i);
  return {
    compare: [{
      result: Compare_CompareResult.NOT_EQUAL,
      target: Compare_CompareTarget.VERSION,
      key,
      targetUnion: { case: "version", value: 1_000_000n },
    }],
    success: [{ request: { case: "requestPut", value: { key, value: VALUE } } }],
  };
}

/** Median of a bare durable write, in µs. */
function bareWriteUs(path: string): number {
  const file = Deno.openSync(path, { write: true, create: true });
  const times = Array.from({ length: 300 }, () => {
    const startMs = performance.now();
    file.writeSync(VALUE);
    file.syncDataSync();
    return (performance.now() - startMs) * 1_000;
  });
  file.close();
  return median(times);
}

/** 1,000,000 keys of 100 B: opening them again, and what they take in memory. */
async function recovery(directory: string): Promise<BenchRow[]> {
  await storeProcess("fill", directory);
  const reports: StoreReport[] = [];
  for (let run = 0; run < RUNS; run++) reports.push(await storeProcess("open", directory));
  const seconds = reports.map((report) => report.seconds);
  const memory = reports.map((report) => report.residentMb);
  return [
    {
      name: "kv recovery of 1,000,000 keys of 100 B from snapshot and log",
      value: median(seconds),
      unit: "s",
      spread: spread(seconds),
      bar: "<= 3 s",
      pass: median(seconds) <= 3,
    },
    {
      name: "kv memory of 1,000,000 keys of 100 B after recovery, process growth",
      value: median(memory),
      unit: "MB",
      spread: spread(memory),
      against: { name: "keys and values alone", value: 116 },
      ratio: median(memory) / 116,
    },
  ];
}

async function storeProcess(task: "fill" | "open", directory: string): Promise<StoreReport> {
  const script = new URL("./store_process.ts", import.meta.url);
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script.href, task, directory],
  }).output();
  if (!success) throw new Error(`${task} failed: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}
