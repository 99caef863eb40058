import type { LogFile, LogFs, LogLock } from "../log/mod.ts";

/** What happens at the chosen operation. `eio` and `enospc`: it fails, a write perhaps after taking a part; the disk
 *  stays full after `enospc` until `freeSpace`. `short`: a read or write does less than asked, as it may. `crash`: the
 *  machine loses power in the middle of it. `kill`: the process dies in the middle of it, the page cache lives. */
export type Fault = "eio" | "enospc" | "short" | "crash" | "kill";

/** A file system in memory that tells what is on disk from what is only in the page cache, and fails on request.
 *
 *  Harsher than real ones where they differ: without a sync any 64-byte page of a file may be on disk or not, in any
 *  order and torn within; a file's length may be the old one, the new one or between; names are durable only after
 *  `syncDirectory`, each on its own; and a failed sync keeps a random part, while its pages count as clean. */
export interface FaultFs extends LogFs {
  /** Operations done so far, all files together. */
  readonly operations: number;
  /** Whether the fault came to pass. */
  readonly faulted: boolean;
  /** Says that operation number `operation` (counted from 1, from now on) shall end in `fault`. */
  arm(operation: number, fault: Fault): void;
  /** Ends an `enospc`. */
  freeSpace(): void;
  /** Ends every open handle and lock, as the death of the process does. With `powerLoss` only what was synced is kept
   *  for certain. The file system then works again. */
  restart(powerLoss: boolean): void;
  /** Content of a file, as a reader sees it; for tests that damage it. */
  readFile(path: string): Uint8Array;
  /** Puts a file there, durably. */
  writeFile(path: string, bytes: Uint8Array): void;
  /** Paths of all files. */
  paths(): string[];
}

/** Makes an empty one. The same seed and the same calls give the same outcome. */
export function createFaultFs(seed: number): FaultFs {
  return new MemoryFs(seed);
}

