/** The write-ahead log against the bare disk: group commit beside write + fdatasync, checksum and recovery speed. */
import { crc32c } from "../../../storage/log/crc32c.ts";
import { type Log, openLog } from "../../../storage/log/mod.ts";
import { type BenchRow, median, spread } from "../row.ts";

const RUNS = 5;
const PAYLOAD = new Uint8Array(120).fill(9);
/** Of one run: about a third of a second each. */
const SINGLE_APPENDS = 1_500;
const WAITERS = 256;
const GROUPED_APPENDS = 100_000;
/** 1,000,000 keys of 100 B, in their log records. */
const RECOVERED_RECORDS = 1_000_000;

export async function bench(): Promise<BenchRow[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  try {
    return [...await appends(directory), checksum(), ...await recovery(directory)];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function appends(directory: string): Promise<BenchRow[]> {
  const log = await openLog({ directory: `${directory}/appends`, durability: "always" });
  const floors: number[] = [], singles: number[] = [], grouped: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    floors.push(bareFloor(`${directory}/floor`));
    singles.push(await oneAtATime(log));
    grouped.push(await manyWaiters(log));
  }
  await log.close();
  const floor = { name: "bare writeSync + syncDataSync", value: median(floors) };
  const perSecond = { name: "the same, one after the other", value: 1e6 / median(floors) };
  const single = median(singles), many = median(grouped);
  return [
    {
      name: "log append to durable, 120 B, one at a time, p50",
      value: single,
      unit: "µs",
      spread: spread(singles),
      against: floor,
      ratio: single / floor.value,
      bar: "p50 <= 2.5x the bare write + fdatasync",
      pass: single <= 2.5 * floor.value,
    },
    {
      name: `log append to durable, 120 B, ${WAITERS} waiters`,
      value: many,
      unit: "records/s",
      spread: spread(grouped),
      against: perSecond,
      ratio: many / perSecond.value,
      bar: ">= 60,000 records/s",
      pass: many >= 60_000,
    },
  ];
}

/** Median of a bare durable write, in µs. */
function bareFloor(path: string): number {
  using file = Deno.openSync(path, { create: true, write: true, truncate: true });
  return median(Array.from({ length: SINGLE_APPENDS }, () => {
    const before = performance.now();
    file.writeSync(PAYLOAD);
    file.syncDataSync();
    return (performance.now() - before) * 1_000;
  }));
}

async function oneAtATime(log: Log): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < SINGLE_APPENDS; i++) {
    const before = performance.now();
    await log.durable(log.append(PAYLOAD));
    times.push((performance.now() - before) * 1_000);
  }
  return median(times);
}

async function manyWaiters(log: Log): Promise<number> {
  let left = GROUPED_APPENDS;
  const before = performance.now();
  const waiter = async () => {
    while (left-- > 0) await log.durable(log.append(PAYLOAD));
  };
  await Promise.all(Array.from({ length: WAITERS }, waiter));
  return GROUPED_APPENDS / (performance.now() - before) * 1_000;
}

function checksum(): BenchRow {
  const bytes = new Uint8Array(4 * 1024 * 1024).map((_, i) => i * 31);
  const rates = Array.from({ length: RUNS + 1 }, () => {
    const before = performance.now();
    for (let at = 0; at + 128 <= bytes.length; at += 128) crc32c(bytes, at, at + 128, 0);
    return bytes.length / 1e3 / (performance.now() - before);
  }).slice(1);
  return { name: "CRC-32C of 128 B pieces", value: median(rates), unit: "MB/s", spread: spread(rates) };
}

async function recovery(directory: string): Promise<BenchRow[]> {
  const path = `${directory}/recovery`;
  const log = await openLog({ directory: path, durability: "none" });
  for (let seq = 1; seq <= RECOVERED_RECORDS; seq++) {
    log.append(PAYLOAD);
    if (seq % 10_000 === 0) await log.durable(seq);
  }
  await log.close();
  const fromLog = await reopen(path);
  const writer = await openLog({ directory: path, durability: "none" });
  await writer.snapshot(repeat(PAYLOAD, RECOVERED_RECORDS), RECOVERED_RECORDS);
  await writer.close();
  const fromSnapshot = await reopen(path);
  const row = (name: string, values: number[]): BenchRow => ({
    name: `log recovery, 1,000,000 records of 120 B, ${name}`,
    value: median(values),
    unit: "ms",
    spread: spread(values),
    bar: "<= 600 ms",
    pass: median(values) <= 600,
  });
  return [row("all in the log", fromLog), row("all in the snapshot", fromSnapshot)];
}

/** Times of several openings, in ms, with callbacks that only count. */
async function reopen(directory: string): Promise<number[]> {
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    let records = 0;
    const log = await openLog({
      directory,
      durability: "none",
      onSnapshot: () => void records++,
      onRecord: () => void records++,
    });
    if (records !== RECOVERED_RECORDS) throw new Error(`${records} records were recovered`);
    times.push(log.recovery.durationMs);
    await log.close();
  }
  return times;
}

function* repeat(record: Uint8Array, count: number): Iterable<Uint8Array> {
  for (let i = 0; i < count; i++) yield record;
}
