/** Editing through the socket beside the rival: a trace replayed, how long until an edit is saved, and many who join at once. */
import { type BenchRow, median, spread } from "../row.ts";
import type { ClientMessage, Delivery, Replay } from "./client_process.ts";
import { cpuMs, memoryOf, resetPeak, startAsked } from "./process.ts";
import { type Side, startHocuspocus, startOurs } from "./side.ts";
import { chosenTrace, type Trace } from "./trace.ts";

const RUNS = 3;
/** Edits of the trace that wait for their acknowledgement at a time: as many as there are, since providers do not wait; and few. */
const WINDOWS = [Infinity, 256] as const;
const WRITERS = 50;
const WRITES_PER_SECOND = 5;
const SAVE_SECONDS = 5;
const JOINERS = 150;
const DOCUMENT_BYTES = 4_000_000;
const JOIN_CPU_BAR_MS = 1_500;
const JOIN_MEMORY_BAR_MB = 250;
const SAVED_BAR_MS = 20;

/** Measures and returns the rows of editing and joining. */
export async function bench(): Promise<BenchRow[]> {
  const trace = await chosenTrace();
  const rival = await measureSide(startHocuspocus, trace);
  const ours = await measureSide(startOurs, trace);
  return [...replayRows(trace, ours, rival), ...saveRows(ours, rival), ...joinRows(ours, rival)];
}

/** Words under the table. */
export const NOTES: readonly string[] = [
  "Both sides are spoken to by the same client, in Hocuspocus's own framing. AetherFlow's acknowledgement (`SyncStatus`) comes when the " +
  "edit is on disk; Hocuspocus's when it is in memory, before it is stored, so what it reports as saved can be lost. " +
  `A provider sends its edits without waiting, and so does the trace; with ${
    WINDOWS[1]
  } unacknowledged at a time a server that ` +
  "answers from memory is bound by its work alone, and one that answers from the disk by the disk's time too. Afterwards a client that knows nothing reads the document, " +
  "and its text is the trace's. `--trace=FILE` replays a public trace (automerge-perf's or editing-traces' form) in place of the made one.",
  `Joiners open their sockets at once, on a document that was edited a moment before. y/hub publishes 28.7 s of CPU and 1.6 GB for them. ` +
  "Memory is the largest resident size of the server's process while they join, above what it had before the first of them.",
];

interface Joined {
  readonly cpuMs: number;
  readonly aboveMb: number;
  readonly delivery: Delivery;
}

interface MeasuredReplay extends Replay {
  readonly cpuUs: number;
}

interface SideRuns {
  readonly name: string;
  /** For each of WINDOWS. */
  readonly replays: readonly (readonly MeasuredReplay[])[];
  readonly saves: readonly Delivery[];
  readonly joins: readonly Joined[];
}

async function measureSide(start: () => Promise<Side>, trace: Trace): Promise<SideRuns> {
  await using side = await start();
  await using clients = startAsked(new URL("./client_process.ts", import.meta.url));
  const ask = <T>(message: ClientMessage) => clients.ask<T>(message);

  const replays: MeasuredReplay[][] = [];
  for (const [w, window] of WINDOWS.entries()) {
    const runs: MeasuredReplay[] = [];
    for (let run = 0; run <= RUNS; run++) {
      const place = await side.place("hocuspocus", `trace-${w}-${run}`, "text");
      const before = await cpuMs(side.pid);
      const inFlight = Math.min(window, trace.edits.length);
      const replay = await ask<Replay>({ do: "replay", place, edits: trace.edits, inFlight });
      const cpuUs = (await cpuMs(side.pid) - before) * 1_000 / replay.edits;
      if (!replay.isEqual) throw new Error(`${side.name} has another text than the trace makes`);
      if (run > 0) runs.push({ ...replay, cpuUs }); // the first warms up
    }
    replays.push(runs);
  }

  const places = await Promise.all(
    Array.from({ length: WRITERS }, (_, i) => side.place("hocuspocus", `saved-${i}`, "text")),
  );
  const saves = [];
  for (let run = 0; run < RUNS; run++) {
    const message: ClientMessage = {
      do: "save",
      places,
      perSecond: WRITES_PER_SECOND,
      seconds: SAVE_SECONDS,
    };
    saves.push(await ask<Delivery>(message));
  }

  const place = await side.place("hocuspocus", "large", "whiteboard");
  const bytes = await ask<number>({ do: "fill", place, bytes: DOCUMENT_BYTES });
  const { rss } = await memoryOf(side.pid);
  const joins = [];
  for (let run = 0; run < RUNS; run++) {
    joins.push(await joinOnce(side, rss, { do: "join", place, count: JOINERS, bytes }, ask));
  }
  return { name: side.name, replays, saves, joins };
}

