/** The index in memory: state.ts over values that are in the file. Writes are held back until the end of the group, so that
 *  a change that is undone, or refused, never reaches the file. */
import { type Database, SqliteError, type Statement } from "../../../../storage/sqlite/mod.ts";
import { KvError } from "../../errors.ts";
import type { RowValues } from "../../row_values.ts";
import { MvccState } from "../../state.ts";
import type { GroupWriter, SqliteStore } from "./store.ts";
import { leaseOfSql, leaseToSql, Meta, readNewest } from "./tables.ts";

/** What a value takes in the file besides its bytes, about: the numbers of its row and its place in the page. */
const STORED_OVERHEAD_BYTES = 32;
/** Rows read at a time while opening. */
const LOAD_ROWS = 2_048;
const GROWTH = 1.5;
const NO_BYTES = new Uint8Array(0);

/** Opens the state on a file without the index of keys. */
export function openMemoryIndex(database: Database, store: SqliteStore, seed: number): MvccState {
  const values = new SqliteValues(database, () => store.schedule());
  const state = new MvccState(seed, values);
  const newest = readNewest(database);
  state.beginLoad(newest.revision, new Meta(database).number("compact_revision"));
  state.deferOrder(true);
  load(database, state, values);
  state.deferOrder(false);
  store.writer = new HeldRows(database, state, values, newest.id + 1);
  return state;
}

function load(database: Database, state: MvccState, values: SqliteValues): void {
  const next = database.prepare(
    "SELECT id, mod, sub, created, version, CAST(lease AS TEXT), key, length(value) FROM rows " +
      `WHERE id > ? ORDER BY id LIMIT ${LOAD_ROWS}`,
  );
  for (let after = 0;;) {
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
    if (rows.length < LOAD_ROWS) return;
    after = rows.at(-1)![0] as number;
  }
}

/** Values by the id of their row in the file; those of the open group are in memory. */
class SqliteValues implements RowValues {
  usedBytes = 0;
  /** Ids of rows that are in the file and that nobody needs any more. */
  readonly garbage: number[] = [];
  readonly #onGarbage: () => void;
  readonly #read: Statement;
  /** Id of the row at each address; -1 - n for the n-th held value. */
  #ids: Float64Array = new Float64Array(1_024);
  #addresses = 0;
  readonly #free: number[] = [];
  /** Values of the open group. Bounded by the store's pending bytes. */
  #held: (Uint8Array | undefined)[] = [];

  constructor(database: Database, onGarbage: () => void) {
    this.#read = database.prepare("SELECT value FROM rows WHERE id = ?");
    this.#onGarbage = onGarbage;
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
    else {
      this.garbage.push(id);
      this.#onGarbage();
    }
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

/** Writes the rows of a group, and deletes those that were purged. */
class HeldRows implements GroupWriter {
  readonly #state: MvccState;
  readonly #values: SqliteValues;
  readonly #insert: Statement;
  readonly #delete: Statement;
  readonly #pageBytes: number;
  /** Index in history of the first row that is not in the file. */
  #next: number;
  #nextId: number;

  constructor(database: Database, state: MvccState, values: SqliteValues, nextId: number) {
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
    }
    values.release();
    const deleted = values.garbage.length;
    for (const id of values.garbage) this.#delete.run(id);
    values.garbage.length = 0;
    return Math.ceil(bytes / this.#pageBytes) + deleted + 1;
  }

  /** Rows that never became durable stay in the index, where nobody is shown them. */
  undone(): void {}
}
