/** gRPC unary calls under many streams, ours and a real etcd's, durable on both sides: h2load with 10 connections of 32
 *  streams each. Both are measured in turns, so that a busy machine meets both. Needs etcd and h2load.
 *
 *  Why HTTP/2 of our own: calls that answer what they were sent, no worker behind, did 13,000 to 16,000/s through grpc-js,
 *  16,000 to 18,000/s through node:http2 and 220,000 to 300,000/s through transport/http2, on the 2 cores these tables come
 *  from. */
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { PutRequestSchema, RangeRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { startProduct } from "../../support/product.ts";
import { openEtcd } from "../../support/server.ts";
import { type BenchRow, median, spread } from "../row.ts";

/** Under the table. */
export const NOTES = [
  "What limits Put (the rows of CPU, and a sampled profile): both threads spend about as much on a call, so neither waits " +
  "for the other. On 2 cores that they share with the client and the kernel, the cores are the limit; one thread alone " +
  "would end near 150,000 calls/s. Of the gateway's share half is the runtime (event loop, sockets, sealing of " +
  "datagrams, collection of garbage), a sixth the kernel, a fifth RPC over Quantum, a twentieth each HTTP/2 and the edge. " +
  "Next step: larger datagrams between gateway and kv, so that a call costs fewer wake-ups and seals; with more cores, a " +
  "second gateway worker.",
];

const CONNECTIONS = 10;
const STREAMS = 32;
const CALLS = 60_000;
const WARM_UP_CALLS = 20_000;
const RUNS = 3;
const KEY = new TextEncoder().encode("bench");
const VALUE = new Uint8Array(64).fill(0x78);

const CALL_KINDS = [
  {
    name: "Range of one key",
    path: "/etcdserverpb.KV/Range",
    factor: 1.2,
    body: message(RangeRequestSchema, { key: KEY }),
  },
  {
    name: "Put",
    path: "/etcdserverpb.KV/Put",
    factor: 0.35,
    body: message(PutRequestSchema, { key: KEY, value: VALUE }),
  },
] as const;

export async function bench(): Promise<BenchRow[]> {
  await using etcd = await openEtcd();
  await using product = await startProduct();
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  try {
    const [range, put] = CALL_KINDS;
    // The key exists before it is read.
    await Deno.writeFile(`${folder}/body`, put.body);
    for (const address of [etcd.address, product.grpc]) {
      await h2load(address, put.path, `${folder}/body`, CONNECTIONS);
    }
    const rows: BenchRow[] = [];
    for (const kind of [range, put]) {
      const body = `${folder}/body`;
      await Deno.writeFile(body, kind.body);
      const theirs: number[] = [];
      const ours: number[] = [];
      const cpu: { kv: number; gateway: number }[] = [];
      const pid = await product.hostPid();
      for (const address of [etcd.address, product.grpc]) {
        await h2load(address, kind.path, body, WARM_UP_CALLS);
      }
      for (let run = 0; run < RUNS; run++) {
        theirs.push(await h2load(etcd.address, kind.path, body, CALLS));
        const before = await cpuOf(pid);
        ours.push(await h2load(product.grpc, kind.path, body, CALLS));
        const after = await cpuOf(pid);
        cpu.push({
          kv: (after.kv - before.kv) / CALLS,
          gateway: (after.gateway - before.gateway) / CALLS,
        });
      }
      const ratio = median(ours) / median(theirs);
      rows.push({
        name: `gRPC ${kind.name}, h2load ${CONNECTIONS} × ${STREAMS}`,
        value: median(ours),
        unit: "calls/s",
        spread: spread(ours),
        against: { name: "etcd", value: median(theirs) },
        ratio,
        bar: `>= ${kind.factor}x etcd`,
        pass: ratio >= kind.factor,
      });
      for (const thread of ["gateway", "kv"] as const) {
        const figures = cpu.map((of) => of[thread]);
        rows.push({
          name:
            `gRPC ${kind.name}, h2load ${CONNECTIONS} × ${STREAMS}, CPU of the ${thread} thread for a call`,
          value: median(figures),
          unit: "µs",
          spread: spread(figures),
        });
      }
    }
    await checkCodes(product.url);
    return rows;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** One gRPC message behind its prefix. */
function message<T extends DescMessage>(schema: T, value: MessageInitShape<T>): Uint8Array {
  const bytes = toBinary(schema, create(schema, value));
  const whole = new Uint8Array(5 + bytes.length);
  new DataView(whole.buffer).setUint32(1, bytes.length);
  whole.set(bytes, 5);
  return whole;
}

/** Calls per second. @throws {Error} if a call failed at HTTP's level. */
async function h2load(address: string, path: string, bodyFile: string, calls: number): Promise<number> {
  const args = ["-n", String(calls), "-c", String(CONNECTIONS), "-m", String(STREAMS), "-d", bodyFile];
  const headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
  const { stdout } = await new Deno.Command("h2load", {
    args: [...args, ...headers, `http://${address}${path}`],
  })
    .output().catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new Error("h2load is not installed; Debian's package is nghttp2-client", { cause: error });
    });
  const text = new TextDecoder().decode(stdout);
  const rate = /finished in [^,]+, ([\d.]+) req\/s/.exec(text)?.[1];
  if (rate === undefined || !text.includes(`status codes: ${calls} 2xx`)) {
    throw new Error(`h2load at ${address}${path} said:\n${text}`);
  }
  return Number(rate);
}

/** Microseconds of CPU that the threads of both workers have used. The host starts kv first, then session,
 *  password and statesync, and the gateway last. */
async function cpuOf(pid: number): Promise<{ kv: number; gateway: number }> {
  const threads: { name: string; us: number }[] = [];
  for await (const { name: id } of Deno.readDir(`/proc/${pid}/task`)) {
    // A thread may have ended since.
    const text = await Deno.readTextFile(`/proc/${pid}/task/${id}/stat`).catch(() => "");
    const [, name, rest] = /\((worker-\d+)\) (.*)/.exec(text) ?? [];
    if (name === undefined) continue;
    const fields = rest!.split(" ");
    threads.push({ name, us: (Number(fields[11]) + Number(fields[12])) * US_PER_TICK });
  }
  threads.sort((a, b) => a.name < b.name ? -1 : 1);
  const [kv, , , , gateway] = threads;
  if (kv === undefined || gateway === undefined || threads.length > 5) {
    throw new Error(`Cannot tell the workers' threads apart: ${threads.map(({ name }) => name)}`);
  }
  return { kv: kv.us, gateway: gateway.us };
}

/** Linux counts CPU in hundredths of a second. */
const US_PER_TICK = 10_000;

/** gRPC says in trailers how a call ended. @throws {Error} if one of the product's did not end well. */
async function checkCodes(url: string): Promise<void> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const bad = metrics.split("\n").filter((line) =>
    line.startsWith("aetherflow_gateway_grpc_calls_total{") && !line.includes('code="OK"')
  );
  if (bad.length > 0) throw new Error(`calls failed:\n${bad.join("\n")}`);
}
