/** 10,000 watchers over gRPC while keys are written 1,000 times a second: when events arrive, that each arrives once, and
 *  what a watcher costs. */
import { KV, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { createGrpcClient, type GrpcClient } from "../../conformance/client.ts";
import { startProduct } from "../../support/product.ts";
import { flood } from "../rpc/unary.ts";
import { quantile } from "../transport/ask.ts";
import { type BenchRow, median, spread } from "../row.ts";

const WATCHERS = 10_000;
const CONNECTIONS = 10;
const STREAMS = 10;
const PUTS_PER_SECOND = 1_000;
const SECONDS = 5;
const RUNS = 3;
/** Watchers made for the memory row: enough that other growth is small beside theirs. */
const MANY_WATCHERS = 90_000;
/** Puts before the memory row, so that heaps have the size of a server at work and what grows is the watchers. */
const WARM_UP_PUTS = 100_000;
const WARM_UP_IN_FLIGHT = 64;
const encoder = new TextEncoder();

export async function bench(): Promise<BenchRow[]> {
  const product = await startProduct();
  const clients = Array.from({ length: CONNECTIONS }, () => createGrpcClient(product.grpc));
  try {
    const board = new Board(WATCHERS);
    await openWatchers(clients, board, WATCHERS, 0);
    await writeAndWait(clients[0]!, board, 1);
    const p50s: number[] = [], p99s: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      const times = await writeAndWait(clients[0]!, board, SECONDS);
      p50s.push(quantile(times, 0.5));
      p99s.push(quantile(times, 0.99));
    }
    const put = () =>
      clients[0]!.unary(KV.method.put, { key: encoder.encode("warm"), value: encoder.encode("x") });
    await flood(put, WARM_UP_IN_FLIGHT, WARM_UP_PUTS);
    const before = await residentKb(product);
    await openWatchers(clients, new Board(MANY_WATCHERS), MANY_WATCHERS, WATCHERS);
    const perWatcher = (await residentKb(product) - before) * 1_024 / MANY_WATCHERS;
    const what = `${WATCHERS} watchers, ${PUTS_PER_SECOND} puts/s over gRPC, put sent to event received`;
    return [
      { name: `${what}, p50`, value: median(p50s), unit: "ms", spread: spread(p50s) },
      {
        name: `${what}, p99`,
        value: median(p99s),
        unit: "ms",
        spread: spread(p99s),
        bar: "<= 10 ms, none lost or doubled",
        pass: median(p99s) <= 10,
      },
      {
        name: `memory of a watcher, ${MANY_WATCHERS} more, growth of the whole product at work`,
        value: perWatcher,
        unit: "B",
        spread: [perWatcher, perWatcher],
        bar: "<= 1,024 B",
        pass: perWatcher <= 1_024,
      },
    ];
  } finally {
    for (const client of clients) client[Symbol.dispose]();
    await product.stop();
  }
}

/** What was written and what has arrived. */
class Board {
  /** When each key was written last, by watcher. */
  readonly sentMs: Float64Array;
  /** Times from write to event of this run. */
  times: number[] = [];
  readonly #seen: Set<string> = new Set();

  constructor(watchers: number) {
    this.sentMs = new Float64Array(watchers);
  }

  received(watcher: number, revision: bigint): void {
    const id = `${watcher}@${revision}`;
    if (this.#seen.has(id)) throw new Error(`event ${id} came twice`);
    this.#seen.add(id);
    this.times.push(performance.now() - this.sentMs[watcher]!);
  }
}

function keyOfWatcher(index: number): Uint8Array {
  return encoder.encode(`watched/${String(index).padStart(7, "0")}`);
}

/** Watchers `first` to `first + count`, each on a key of its own, spread over the connections' streams. */
async function openWatchers(
  clients: readonly GrpcClient[],
  board: Board,
  count: number,
  first: number,
): Promise<void> {
  const perStream = count / (CONNECTIONS * STREAMS);
  await Promise.all(
    clients.flatMap((client, c) =>
      Array.from({ length: STREAMS }, (_, s) =>
        new Promise<void>((resolve) => {
          const offset = (c * STREAMS + s) * perStream;
          const stream = client.bidi(Watch.method.watch);
          let created = 0;
          stream.onMessage = (answer) => {
            if (answer.created && ++created === perStream) resolve();
            for (const { kv } of answer.events) {
              // Ids are given in order, from 0 on.
              board.received(offset + Number(answer.watchId), kv!.modRevision);
            }
          };
          for (let i = 0; i < perStream; i++) {
            const value = { key: keyOfWatcher(first + offset + i) };
            stream.send({ requestUnion: { case: "createRequest", value } });
          }
        }))
    ),
  );
}

/** Writes at the rate and waits for every event; the sorted times, in ms. */
async function writeAndWait(client: GrpcClient, board: Board, seconds: number): Promise<Float64Array> {
  board.times = [];
  const total = PUTS_PER_SECOND * seconds;
  const answers: Promise<unknown>[] = [];
  const startMs = performance.now();
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, Math.floor((performance.now() - startMs) * PUTS_PER_SECOND / 1_000));
    for (; sent < due; sent++) {
      // A stride that visits all watchers before it comes back to one.
      const watcher = sent * 7_919 % WATCHERS;
      board.sentMs[watcher] = performance.now();
      answers.push(client.unary(KV.method.put, { key: keyOfWatcher(watcher), value: encoder.encode("x") }));
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(answers);
  const deadlineMs = performance.now() + 10_000;
  while (board.times.length < total) {
    if (performance.now() > deadlineMs) {
      throw new Error(`${total - board.times.length} of ${total} events are lost`);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return Float64Array.from(board.times).sort();
}

async function residentKb(product: { hostPid(): Promise<number> }): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${await product.hostPid()}/status`);
  return Number(/VmRSS:\s*(\d+) kB/.exec(status)![1]);
}
