/** The index in memory: state.ts over values that are in the file. Writes are held back until the end of the group, so that
 *  a change that is undone, or refused, never reaches the file. */
import { type Database, SqliteError, type SqlRow, type Statement } from "../../../../storage/sqlite/mod.ts";
import { KvError } from "../../errors.ts";
import type { RowValues } from "../../memory/row_values.ts";
import { MvccState } from "../../state.ts";
import type { GroupWriter, SqliteStore } from "./store.ts";
import { leaseOfSql, leaseToSql, Meta, readNewest } from "./tables.ts";

/** What a value takes in the file besides its bytes, about: the numbers of its row and its place in the page. */
const STORED_OVERHEAD_BYTES = 32;
/** Rows read at a time while opening. */
const LOAD_ROWS = 2_048;
/** Values read by one statement. */
const READ_ROWS = 256;
const GROWTH = 1.5;
/** Rows that nobody needs any more stay in the file until they are one in so many, and then go in the order in which they
 *  lie: each page is changed once for several of them, instead of once for each. */
const GARBAGE_SHARE = 8;
/** But at least so many: a sweep of fewer is not worth its pages. */
const GARBAGE_ROWS_MIN = 4_096;
/** Rows that a group sweeps: with about as many pages a few milliseconds. */
const SWEEP_ROWS = 512;
const NO_BYTES = new Uint8Array(0);

/** Opens the state on a file without the index of keys. */
export function openMemoryIndex(database: Database, store: SqliteStore, seed: number): MvccState {
  const values = new SqliteValues(database);
  const state = new MvccState(seed, values);
  const newest = readNewest(database);
  state.beginLoad(newest.revision, new Meta(database).number("compact_revision"));
  state.deferOrder(true);
  const rows = load(database, state, values);
  state.deferOrder(false);
  store.writer = new HeldRows(database, store, state, values, { nextId: newest.id + 1, rows });
  return state;
}

/** Reads every row; returns how many there are. */
function load(database: Database, state: MvccState, values: SqliteValues): number {
  const next = database.prepare(
    "SELECT id, mod, sub, created, version, CAST(lease AS TEXT), key, length(value) FROM rows " +
      `WHERE id > ? ORDER BY id LIMIT ${LOAD_ROWS}`,
  );
  for (let after = 0, count = 0;;) {
    const rows = next.all(after);
    for (const [id, mod, sub, created, version, lease, key, length] of rows) {
      const size = version === 0 ? -1 : length as number;
      state.appendStored(
        key as Uint8Array,
        mod as number,
        sub as number,
        created as number,
        version as number,
        leaseOfSql(lease!),
        values.adopt(id as number, size),
        size,
      );
    }
    count += rows.length;
    if (rows.length < LOAD_ROWS) return count;
    after = rows.at(-1)![0] as number;
  }
}

/** Values by the id of their row in the file; those of the open group are in memory. */
class SqliteValues implements RowValues {
  usedBytes = 0;
  /** Takes the id of a row that is in the file and that nobody needs any more. */
  onGarbage: (id: number) => void;
  /** Those of them that came before anybody took them: while the rows were loaded. */
  readonly early: number[] = [];
  readonly #read: Statement;
  readonly #readMany: Statement;
  /** Id of the row at each address; -1 - n for the n-th held value. */
  #ids: Float64Array = new Float64Array(1_024);
  #addresses = 0;
  readonly #free: number[] = [];
  /** Values of the open group. Bounded by the store's pending bytes. */
  #held: (Uint8Array | undefined)[] = [];

