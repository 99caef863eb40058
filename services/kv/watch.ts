/** Watchers: who is told of which changes, in order, exactly once, and never before a change is durable.
 *
 *  A watcher is a cursor into the store's history, not a queue. Publishing a revision only marks the watchers that match
 *  as ready; the events are read from history when the stream's reader takes them. A watcher that falls behind costs
 *  nothing more, and catching up from an old revision is the same work as keeping up. A cursor that compaction overtakes
 *  is cancelled with the compact revision.
 *
 *      idle ── a matching change is durable ──► ready ── take() ──► read history from the cursor
 *        ▲                                        ▲                    │ more to read: to the end of the line
 *        └──── caught up with the newest ─────────┴────────────────────┘ compacted: cancelled */
import { WATCH_CANCEL_REASONS } from "./errors.ts";
import { IntervalTree } from "./interval_tree.ts";
import { compareBytes, fromBinaryString, type KeyRange, toBinaryString } from "./key.ts";
import { Queue } from "./queue.ts";
import type { KeyValue, Mvcc } from "./mvcc.ts";

/** Bounds of watching. */
export interface WatchLimits {
  /** Watchers of all streams together. */
  readonly watchersMax: number;
  /** Bytes after which an answer ends with its revision. */
  readonly batchBytes: number;
  /** Revisions after which an answer ends. */
  readonly batchRevisions: number;
}

/** Rows of history that one `take` may look at for one watcher, so that a watcher of rare keys far behind does not
 *  hold up the others. */
const SCAN_ROWS_MAX = 4_096;

/** What an event takes in a message besides key and value, at most. */
const EVENT_EXTRA_BYTES = 64;

/** Reads without a result that one `take` may do: with SCAN_ROWS_MAX a millisecond or two of work. */
const FRUITLESS_READS_MAX = 16;

/** Answers to create, cancel and progress requests that may wait in a stream before its requests are no longer read. */
export const CONTROL_ANSWERS_MAX = 1_024;

/** What a client asks to be told of. */
export interface WatchCreate {
  readonly key: Uint8Array;
  readonly range: KeyRange | "single";
  /** First revision to deliver; 0 is from now. */
  readonly startRevision: number;
  /** Chosen by the client; 0 lets the stream choose. */
  readonly watchId: bigint;
  readonly prevKv: boolean;
  readonly progressNotify: boolean;
  /** Bytes of an answer at which a revision is split; 0 never splits. A single event may be larger. */
  readonly fragmentBytes: number;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  /** Why it is refused, whatever it asks for: the caller may not. */
  readonly refusal?: string;
}

/** One change of one key. */
export interface WatchEvent {
  readonly kind: "put" | "delete";
  /** After a delete only key and modRevision say something. */
  readonly kv: KeyValue;
  readonly prevKv: KeyValue | undefined;
}

/** One message to the watching client. */
export interface WatchAnswer {
  /** -1 where the answer is about no watcher or all of the stream's. */
  readonly watchId: bigint;
  /** Every matching change up to it was delivered; 0 where compaction cancelled the watcher. */
  readonly revision: number;
  readonly created?: boolean;
  readonly canceled?: boolean;
  /** Set when the watcher asked for, or fell behind to, revisions that are compacted. */
  readonly compactRevision?: number;
  readonly cancelReason?: string;
  /** True on every piece of a split revision but the last. */
  readonly fragment?: boolean;
  readonly events: readonly WatchEvent[];
}

/** A watcher holds no bytes of the request that made it: they would keep the whole message alive. */
interface Watcher {
  readonly id: bigint;
  readonly stream: WatchStream;
  /** The key or range as binary strings, as the tree has it; `end` unused for a single key. */
  readonly start: string;
  readonly end: string | undefined;
  readonly isSingle: boolean;
  readonly prevKv: boolean;
  readonly progressNotify: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly fragmentBytes: number;
  /** Next revision to deliver. */
  cursor: number;
  /** Events of revision `cursor` that were delivered as fragments. */
  cursorEvents: number;
  isReady: boolean;
  isGone: boolean;
  /** Something was sent since the last tick. */
  wasActive: boolean;
}

