import { type Durability, type Log, LogError, openLog } from "../log/mod.ts";
import { createFaultFs, createPrng, type Fault, type FaultFs } from "./fault_fs.ts";

/** One run of the scenario: everything in it follows from these. */
export interface Trial {
  readonly seed: number;
  readonly durability: Durability;
  readonly fault: Fault;
  /** Number of the file operation that ends in the fault. */
  readonly operation: number;
}

/** What a trial came to. */
export interface TrialResult {
  /** Whether the operation was reached. */
  readonly faulted: boolean;
  /** Records found at the end. */
  readonly records: number;
}

const DIRECTORY = "/data/log";
const SEGMENT_BYTES = 4096;

/** Appends, waits, snapshots and reopens at random until the fault comes; then opens the log again, and again after a
 *  loss of power, and checks each time that every acknowledged record is there, in order, with its bytes, and that
 *  nothing else is. Throws an Error that names the trial when something is wrong. */
export async function runTrial(trial: Trial): Promise<TrialResult> {
  const fs = createFaultFs(trial.seed);
  const owner = new Owner(fs, trial);
  try {
    fs.arm(trial.operation, trial.fault);
    await owner.live(12);
    const { faulted } = fs;
    // The process ends, by the fault or by us; the machine only if that was the fault.
    fs.restart(trial.fault === "crash");
    fs.freeSpace();
    owner.forgetUnkept(trial.fault === "crash");
    await owner.reopen();
    await owner.live(3);
    await owner.requireHealthy();
    fs.restart(true);
    owner.forgetUnkept(true);
    await owner.reopen();
    await owner.close();
    return { faulted, records: owner.records };
  } catch (error) {
    throw new Error(`trial ${JSON.stringify(trial)}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

/** The log's owner: a list of records is its state. */
class Owner {
  readonly #fs: FaultFs;
  readonly #trial: Trial;
  readonly #random: () => number;
  #log: Log | undefined;
  /** Every record appended, in this history: what a reopening did not find has never been. */
  #history: Uint8Array[] = [];
  /** How many of them the log called durable, and how many are so whatever the durability. */
  #acknowledged = 0;
  #onDisk = 0;
  #waits: Promise<void>[] = [];

  constructor(fs: FaultFs, trial: Trial) {
    this.#fs = fs;
    this.#trial = trial;
    this.#random = createPrng(trial.seed ^ 0x5eed);
  }

  get records(): number {
    return this.#history.length;
  }

  /** Does `steps` random things, or fewer when the log stops; then waits until nothing runs. */
  async live(steps: number): Promise<void> {
    try {
      for (let step = 0; step < steps; step++) {
        if (this.#log === undefined) await this.#open();
        await this.#step(this.#log!);
      }
    } catch (error) {
      // Only the fault may be the cause, and the log must call it by a listed name.
      if (!(error instanceof LogError) || !["io", "failed", "closed"].includes(error.code)) throw error;
      if (!this.#fs.faulted) throw new Error("the log stopped without a fault", { cause: error });
    } finally {
      await this.#settle();
    }
  }

  /** Opens and checks, without a fault. */
  async reopen(): Promise<void> {
    await this.#open();
  }

  async requireHealthy(): Promise<void> {
    if (this.#log === undefined) await this.#open();
    const log = this.#log!;
    await log.durable(this.#append(log, 1));
    await this.#settle();
  }

  async close(): Promise<void> {
    await this.#log?.close();
    this.#log = undefined;
  }

  /** With weaker durability than `always`, a loss of power takes what was acknowledged and not synced. */
  forgetUnkept(powerLoss: boolean): void {
    if (powerLoss && this.#trial.durability !== "always") this.#acknowledged = this.#onDisk;
  }

  async #step(log: Log): Promise<void> {
    const choice = this.#random();
    this.#append(log, 1 + Math.floor(this.#random() * 12));
    if (choice < 0.35) await log.durable(log.lastSeq);
    else if (choice < 0.5) await new Promise<void>((resolve) => setImmediate(resolve));
    else if (choice < 0.75) await this.#snapshot(log);
    else if (choice < 0.85) {
      await log.close();
      this.#onDisk = this.#acknowledged = this.#history.length;
      this.#log = undefined;
    }
    if (log.failed !== undefined) throw log.failed;
  }

  /** Appends; whether it is waited for or not, what the log says of it is noted. Returns the last number. */
  #append(log: Log, count: number): number {
    let seq = 0;
    for (let i = 0; i < count; i++) {
      const payload = this.#payload();
      seq = log.append(payload);
      this.#history.push(payload);
      if (seq !== this.#history.length) {
        throw new Error(`append gave ${seq}, expected ${this.#history.length}`);
      }
    }
    const last = seq;
    this.#waits.push(
      log.durable(last).then(() => {
        this.#acknowledged = Math.max(this.#acknowledged, last);
        if (log.durableSeq < last) {
          throw new Error(`durable(${last}) resolved at durableSeq ${log.durableSeq}`);
        }
      }, (error) => {
        if (!(error instanceof LogError)) throw error;
      }),
    );
    return last;
  }

  async #snapshot(log: Log): Promise<void> {
    const covers = log.lastSeq - Math.floor(this.#random() * 3);
    if (covers < 1) return;
    const records = this.#history.slice(0, covers);
    const writing = log.snapshot(this.#random() < 0.5 ? records : toAsync(records), covers);
    writing.catch(() => {});
    this.#append(log, 1 + Math.floor(this.#random() * 4));
    await writing;
    this.#onDisk = Math.max(this.#onDisk, covers);
  }

  async #settle(): Promise<void> {
    const log = this.#log;
    if (log !== undefined && (log.failed !== undefined || this.#fs.faulted)) {
      await log.close().catch((error) => {
        if (!(error instanceof LogError)) throw error;
      });
      this.#log = undefined;
    }
    await Promise.all(this.#waits.splice(0));
  }

  async #open(): Promise<void> {
    const found: Uint8Array[] = [];
    let covered = 0;
    const log = await openLog({
      fs: this.#fs,
      directory: DIRECTORY,
      durability: this.#trial.durability,
      intervalMs: 1,
      segmentBytes: SEGMENT_BYTES,
      salt: () => this.#trial.seed,
      clock: { now: () => 0, wallMs: () => 1_700_000_000_000 },
      onSnapshot: (record) => {
        found.push(record);
        covered++;
      },
      onRecord: (payload, seq) => {
        found.push(payload);
        if (seq !== found.length) {
          throw new Error(`record ${seq} came as number ${found.length}, after ${covered} covered`);
        }
      },
    });
    this.#log = log;
    if (log.lastSeq !== found.length || log.durableSeq !== found.length) {
      throw new Error(
        `lastSeq ${log.lastSeq} and durableSeq ${log.durableSeq} after ${found.length} records`,
      );
    }
    if (found.length < this.#acknowledged) {
      throw new Error(`${this.#acknowledged} records were acknowledged, ${found.length} are there`);
    }
    if (found.length > this.#history.length) {
      throw new Error(`${found.length} of ${this.#history.length} records`);
    }
    found.forEach((record, i) => {
      if (!sameBytes(record, this.#history[i]!)) throw new Error(`record ${i + 1} has other bytes`);
    });
    this.#history.length = found.length;
    this.#onDisk = this.#acknowledged = found.length;
  }

  #payload(): Uint8Array {
    const luck = this.#random();
    const payload = new Uint8Array(
      1 + Math.floor(this.#random() * (luck < 0.02 ? 3 * SEGMENT_BYTES : luck < 0.3 ? 400 : 40)),
    );
    const fill = Math.floor(this.#random() * 256);
    // Runs of equal bytes, zeros among them, are where a checksum could be fooled.
    for (let i = 0; i < payload.length; i++) {
      payload[i] = luck > 0.6 ? fill & (i % 3) : Math.floor(this.#random() * 256);
    }
    return payload;
  }
}

async function* toAsync(records: Uint8Array[]): AsyncIterable<Uint8Array> {
  for (const record of records) {
    yield record;
    await Promise.resolve();
  }
}

/** Whether two arrays hold the same bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