async function joinOnce(
  side: Side,
  baseBytes: number,
  message: ClientMessage,
  ask: <T>(message: ClientMessage) => Promise<T>,
): Promise<Joined> {
  await resetPeak(side.pid);
  const before = await cpuMs(side.pid);
  const delivery = await ask<Delivery>(message);
  return {
    delivery,
    cpuMs: await cpuMs(side.pid) - before,
    aboveMb: ((await memoryOf(side.pid)).peak - baseBytes) / 1e6,
  };
}

function replayRows(trace: Trace, ours: SideRuns, rival: SideRuns): BenchRow[] {
  const count = trace.edits.length.toLocaleString("en");
  const what = `${count} edits of the trace ${trace.name} through a socket, text equal`;
  const of = (w: number, key: "perSecond" | "cpuUs") => ({ replays }: SideRuns) =>
    replays[w]!.map((run) => run[key]);
  const rate = versus(what, "edits/s", ours, rival, of(0, "perSecond"));
  return [
    { ...rate, bar: "faster than the rival", pass: rate.ratio! > 1 },
    versus(`${what}, CPU of the server per edit`, "µs", ours, rival, of(0, "cpuUs")),
    versus(`${what}, ${WINDOWS[1]} unacknowledged at a time`, "edits/s", ours, rival, of(1, "perSecond")),
  ];
}

function saveRows(ours: SideRuns, rival: SideRuns): BenchRow[] {
  const what = `${WRITERS} writers, ${WRITES_PER_SECOND} edits/s each, sent to acknowledged`;
  const p95 = versus(`${what}, p95`, "ms", ours, rival, ({ saves }) => saves.map(({ p95Ms }) => p95Ms));
  const isComplete = ours.saves.every(({ undelivered }) => undelivered === 0);
  return [
    versus(`${what}, p50`, "ms", ours, rival, ({ saves }) => saves.map(({ p50Ms }) => p50Ms)),
    { ...p95, bar: `<= ${SAVED_BAR_MS} ms, on disk`, pass: p95.value <= SAVED_BAR_MS && isComplete },
  ];
}

function joinRows(ours: SideRuns, rival: SideRuns): BenchRow[] {
  const what = `${JOINERS} joiners at once on a document of ${DOCUMENT_BYTES / 1e6} MB with a pending edit`;
  const cpu = versus(
    `${what}, CPU of the server`,
    "ms",
    ours,
    rival,
    ({ joins }) => joins.map(({ cpuMs }) => cpuMs),
  );
  const memory = versus(
    `${what}, memory above`,
    "MB",
    ours,
    rival,
    ({ joins }) => joins.map(({ aboveMb }) => aboveMb),
  );
  const isComplete = ours.joins.every(({ delivery }) => delivery.undelivered === 0);
  return [
    { ...cpu, bar: `< ${JOIN_CPU_BAR_MS} ms`, pass: cpu.value < JOIN_CPU_BAR_MS && isComplete },
    { ...memory, bar: `< ${JOIN_MEMORY_BAR_MB} MB`, pass: memory.value < JOIN_MEMORY_BAR_MB },
    versus(
      `${what}, until the last has all`,
      "ms",
      ours,
      rival,
      ({ joins }) => joins.map(({ delivery }) => delivery.elapsedMs),
    ),
  ];
}

function versus(
  name: string,
  unit: string,
  ours: SideRuns,
  rival: SideRuns,
  of: (side: SideRuns) => readonly number[],
): BenchRow {
  const values = of(ours);
  const other = median(of(rival));
  return {
    name,
    value: median(values),
    unit,
    spread: spread(values),
    against: { name: rival.name, value: other },
    ratio: median(values) / other,
  };
}
