/** What an observer of a document costs: one writer, and presence, to hundreds of WebSockets; with the rival and the floor, which
 *  is Deno's WebSocket alone, in the same run. */
import { type BenchRow, median, spread } from "../row.ts";
import type { ClientMessage, Delivery } from "./client_process.ts";
import type { DocumentPlace } from "./light_client.ts";
import { type AskedProcess, cpuMs, startAsked } from "./process.ts";
import { type Side, startFloor, startHocuspocus, startOurs } from "./side.ts";

/** Audiences, each with the rates at which the writer edits: that of y/hub's published figures, and a faster one. */
const AUDIENCES = [
  { observers: 500, rates: [50, 200] },
  { observers: 1_500, rates: [50, 100] },
] as const;
const SECONDS = 3;
const WARM_UP_SECONDS = 1;
const RUNS = 3;
const IDLE_SECONDS = 2;
/** Users whose presence is measured: all of the smaller audience. */
const PRESENT = AUDIENCES[0].observers;
/** Presence is compared with edits at this rate of the same audience. */
const COMPARED_RATE = AUDIENCES[0].rates[1];
const CPU_BAR_US = 6;
const P99_BAR_MS = 45;

/** Measures and returns the rows of fan-out and presence. */
export async function bench(): Promise<BenchRow[]> {
  const floor = await measureSide(startFloor, "bare");
  const rival = await measureSide(startHocuspocus, "hocuspocus");
  const ours = await measureSide(startOurs, "y-websocket");
  const rows: BenchRow[] = [];
  for (const { observers, rates } of AUDIENCES) {
    for (const rate of rates) {
      const key = keyOf(observers, rate);
      rows.push(
        ...fanOutRows(observers, rate, ours.runs.get(key)!, rival.runs.get(key)!, floor.runs.get(key)!),
      );
    }
  }
  return [...rows, ...presenceRows(ours.runs, rival.runs), idleRow(ours, rival)];
}

/** Words under the table. */
export const NOTES: readonly string[] = [
  "CPU is the time of all threads of the server's process divided by updates × observers; clients are in another process. The floor " +
  "is a `Deno.serve` that sends each message to every other socket and does nothing else: one `send`, one frame and one write of the " +
  "kernel for each update and observer. A server that sends what comes within a few milliseconds as one frame can be below it. y/hub " +
  "publishes 15.8 and 14.4 µs, and 28 and 44 ms at p99, at 50 updates a second. AetherFlow sends an edit to others when it is on " +
  "disk, and what its process uses when nothing happens, in all of its services, is part of the figure: at 50 updates a second to " +
  "500 that is a good part. On a machine that has not the time, every server sends much at once and seems cheap: the figures count " +
  "where p99 is small.",
  "Presence: every observer tells its own once a second, each at its own time. An observer that gets a user's newest state has not " +
  "missed the older ones; `none undelivered` means that at the end everybody has everybody's newest.",
];

/** A run of one kind of load. */
interface Run extends Delivery {
  readonly cpuUs: number;
}

type Runs = ReadonlyMap<string, readonly Run[]>;

/** What was measured of one side. */
interface Measured {
  readonly runs: Runs;
  /** CPU while observers are there and nothing happens, in ms a second, for each audience. */
  readonly idleMs: readonly number[];
}

function keyOf(observers: number, rate: number): string {
  return `${observers} at ${rate}`;
}

async function measureSide(
  start: () => Promise<Side>,
  dialect: DocumentPlace["dialect"],
): Promise<Measured> {
  await using side = await start();
  const runs = new Map<string, Run[]>();
  const idleMs: number[] = [];
  for (const { observers, rates } of AUDIENCES) {
    await using clients = startAsked(new URL("./client_process.ts", import.meta.url));
    const ask = (message: ClientMessage) => clients.ask<Delivery>(message);
    const place = await side.place(dialect, `fan-out-${observers}`, "text");
    await ask({ do: "observe", place, count: observers });
    idleMs.push(await idleCpuMs(side));
    for (const perSecond of rates) {
      await ask({ do: "write", place, perSecond, updates: perSecond * WARM_UP_SECONDS });
      const message: ClientMessage = { do: "write", place, perSecond, updates: perSecond * SECONDS };
      runs.set(keyOf(observers, perSecond), await repeat(side, clients, message, observers));
    }
    // The floor keeps no presence: it would only send it on.
    if (observers !== PRESENT || dialect === "bare") continue;
    await ask({ do: "presence", seconds: WARM_UP_SECONDS });
    runs.set("presence", await repeat(side, clients, { do: "presence", seconds: SECONDS }, observers));
  }
  return { runs, idleMs };
}