/** A small seeded generator of numbers in [0, 1) (mulberry32). */
export function createPrng(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const PAGE_BYTES = 64;

/** One change of names: what a path shall point to. A rename is two of them that stand or fall together. */
type NameChange = [path: string, inode: Inode | undefined][];

class MemoryFs implements FaultFs {
  operations = 0;
  faulted = false;
  /** Grows with every restart; a handle of an older life is dead. */
  life = 0;
  readonly random: () => number;
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #pendingNames: NameChange[] = [];
  #locks = new Set<string>();
  #armed: { operation: number; fault: Fault } | undefined;
  #full = false;
  #dead = false;

  constructor(seed: number) {
    this.random = createPrng(seed);
  }

  arm(operation: number, fault: Fault): void {
    this.operations = 0;
    this.faulted = false;
    this.#armed = { operation, fault };
  }

  freeSpace(): void {
    this.#full = false;
  }

  restart(powerLoss: boolean): void {
    this.life++;
    this.#dead = false;
    this.#armed = undefined;
    this.#locks.clear();
    if (!powerLoss) return;
    this.#settleNames();
    this.#names = new Map(this.#durableNames);
    for (const inode of new Set(this.#names.values())) inode.losePower(this.random);
  }

  readFile(path: string): Uint8Array {
    return this.#inode(path).current.slice();
  }

  writeFile(path: string, bytes: Uint8Array): void {
    const inode = new Inode();
    inode.write(0, bytes);
    inode.sync();
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  async makeDirectory(): Promise<void> {
    await this.step();
  }

  async list(directory: string): Promise<string[]> {
    await this.step();
    const inside = [...this.#names.keys()].filter((path) => directoryOf(path) === directory);
    // Directories are in no order.
    return inside.map((path) => path.slice(directory.length + 1)).sort(() => this.random() - 0.5);
  }

  async open(path: string, mode: "read" | "update" | "create"): Promise<LogFile> {
    const fault = this.begin(mode === "create");
    await this.finish(fault);
    if (mode === "create" && !this.#names.has(path)) this.#change([[path, new Inode()]]);
    const inode = this.#inode(path);
    if (mode === "create") inode.truncate(0);
    return new MemoryFile(this, inode);
  }

  async rename(from: string, to: string): Promise<void> {
    const fault = this.begin(false);
    const inode = this.#inode(from);
    if (fault === undefined || this.#halfDone(fault)) this.#change([[from, undefined], [to, inode]]);
    await this.finish(fault);
  }

  async remove(path: string): Promise<void> {
    const fault = this.begin(false);
    this.#inode(path);
    if (fault === undefined || this.#halfDone(fault)) this.#change([[path, undefined]]);
    await this.finish(fault);
  }

  async syncDirectory(directory: string): Promise<void> {
    const fault = this.begin(false);
    if (fault === undefined || fault === "short") {
      // All of the names here lie in one directory.
      if (this.#pendingNames.some((change) => directoryOf(change[0]![0]) !== directory)) {
        throw new Error(`FaultFs knows one directory at a time, not ${directory}`);
      }
      this.#durableNames = new Map(this.#names);
      this.#pendingNames = [];
    } else this.#settleNames();
    await this.finish(fault);
  }

  async lock(path: string): Promise<LogLock | undefined> {
    await this.step();
    if (this.#locks.has(path)) return undefined;
    this.#locks.add(path);
    const { life } = this;
    return {
      release: () => {
        if (life === this.life) this.#locks.delete(path);
      },
    };
  }

  /** Counts an operation; returns the fault that it shall end in. A dead machine throws at once. */
  begin(needsSpace: boolean): Fault | undefined {
    if (this.#dead) throw new Error("the machine is down");
    this.operations++;
    const armed = this.#armed;
    if (armed !== undefined && this.operations === armed.operation) {
      this.#armed = undefined;
      this.faulted = true;
      if (armed.fault === "enospc") this.#full = true;
      else return armed.fault;
    }
    return needsSpace && this.#full ? "enospc" : undefined;
  }

  /** Ends the operation: with the fault's error, or after a while. */
  async finish(fault: Fault | undefined): Promise<void> {
    if (fault !== undefined && fault !== "short") throw this.errorOf(fault);
    // Sometimes another turn of the loop comes first, as with a real disk.
    if (this.random() < 0.3) await new Promise<void>((resolve) => setImmediate(resolve));
  }

  errorOf(fault: Exclude<Fault, "short">): Error {
    if (fault === "eio") return new Error("Input/output error (os error 5)");
    if (fault === "enospc") return new Error("No space left on device (os error 28)");
    this.#dead = true;
    return new Error("the machine is down");
  }

  async step(): Promise<void> {
    await this.finish(this.begin(false));
  }

  #halfDone(fault: Fault): boolean {
    return fault === "short" || ((fault === "crash" || fault === "kill") && this.random() < 0.5);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw new Error(`No such file or directory (os error 2): ${path}`);
    return inode;
  }

  #change(change: NameChange): void {
    applyNames(this.#names, change);
    this.#pendingNames.push(change);
  }

  /** Some of the pending changes of names reach the disk: the first few, or any of them. */
  #settleNames(): void {
    const inOrder = this.random() < 0.5;
    const first = Math.floor(this.random() * (this.#pendingNames.length + 1));
    this.#pendingNames.forEach((change, i) => {
      if (inOrder ? i < first : this.random() < 0.5) applyNames(this.#durableNames, change);
    });
    this.#pendingNames = [];
  }
}

class MemoryFile implements LogFile {
  readonly #fs: MemoryFs;
  readonly #inode: Inode;
  readonly #life: number;
  #at = 0;
  #open = true;

  constructor(fs: MemoryFs, inode: Inode) {
    this.#fs = fs;
    this.#inode = inode;
    this.#life = fs.life;
  }

  async size(): Promise<number> {
    await this.#step();
    return this.#inode.current.length;
  }

  async seek(offset: number): Promise<void> {
    await this.#step();
    this.#at = offset;
  }

  async read(into: Uint8Array): Promise<number> {
    const fault = this.#begin(false);
    await this.#fs.finish(fault);
    let part = this.#inode.current.subarray(this.#at, this.#at + into.length);
    if (fault === "short") part = part.subarray(0, Math.ceil(part.length * this.#fs.random()) || part.length);
    into.set(part);
    this.#at += part.length;
    return part.length;
  }

  async write(bytes: Uint8Array): Promise<number> {
    const written = this.writeSync(bytes);
    await this.#fs.finish(undefined);
    return written;
  }

  writeSync(bytes: Uint8Array): number {
    const fault = this.#begin(true);
    const taken = fault === undefined
      ? bytes.length
      : Math.max(fault === "short" ? 1 : 0, Math.floor(bytes.length * this.#fs.random()));
    this.#inode.write(this.#at, bytes.subarray(0, taken));
    this.#at += taken;
    if (fault !== undefined && fault !== "short") throw this.#fs.errorOf(fault);
    return taken;
  }

  async truncate(length: number): Promise<void> {
    const fault = this.#begin(false);
    if (fault === undefined || fault === "short") this.#inode.truncate(length);
    await this.#fs.finish(fault);
  }

  async syncData(): Promise<void> {
    const fault = this.#begin(false);
    // What is written while the sync runs is not part of it.
    const settle = this.#inode.beginSync();
    if (fault === undefined || fault === "short") {
      await this.#fs.finish(fault);
      this.#requireAlive();
      settle();
    } else {
      this.#inode.failSync(this.#fs.random);
      throw this.#fs.errorOf(fault);
    }
  }

  syncDataSync(): void {
    const fault = this.#begin(false);
    if (fault === undefined || fault === "short") this.#inode.sync();
    else {
      this.#inode.failSync(this.#fs.random);
      throw this.#fs.errorOf(fault);
    }
  }

  close(): void {
    if (this.#life === this.#fs.life && !this.#open) throw new Error("closed twice");
    this.#open = false;
  }

  async #step(): Promise<void> {
    await this.#fs.finish(this.#begin(false));
  }

  #begin(needsSpace: boolean): Fault | undefined {
    this.#requireAlive();
    if (!this.#open) throw new Error("used after close");
    return this.#fs.begin(needsSpace);
  }

  #requireAlive(): void {
    if (this.#life !== this.#fs.life) throw new Error("the machine is down");
  }
}

/** The content of a file: as readers see it, and as the disk has it. */
class Inode {
  current: Uint8Array = new Uint8Array(0);
  #durable: Uint8Array = new Uint8Array(0);
  /** Pages that differ, or may, with the number of the change that made them so. */
  #dirty = new Map<number, number>();
  #changes = 0;
  /** Whether the file became shorter since the last sync; else a sync never makes it so. */
  #cut = false;

  write(at: number, bytes: Uint8Array): void {
    const end = at + bytes.length;
    if (end > this.current.length) {
      const longer = new Uint8Array(end);
      longer.set(this.current);
      this.current = longer;
    }
    this.current.set(bytes, at);
    this.#touch(at, end);
  }

  truncate(length: number): void {
    const before = this.current.length;
    const other = new Uint8Array(length);
    other.set(this.current.subarray(0, length));
    this.current = other;
    if (length < before) this.#cut = true;
    this.#touch(Math.min(before, length), Math.max(before, length));
  }

  sync(): void {
    this.beginSync()();
  }

  /** Takes what is dirty now; the function returned puts it on disk. Until then it counts as not there. */
  beginSync(): () => void {
    const content = this.current.slice();
    const taken = new Map(this.#dirty);
    return () => {
      const length = this.#cut ? content.length : Math.max(content.length, this.#durable.length);
      this.#persist(content, taken.keys(), length, () => 1);
      for (const [page, change] of taken) if (this.#dirty.get(page) === change) this.#dirty.delete(page);
      this.#cut = false;
    };
  }

  /** A random part reaches the disk, and the kernel takes all of it for clean. */
  failSync(random: () => number): void {
    this.#persist(this.current, this.#dirty.keys(), this.#someLength(random), random);
    this.#dirty.clear();
    this.#cut = false;
  }

  losePower(random: () => number): void {
    this.failSync(random);
    this.current = this.#durable.slice();
  }

  /** Puts pages on disk: whole where `random` gives over 0.4, torn or not at all below. */
  #persist(content: Uint8Array, pages: Iterable<number>, length: number, random: () => number): void {
    const next = new Uint8Array(length);
    next.set(this.#durable.subarray(0, length));
    for (const page of pages) {
      const luck = random();
      const bytes = luck > 0.4 ? PAGE_BYTES : luck > 0.2 ? Math.floor(random() * PAGE_BYTES) : 0;
      const start = page * PAGE_BYTES;
      const end = Math.min(start + bytes, length, content.length);
      if (end > start) next.set(content.subarray(start, end), start);
    }
    this.#durable = next;
  }

  #someLength(random: () => number): number {
    const before = this.#durable.length, after = this.current.length;
    if (this.#dirty.size === 0) return before;
    const choice = random();
    if (choice < 0.3) return before;
    if (choice < 0.6) return after;
    return before + Math.floor((after - before) * random());
  }

  #touch(start: number, end: number): void {
    const change = ++this.#changes;
    for (let page = Math.floor(start / PAGE_BYTES); page * PAGE_BYTES < end; page++) {
      this.#dirty.set(page, change);
    }
  }
}

function applyNames(names: Map<string, Inode>, change: NameChange): void {
  for (const [path, inode] of change) {
    if (inode === undefined) names.delete(path);
    else names.set(path, inode);
  }
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}