const NO_WATCHER = -1n;
const NO_EVENTS: readonly WatchEvent[] = [];
const FIRST_KEY = new Uint8Array(1);
const NO_BYTES = new Uint8Array(0);

/** All streams of one store. */
export class WatchHub {
  /** Newest revision that may be shown. */
  revision: number;
  readonly #state: Mvcc;
  readonly #limits: WatchLimits;
  /** Watchers of single keys. Nearly all keys have one: a set for each would double what a watcher takes. */
  readonly #byKey = new Map<string, Watcher | Set<Watcher>>();
  readonly #byRange = new IntervalTree<Watcher>();
  readonly #withProgress = new Set<Watcher>();
  readonly #streams = new Set<WatchStream>();
  #watchers = 0;

  constructor(state: Mvcc, limits: WatchLimits) {
    this.#state = state;
    this.#limits = limits;
    this.revision = state.revision;
  }

  get watcherCount(): number {
    return this.#watchers;
  }

  /** Watchers that are more than `revisions` behind. */
  laggingCount(revisions: number): number {
    let count = 0;
    for (const stream of this.#streams) count += stream.laggingCount(this.revision - revisions);
    return count;
  }

  /** Opens a stream; `onReady` is called, at most once until the next `take`, when there is something to take. */
  openStream(onReady: () => void): WatchStream {
    const stream = new WatchStream(this, this.#state, this.#limits, onReady);
    this.#streams.add(stream);
    return stream;
  }

  /** Shows the revisions up to `revision`: they are durable now. */
  publish(revision: number): void {
    if (revision <= this.revision) return;
    const first = this.revision + 1;
    this.revision = revision;
    if (this.#watchers === 0) return;
    const state = this.#state;
    const end = state.historyEnd;
    for (let index = state.indexOfRevision(first); index < end; index++) {
      const row = state.historyAt(index);
      const rowRevision = state.modRevision(row);
      if (rowRevision > revision) break;
      const key = toBinaryString(state.keyOf(row));
      const watching = this.#byKey.get(key);
      if (watching instanceof Set) { for (const watcher of watching) markReady(watcher, rowRevision); }
      else if (watching !== undefined) markReady(watching, rowRevision);
      if (!this.#byRange.isEmpty) this.#byRange.cover(key, (watcher) => markReady(watcher, rowRevision));
    }
  }

  /** Sends a progress answer to every watcher that asked for it, is caught up and heard nothing since the last tick. */
  tickProgress(): void {
    for (const watcher of this.#withProgress) {
      if (!watcher.wasActive && !watcher.isReady && watcher.cursor <= this.revision + 1) {
        watcher.stream.sendProgress(watcher.id);
      }
      watcher.wasActive = false;
    }
  }

  /** Ends every stream, so that their readers finish. */
  close(): void {
    for (const stream of [...this.#streams]) stream.close();
  }

  /** @internal */
  hasRoom(): boolean {
    return this.#watchers < this.#limits.watchersMax;
  }

  /** @internal */
  register(watcher: Watcher): void {
    this.#watchers++;
    if (watcher.progressNotify) this.#withProgress.add(watcher);
    if (!watcher.isSingle) {
      this.#byRange.add(watcher.start, watcher.end, watcher);
      return;
    }
    const others = this.#byKey.get(watcher.start);
    if (others === undefined) this.#byKey.set(watcher.start, watcher);
    else if (others instanceof Set) others.add(watcher);
    else this.#byKey.set(watcher.start, new Set([others, watcher]));
  }

  /** @internal */
  unregister(watcher: Watcher): void {
    if (watcher.isGone) return;
    watcher.isGone = true;
    this.#watchers--;
    this.#withProgress.delete(watcher);
    if (!watcher.isSingle) {
      this.#byRange.remove(watcher.start, watcher.end, watcher);
      return;
    }
    const others = this.#byKey.get(watcher.start);
    if (others instanceof Set) others.delete(watcher);
    if (!(others instanceof Set) || others.size === 0) this.#byKey.delete(watcher.start);
  }

  /** @internal */
  forget(stream: WatchStream): void {
    this.#streams.delete(stream);
  }
}

/** One client's stream with its watchers. */
export class WatchStream {
  readonly #hub: WatchHub;
  readonly #state: Mvcc;
  readonly #limits: WatchLimits;
  readonly #onReady: () => void;
  readonly #watchers = new Map<bigint, Watcher>();
  readonly #control = new Queue<WatchAnswer>();
  /** Watchers with something to read, in turn; each is in it once at most. */
  readonly #ready = new Queue<Watcher>();
  #nextId = 0n;
  #progressWanted = false;
  #isSignalled = false;
  #isClosed = false;

  /** @internal Use WatchHub.openStream. */
  constructor(hub: WatchHub, state: Mvcc, limits: WatchLimits, onReady: () => void) {
    this.#hub = hub;
    this.#state = state;
    this.#limits = limits;
    this.#onReady = onReady;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** Whether more requests may be read: a client that asks and never listens must stop somewhere. */
  get acceptsRequests(): boolean {
    return this.#control.size < CONTROL_ANSWERS_MAX;
  }

  /** Adds a watcher; the answer (created, or created and canceled with a reason) comes from `take`. */
  create(request: WatchCreate): void {
    if (this.#isClosed) return;
    const refusal = this.#refusal(request);
    if (refusal !== undefined) {
      this.#answer({
        watchId: NO_WATCHER,
        revision: this.#hub.revision,
        created: true,
        canceled: true,
        cancelReason: refusal,
        events: NO_EVENTS,
      });
      return;
    }
    const key = request.key.length === 0 ? FIRST_KEY : request.key;
    const range = request.range === "single" ? "single" : { start: key, end: request.range.end };
    const watcher: Watcher = {
      id: request.watchId === 0n ? this.#chooseId() : request.watchId,
      stream: this,
      start: toBinaryString(key),
      end: range === "single" || range.end === undefined ? undefined : toBinaryString(range.end),
      isSingle: range === "single",
      prevKv: request.prevKv,
      progressNotify: request.progressNotify,
      noPut: request.noPut,
      noDelete: request.noDelete,
      fragmentBytes: request.fragmentBytes,
      cursor: request.startRevision > 0 ? request.startRevision : this.#hub.revision + 1,
      cursorEvents: 0,
      isReady: false,
      isGone: false,
      wasActive: true,
    };
    this.#watchers.set(watcher.id, watcher);
    this.#hub.register(watcher);
    this.#answer({
      watchId: watcher.id,
      revision: this.#hub.revision,
      created: true,
      events: NO_EVENTS,
    });
    if (watcher.cursor <= this.#hub.revision) this.enqueue(watcher);
  }

  /** Ends a watcher; no answer when there is none with this id. */
  cancel(watchId: bigint): void {
    const watcher = this.#watchers.get(watchId);
    if (watcher === undefined) return;
    this.#drop(watcher);
    this.#answer({ watchId, revision: this.#hub.revision, canceled: true, events: NO_EVENTS });
  }

  /** Asks for a progress answer, sent once everything up to then was delivered to all watchers of the stream. */
  requestProgress(): void {
    this.#progressWanted = true;
    this.#signal();
  }

  /** The next answer; "again" when the turn should go to others before the next `take`; undefined when there is
   *  nothing to say now: `onReady` then says when there is. */
  take(): WatchAnswer | "again" | undefined {
    for (let reads = 0;; reads++) {
      if (reads === FRUITLESS_READS_MAX) return "again";
      const control = this.#control.shift();
      if (control !== undefined) return control;
      const watcher = this.#ready.shift();
      if (watcher === undefined) break;
      if (watcher.isGone) continue;
      const answer = this.#read(watcher);
      if (answer !== undefined) return answer;
    }
    if (this.#progressWanted) {
      this.#progressWanted = false;
      return { watchId: NO_WATCHER, revision: this.#hub.revision, events: NO_EVENTS };
    }
    this.#isSignalled = false;
    return undefined;
  }

  /** Ends all watchers. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const watcher of this.#watchers.values()) this.#hub.unregister(watcher);
    this.#watchers.clear();
    this.#control.clear();
    this.#ready.clear();
    this.#hub.forget(this);
    this.#signal();
  }

  /** @internal */
  laggingCount(below: number): number {
    let count = 0;
    for (const watcher of this.#watchers.values()) {
      if (watcher.isReady && watcher.cursor < below) count++;
    }
    return count;
  }

  /** @internal */
  enqueue(watcher: Watcher): void {
    watcher.isReady = true;
    this.#ready.push(watcher);
    this.#signal();
  }

  /** @internal */
  sendProgress(watchId: bigint): void {
    if (this.#control.size >= CONTROL_ANSWERS_MAX) return;
    this.#answer({ watchId, revision: this.#hub.revision, events: NO_EVENTS });
  }

  #refusal(request: WatchCreate): string | undefined {
    if (request.startRevision < 0) return WATCH_CANCEL_REASONS.compacted;
    if (request.refusal !== undefined) return request.refusal;
    const { range } = request;
    if (range !== "single" && range.end !== undefined && compareBytes(range.end, request.key) <= 0) {
      return WATCH_CANCEL_REASONS.emptyRange;
    }
    if (request.watchId !== 0n && this.#watchers.has(request.watchId)) {
      return WATCH_CANCEL_REASONS.duplicateId;
    }
    return this.#hub.hasRoom() ? undefined : WATCH_CANCEL_REASONS.tooMany;
  }

  #chooseId(): bigint {
    while (this.#watchers.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #answer(answer: WatchAnswer): void {
    this.#control.push(answer);
    this.#signal();
  }

  #signal(): void {
    if (this.#isSignalled) return;
    this.#isSignalled = true;
    this.#onReady();
  }

  #drop(watcher: Watcher): void {
    this.#watchers.delete(watcher.id);
    this.#hub.unregister(watcher);
  }

  /** Reads on for a watcher; undefined when nothing of what was read is for it. */
  #read(watcher: Watcher): WatchAnswer | undefined {
    watcher.isReady = false;
    const state = this.#state;
    if (watcher.cursor < state.compactRevision) {
      this.#drop(watcher);
      return {
        watchId: watcher.id,
        revision: 0, // etcd's, whose clients look at the compact revision only
        canceled: true,
        compactRevision: state.compactRevision,
        events: NO_EVENTS,
      };
    }
    const batch = this.#readBatch(watcher);
    if (watcher.cursor <= this.#hub.revision) this.enqueue(watcher);
    if (batch.events.length === 0) return undefined;
    watcher.wasActive = true;
    return {
      watchId: watcher.id,
      revision: batch.isSplit ? watcher.cursor : watcher.cursor - 1,
      fragment: batch.isSplit,
      events: batch.events,
    };
  }

  /** Collects whole revisions from the cursor on, and moves the cursor. */
  #readBatch(watcher: Watcher): { events: WatchEvent[]; isSplit: boolean } {
    const reader = readerOf(this.#state, watcher, this.#hub.revision);
    const events: WatchEvent[] = [];
    let bytes = 0;
    let revisions = 0;
    for (let rows = reader.next(); rows !== undefined; rows = reader.next()) {
      let index = 0;
      for (const row of rows) {
        const isDelete = this.#state.isTombstone(row);
        if (isDelete ? watcher.noDelete : watcher.noPut) continue;
        index++;
        // What an earlier fragment of this revision delivered.
        if (index <= watcher.cursorEvents) continue;
        const rowBytes = this.#eventBytes(row, watcher.prevKv);
        if (watcher.fragmentBytes > 0 && events.length > 0 && bytes + rowBytes > watcher.fragmentBytes) {
          if (revisions > 0) {
            // The batch ends before this revision; the next one begins with it.
            events.length -= index - 1 - watcher.cursorEvents;
            watcher.cursor = this.#state.modRevision(row);
            return { events, isSplit: false };
          }
          watcher.cursor = this.#state.modRevision(row);
          watcher.cursorEvents = index - 1;
          return { events, isSplit: true };
        }
        bytes += rowBytes;
        events.push(this.#event(row, watcher.prevKv));
      }
      watcher.cursorEvents = 0;
      if (index > 0) revisions++;
      watcher.cursor = reader.nextRevision;
      if (bytes >= this.#limits.batchBytes || revisions >= this.#limits.batchRevisions) {
        return { events, isSplit: false };
      }
    }
    watcher.cursor = reader.nextRevision;
    return { events, isSplit: false };
  }

  #eventBytes(row: number, wantsPrevious: boolean): number {
    const previous = wantsPrevious ? this.#state.previousOf(row) : -1;
    const previousBytes = previous < 0 ? 0 : this.#state.payloadBytes(previous) + EVENT_EXTRA_BYTES;
    return this.#state.payloadBytes(row) + EVENT_EXTRA_BYTES + previousBytes;
  }

  #event(row: number, wantsPrevious: boolean): WatchEvent {
    const change = changeOf(this.#state, row);
    const previous = wantsPrevious ? this.#state.previousOf(row) : -1;
    return previous < 0 ? change : { ...change, prevKv: this.#state.keyValue(previous) };
  }
}

/** The change that a row is, without what was before. */
export function changeOf(state: Mvcc, row: number): WatchEvent {
  if (!state.isTombstone(row)) return { kind: "put", kv: state.keyValue(row), prevKv: undefined };
  const kv = {
    key: state.keyOf(row),
    value: NO_BYTES,
    createRevision: 0,
    modRevision: state.modRevision(row),
    version: 0,
    lease: 0n,
  };
  return { kind: "delete", kv, prevKv: undefined };
}

function readerOf(
  state: Mvcc,
  { start, end, isSingle, cursor }: Watcher,
  to: number,
): KeyReader | RangeReader {
  const first = fromBinaryString(start);
  if (isSingle) return new KeyReader(state, first, cursor, to);
  const range = { start: first, end: end === undefined ? undefined : fromBinaryString(end) };
  return new RangeReader(state, range, cursor, to);
}

function markReady(watcher: Watcher, revision: number): void {
  // A watcher from a future revision on hears nothing before it.
  if (watcher.isReady || revision < watcher.cursor) return;
  // Nothing between the cursor and this change matched, or the watcher would be ready.
  watcher.cursor = revision;
  watcher.stream.enqueue(watcher);
}

/** Rows of a range, one revision at a time, up to SCAN_ROWS_MAX rows of history. */
class RangeReader {
  /** First revision that was not read. */
  nextRevision: number;
  readonly #rows: number[] = [];
  #index: number;
  #budget = SCAN_ROWS_MAX;

  constructor(
    readonly state: Mvcc,
    readonly range: KeyRange,
    from: number,
    readonly to: number,
  ) {
    this.nextRevision = from;
    this.#index = state.indexOfRevision(from);
  }

  next(): readonly number[] | undefined {
    const { state, range } = this;
    const end = state.historyEnd;
    while (this.#budget > 0) {
      if (this.#index >= end) return this.#finish();
      const revision = state.modRevision(state.historyAt(this.#index));
      if (revision > this.to) return this.#finish();
      this.#rows.length = 0;
      for (; this.#index < end; this.#index++, this.#budget--) {
        const row = state.historyAt(this.#index);
        if (state.modRevision(row) !== revision) break;
        if (state.isRowWithin(row, range)) this.#rows.push(row);
      }
      this.nextRevision = revision + 1;
      if (this.#rows.length > 0) return this.#rows;
    }
    return undefined;
  }

  #finish(): undefined {
    this.nextRevision = this.to + 1;
  }
}

/** Rows of one key, one revision at a time: a key changes at most once in a revision. */
class KeyReader {
  nextRevision: number;
  readonly #rows: number[] = [];
  readonly #one: number[] = [0];
  #index = 0;

  constructor(readonly state: Mvcc, key: Uint8Array, from: number, readonly to: number) {
    this.nextRevision = from;
    state.rowsOfKey(key, from, to, this.#rows);
  }

  next(): readonly number[] | undefined {
    const row = this.#rows[this.#index++];
    if (row === undefined) {
      this.nextRevision = this.to + 1;
      return undefined;
    }
    this.nextRevision = this.state.modRevision(row) + 1;
    this.#one[0] = row;
    return this.#one;
  }
}
