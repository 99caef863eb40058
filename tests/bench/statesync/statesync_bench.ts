/** Documents over RPC: the real worker on durable SQLite, in a process of its own, asked over Quantum. */
import { type BenchRow, median, spread } from "../row.ts";
import { cpuMs, startAsked } from "../sockets/process.ts";
import { Asked } from "../transport/ask.ts";
import type { ServeMessage } from "./server_process.ts";
import type { CallTimes } from "./statesync_client_worker.ts";

const RUNS = 3;
const SECONDS = 5;
const WARM_UP_SECONDS = 2;
const IN_FLIGHT = 64;
const CREATORS = 10;
/** Documents that are edited in turn. */
const DOCUMENTS = 2_000;
/** What the program that this one takes up measured: making documents, ten clients, in memory. */
const UPSTREAM_CREATES_PER_SECOND = 10_294;

/** Measures and returns the rows of documents over RPC. */
export async function bench(): Promise<BenchRow[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const client = new Asked("../statesync/statesync_client_worker.ts");
  await using server = startAsked(new URL("./server_process.ts", import.meta.url));
  try {
    const message: ServeMessage = { directory, secret: secret.toHex() };
    const port = await server.ask<number>(message);
    await client.ask({ do: "connect", port, secret });
    const measured = async (message: { readonly do: string; readonly inFlight: number }) => {
      await client.ask({ ...message, seconds: WARM_UP_SECONDS });
      const runs: Run[] = [];
      for (let run = 0; run < RUNS; run++) {
        const before = await cpuMs(server.pid);
        const times = await client.ask<CallTimes>({ ...message, seconds: SECONDS });
        runs.push({ ...times, cpuUs: (await cpuMs(server.pid) - before) * 1_000 / times.calls });
      }
      return runs;
    };
    const made = await measured({ do: "create", inFlight: CREATORS });
    const madeMany = await measured({ do: "create", inFlight: IN_FLIGHT });
    const apply = { do: "apply", inFlight: IN_FLIGHT, documents: DOCUMENTS };
    const applied = await measured(apply);
    const name = `ApplyOperation over Quantum, durable SQLite, ${IN_FLIGHT} in flight, ` +
      `${DOCUMENTS.toLocaleString("en")} text documents`;
    return [
      row(name, applied, "perSecond", "calls/s", {
        bar: ">= 10,000 calls/s",
        isMet: (rate) => rate >= 10_000,
      }),
      row(`${name}, p99`, applied, "p99Ms", "ms", { bar: "<= 20 ms", isMet: (ms) => ms <= 20 }),
      row(`${name}, CPU of the worker's process`, applied, "cpuUs", "µs"),
      {
        ...row(
          `CreateDocument over Quantum, durable SQLite, ${CREATORS} clients`,
          made,
          "perSecond",
          "calls/s",
          {
            bar: ">= 10,000 calls/s",
            isMet: (rate) => rate >= 10_000,
          },
        ),
        against: { name: "the Go program's, not durable, as published", value: UPSTREAM_CREATES_PER_SECOND },
        ratio: median(made.map(({ perSecond }) => perSecond)) / UPSTREAM_CREATES_PER_SECOND,
      },
      row(`CreateDocument over Quantum, durable SQLite, ${CREATORS} clients, p99`, made, "p99Ms", "ms"),
      row(
        `CreateDocument over Quantum, durable SQLite, ${IN_FLIGHT} in flight`,
        madeMany,
        "perSecond",
        "calls/s",
      ),
    ];
  } finally {
    client.stop();
    await Deno.remove(directory, { recursive: true });
  }
}

/** Words under the table. */
export const NOTES: readonly string[] = [
  "An answer is sent when the change is on disk; changes that come while one commit is under way share the next one. A client of " +
  `${CREATORS} that waits for each answer has at most ${CREATORS} changes a commit, so its rate is bounded by the disk's sync: ` +
  "the row with 64 in flight says what the worker can do.",
];

interface Run extends CallTimes {
  readonly cpuUs: number;
}

function row(
  name: string,
  runs: readonly Run[],
  key: keyof Run,
  unit: string,
  asked?: { readonly bar: string; readonly isMet: (value: number) => boolean },
): BenchRow {
  const values = runs.map((run) => run[key]);
  const value = median(values);
  const measured = { name, value, unit, spread: spread(values) };
  return asked === undefined ? measured : { ...measured, bar: asked.bar, pass: asked.isMet(value) };
}