  constructor(database: Database) {
    this.#read = database.prepare("SELECT value FROM rows WHERE id = ?");
    this.#readMany = database.prepare(
      "SELECT wanted.key, rows.value FROM json_each(?) AS wanted CROSS JOIN rows ON rows.id = wanted.value",
    );
    this.onGarbage = (id) => this.early.push(id);
  }

  costOf(length: number): number {
    return length + STORED_OVERHEAD_BYTES;
  }

  store(value: Uint8Array): number {
    this.usedBytes += this.costOf(value.length);
    return this.#hold(value.slice());
  }

  storeTombstone(): number {
    return this.#hold(undefined);
  }

  free(address: number, length: number): void {
    this.usedBytes -= this.costOf(length);
    this.freeTombstone(address);
  }

  freeTombstone(address: number): void {
    const id = this.#ids[address]!;
    if (id < 0) this.#held[-1 - id] = undefined;
    else this.onGarbage(id);
    this.#free.push(address);
  }

  copy(address: number, length: number): Uint8Array {
    const id = this.#ids[address]!;
    if (length === 0) return NO_BYTES;
    if (id < 0) return this.#held[-1 - id]!.slice();
    try {
      return this.#read.get(id)![0] as Uint8Array;
    } catch (error) {
      if (!(error instanceof SqliteError)) throw error;
      throw new KvError("unreadable", error.message, { cause: error });
    }
  }

  copyAll(addresses: readonly number[], lengths: readonly number[]): Uint8Array[] {
    const values: Uint8Array[] = new Array(addresses.length);
    const ids: number[] = [];
    const places: number[] = [];
    for (let i = 0; i < addresses.length; i++) {
      const id = this.#ids[addresses[i]!]!;
      if (lengths[i] === 0 || id < 0) values[i] = this.copy(addresses[i]!, lengths[i]!);
      else {
        ids.push(id);
        places.push(i);
      }
    }
    for (let from = 0; from < ids.length; from += READ_ROWS) {
      for (const [i, value] of this.#find(ids.slice(from, from + READ_ROWS))) {
        values[places[from + (i as number)]!] = value as Uint8Array;
      }
    }
    return values;
  }

  #find(ids: readonly number[]): SqlRow[] {
    try {
      return this.#readMany.all(JSON.stringify(ids));
    } catch (error) {
      if (!(error instanceof SqliteError)) throw error;
      throw new KvError("unreadable", error.message, { cause: error });
    }
  }

  /** Takes the row of an id that is in the file; `length` -1 for a deletion. */
  adopt(id: number, length: number): number {
    if (length >= 0) this.usedBytes += this.costOf(length);
    const address = this.#take();
    this.#ids[address] = id;
    return address;
  }

  /** The value that is held for an address. */
  heldAt(address: number): Uint8Array | undefined {
    return this.#held[-1 - this.#ids[address]!];
  }

  /** The row at the address is in the file now. */
  written(address: number, id: number): void {
    this.#ids[address] = id;
  }

  /** All that was held is in the file. */
  release(): void {
    this.#held = [];
  }

  #hold(value: Uint8Array | undefined): number {
    const address = this.#take();
    this.#ids[address] = -1 - this.#held.length;
    this.#held.push(value);
    return address;
  }

  #take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#addresses === this.#ids.length) {
      const larger = new Float64Array(Math.ceil(this.#addresses * GROWTH));
      larger.set(this.#ids);
      this.#ids = larger;
    }
    return this.#addresses++;
  }
}

/** Writes the rows of a group, and deletes those that were purged when there are enough of them. Until then, and after a
 *  crash, they are what opening finds superseded at the compact revision. */
class HeldRows implements GroupWriter {
  readonly #store: SqliteStore;
  readonly #state: MvccState;
  readonly #values: SqliteValues;
  readonly #insert: Statement;
  readonly #delete: Statement;
  readonly #pageBytes: number;
  /** Index in history of the first row that is not in the file. */
  #next: number;
  #nextId: number;
  /** Rows in the file. */
  #rows: number;
  /** Ids of rows to delete, at most one in GARBAGE_SHARE. */
  #garbage: number[];
  /** Those that are being deleted, the lowest last. */
  #sweep: number[] = [];

  constructor(
    database: Database,
    store: SqliteStore,
    state: MvccState,
    values: SqliteValues,
    { nextId, rows }: { readonly nextId: number; readonly rows: number },
  ) {
    this.#store = store;
    this.#rows = rows;
    this.#garbage = values.early;
    values.onGarbage = (id) => this.#discard(id);
    this.#state = state;
    this.#values = values;
    this.#next = state.historyEnd;
    this.#nextId = nextId;
    this.#pageBytes = database.pragma("page_size") as number;
    this.#insert = database.prepare("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    this.#delete = database.prepare("DELETE FROM rows WHERE id = ?");
  }

  writeGroup(): number {
    const state = this.#state;
    const values = this.#values;
    let bytes = 0;
    for (const end = state.historyEnd; this.#next < end; this.#next++) {
      const row = state.historyAt(this.#next);
      const address = state.addressOf(row);
      const value = values.heldAt(address);
      const key = state.keyOf(row);
      bytes += key.length + (value?.length ?? 0) + STORED_OVERHEAD_BYTES;
      this.#insert.run(
        this.#nextId,
        state.modRevision(row),
        state.subOf(row),
        state.createRevision(row),
        state.version(row),
        leaseToSql(state.leaseOf(row)),
        key,
        value ?? null,
      );
      values.written(address, this.#nextId++);
      this.#rows++;
    }
    values.release();
    const deleted = this.#deleteSome();
    return Math.ceil(bytes / this.#pageBytes) + deleted + 1;
  }

  sweep(): void {
    if (this.#garbage.length === 0) return;
    this.#sweep = this.#sweep.concat(this.#garbage).sort((a, b) => b - a);
    this.#garbage = [];
    this.#store.schedule();
  }

  get isSweeping(): boolean {
    return this.#sweep.length > 0;
  }

  #discard(id: number): void {
    this.#garbage.push(id);
    if (this.isSweeping) return;
    if (this.#garbage.length >= Math.max(GARBAGE_ROWS_MIN, this.#rows / GARBAGE_SHARE)) this.sweep();
  }

  #deleteSome(): number {
    const count = Math.min(this.#sweep.length, SWEEP_ROWS);
    for (let i = 0; i < count; i++) this.#delete.run(this.#sweep.pop()!);
    this.#rows -= count;
    // The rest with the next group, whether or not there is something else to write.
    if (this.isSweeping) this.#store.schedule();
    return count;
  }

  /** Rows that never became durable stay in the index, where nobody is shown them. */
  undone(): void {}
}