async function idleCpuMs(side: Side): Promise<number> {
  const before = await cpuMs(side.pid);
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1_000));
  return (await cpuMs(side.pid) - before) / IDLE_SECONDS;
}

async function repeat(
  side: Side,
  clients: AskedProcess,
  message: ClientMessage,
  observers: number,
): Promise<Run[]> {
  const runs: Run[] = [];
  for (let run = 0; run < RUNS; run++) {
    const before = await cpuMs(side.pid);
    const delivery = await clients.ask<Delivery>(message);
    const cpuUs = (await cpuMs(side.pid) - before) * 1_000 / delivery.sent / observers;
    runs.push({ ...delivery, cpuUs });
  }
  return runs;
}

function fanOutRows(
  observers: number,
  rate: number,
  ours: readonly Run[],
  rival: readonly Run[],
  floor: readonly Run[],
): BenchRow[] {
  const what = `one writer, ${rate} updates/s, ${observers.toLocaleString("en")} observers`;
  const cpu = row(`${what}, CPU per update and observer`, ours, "cpuUs", "µs");
  const p99 = row(`${what}, sent to received, p99`, ours, "p99Ms", "ms");
  const lost = undelivered(ours);
  return [
    {
      ...against(cpu, "Hocuspocus 4.7.0 on Deno", rival, "cpuUs"),
      bar: `<= ${CPU_BAR_US} µs`,
      pass: cpu.value <= CPU_BAR_US,
    },
    against({ ...cpu, name: `${what}, the same beside the floor` }, "Deno's WebSocket alone", floor, "cpuUs"),
    {
      ...against(p99, "Hocuspocus 4.7.0 on Deno", rival, "p99Ms"),
      bar: `<= ${P99_BAR_MS} ms, none undelivered`,
      pass: p99.value <= P99_BAR_MS && lost === 0,
    },
  ];
}

function idleRow(ours: Measured, rival: Measured): BenchRow {
  const value = median(ours.idleMs);
  const other = median(rival.idleMs);
  return {
    name: "CPU in a second while observers are there and nothing happens, all services included",
    value,
    unit: "ms",
    spread: spread(ours.idleMs),
    against: { name: "Hocuspocus 4.7.0 on Deno", value: other },
    ...(other > 0 ? { ratio: value / other } : {}),
  };
}

function presenceRows(ours: Runs, rival: Runs): BenchRow[] {
  const what = `presence of ${PRESENT} users at 1 Hz in one document`;
  const runs = ours.get("presence")!;
  const cpu = row(`${what}, CPU per update and observer`, runs, "cpuUs", "µs");
  const update = median(ours.get(keyOf(PRESENT, COMPARED_RATE))!.map(({ cpuUs }) => cpuUs));
  return [
    {
      ...cpu,
      against: { name: `an update of the document at ${COMPARED_RATE}/s`, value: update },
      ratio: cpu.value / update,
      bar: "<= 2x an update of the document, none undelivered",
      pass: cpu.value <= 2 * update && undelivered(runs) === 0,
    },
    against(
      { ...cpu, name: `${what}, the same beside the rival` },
      "Hocuspocus 4.7.0 on Deno",
      rival.get("presence")!,
      "cpuUs",
    ),
    against(
      row(`${what}, sent to received, p99`, runs, "p99Ms", "ms"),
      "Hocuspocus 4.7.0 on Deno",
      rival.get("presence")!,
      "p99Ms",
    ),
  ];
}

function row(name: string, runs: readonly Run[], key: keyof Run, unit: string): BenchRow {
  const values = runs.map((run) => run[key]);
  return { name, value: median(values), unit, spread: spread(values) };
}

function against(measured: BenchRow, name: string, runs: readonly Run[], key: keyof Run): BenchRow {
  const value = median(runs.map((run) => run[key]));
  return { ...measured, against: { name, value }, ratio: measured.value / value };
}

function undelivered(runs: readonly Run[]): number {
  return runs.reduce((sum, run) => sum + run.undelivered, 0);
}
