/** What a WebSocket costs that nothing happens on. */
import type { BenchRow } from "../row.ts";
import { type AskedProcess, cpuMs, memoryOf, openFilesMax, startAsked } from "./process.ts";
import { type Side, startOurs } from "./side.ts";

const SOCKETS = 20_000;
/** Files that a process has open besides its sockets. */
const OTHER_FILES = 500;
/** Sockets of one client process: addresses have some 28,000 ports to dial from. */
const PER_CLIENT = 10_000;
const HOLD_SECONDS = 30;
const MEMORY_BAR_GB = 2;

/** Measures and returns the rows of idle sockets. */
export async function bench(): Promise<BenchRow[]> {
  const perProcess = Math.min(SOCKETS, await openFilesMax() - OTHER_FILES);
  const count = Math.ceil(SOCKETS / perProcess);
  const sides: Side[] = [];
  const clients: AskedProcess[] = [];
  try {
    for (let i = 0; i < count; i++) sides.push(await startOurs());
    const before = await total(sides, async ({ pid }) => (await memoryOf(pid)).rss);
    let open = 0;
    for (let left = SOCKETS, i = 0; left > 0; i++) {
      const side = sides[i % count]!;
      const client = startAsked(new URL("./client_process.ts", import.meta.url));
      clients.push(client);
      const wanted = Math.min(left, PER_CLIENT, Math.ceil(SOCKETS / count));
      open += await client.ask<number>({
        do: "idle",
        url: `${side.url.replace("http", "ws")}/ws`,
        count: wanted,
      });
      left -= wanted;
    }
    const startCpuMs = await total(sides, ({ pid }) => cpuMs(pid));
    await new Promise((resolve) => setTimeout(resolve, HOLD_SECONDS * 1_000));
    const heldCpuMs = await total(sides, ({ pid }) => cpuMs(pid)) - startCpuMs;
    const rss = await total(sides, async ({ pid }) => (await memoryOf(pid)).rss);
    return rows(open, count, before, rss, heldCpuMs);
  } finally {
    for (const client of clients) await client[Symbol.asyncDispose]();
    for (const side of sides) await side[Symbol.asyncDispose]();
  }
}

/** Words under the table. */
export const NOTES: readonly string[] = [
  "Sockets are opened on `/ws` and left alone for half a minute, in which the server pings each of them and reads its pong. Memory is " +
  "that of all processes of the server, workers of all services included. Where a process may not have 20,000 files open, the " +
  "sockets are spread over as many servers as it takes.",
];

function rows(open: number, servers: number, before: number, rss: number, heldCpuMs: number): BenchRow[] {
  const what = `${SOCKETS.toLocaleString("en")} idle WebSockets, ${servers} ${
    servers === 1 ? "server" : "servers"
  }`;
  const one = (name: string, value: number, unit: string): BenchRow => ({
    name: `${what}, ${name}`,
    value,
    unit,
    spread: [value, value],
  });
  return [
    {
      ...one("memory of everything", rss / 1e9, "GB"),
      bar: `<= ${MEMORY_BAR_GB} GB, all open`,
      pass: rss <= MEMORY_BAR_GB * 1e9 && open === SOCKETS,
    },
    one("memory of each", (rss - before) / SOCKETS, "B"),
    one("CPU of each in a second", heldCpuMs * 1_000 / SOCKETS / HOLD_SECONDS, "µs"),
  ];
}

async function total(sides: readonly Side[], of: (side: Side) => Promise<number>): Promise<number> {
  let sum = 0;
  for (const side of sides) sum += await of(side);
  return sum;
}
