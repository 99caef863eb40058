/** One document that is open: all that is known of it in memory, with what is under way to the store. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Random } from "../runtime/random.ts";
import { accessOf, nameOf } from "./access.ts";
import { Content } from "./crdt/content.ts";
import { decodeStateVector, encodeStateVector, mergeUpdates, parseUpdateMeta } from "./crdt/yjs.ts";
import { StateSyncError } from "./errors.ts";
import type { AccessLevel, LiveClient, LiveListener } from "./live.ts";
import { DocumentLocks } from "./locks.ts";
import { RecentEdits } from "./recent_edits.ts";
import type { DocumentRecord, Entry, StoredEntry } from "./records.ts";
import { SharedState } from "./shared_state.ts";
import type { Change, LoadedDocument } from "./store.ts";

/** What an open document takes in memory besides its content, in bytes: about what an empty Yjs document has. */
const FIXED_BYTES = 4_096;

/** Updates of one client that may become one entry, and their bytes. */
const JOINED_UPDATES_MAX = 256;
const JOINED_BYTES_MAX = 262_144;

/** An entry of a client's edits that waits for the store: what the client sends meanwhile becomes part of it. */
interface OpenEntry {
  readonly client: LiveClient;
  readonly entry: { -readonly [Field in keyof Entry]: Entry[Field] };
  readonly updates: Uint8Array[];
  bytes: number;
}

/** Waits for what was under way: true when it is kept, false when it was lost to somebody else's change. */
interface Waiter {
  readonly at: number;
  resolve(isKept: boolean): void;
  reject(error: Error): void;
}

/** The document. */
export class OpenDocument {
  readonly id: string;
  /** With what is under way. */
  record: DocumentRecord;
  content: Content;
  locks: DocumentLocks;
  edits: RecentEdits;
  shared: SharedState;
  /** As it is kept. */
  kept: DocumentRecord;
  oldestOffset: number;
  /** Where the newest snapshot lies; 0: there is none. */
  snapshotOffset: number;
  /** Bytes of the encoded content, at most: what it had when it was last encoded, and the updates since. */
  stateBytes: number;
  /** Whether these are exactly as many as there are. */
  hasExactSize = false;
  /** Raised when the document is read anew: what was decided before counts no more. */
  generation = 0;
  /** Why it can be used no more. */
  failure: Error | undefined;
  /** Its removal is under way, or done. */
  isRemoved = false;
  /** The newest offset that others are known to have written. */
  knownOffset = 0;
  /** While it is read anew, or catches up with others' changes. */
  reloading: Promise<void> | undefined;
  /** A snapshot or a compaction is under way. */
  isKeeping = false;
  /** Clients that have it open, and what each may do. */
  readonly clients = new Map<LiveClient, AccessLevel>();
  readonly listeners = new Set<LiveListener>();
  /** Clients that a lock refused. */
  readonly refused = new Set<LiveClient>();
  /** Clients that have it open, by user. */
  readonly users = new Map<string, number>();
  /** Users of whom an entry says that they have it open. */
  readonly announced = new Set<string>();
  isAnnouncing = false;
  /** Conflicts that were decided by what is under way, or has been since the last time that nothing was. */
  readonly decided = new Set<string>();
  /** Neighbours in the order of use. */
  newer: OpenDocument | undefined;
  older: OpenDocument | undefined;
  /** What its size was counted with. */
  countedBytes = 0;
  /** Entries of operations under way, by key: the store does not know them yet. */
  readonly #pendingKeys = new Map<string, Entry>();
  #openEntry: OpenEntry | undefined;
  #begun = 0;
  #ended = 0;
  #waiters: Waiter[] = [];
  /** Entries with updates under way, in their order. */
  #underWay: Entry[] = [];
  #keptVector: Uint8Array | undefined;
  /** Kept updates that listeners were not told of. */
  #untold: Uint8Array[] = [];

  constructor(loaded: LoadedDocument, private readonly random: Random) {
    this.id = loaded.record.id;
    this.record = loaded.record;
    this.kept = loaded.record;
    this.content = Content.load(loaded.record.type, loaded, random);
    this.locks = new DocumentLocks(loaded.locks);
    this.edits = new RecentEdits(loaded.record.version);
    this.shared = sharedOf(this.content, loaded);
    this.oldestOffset = loaded.oldestOffset;
    this.snapshotOffset = loaded.snapshot?.offset ?? 0;
    this.stateBytes = bytesOf(loaded);
  }

  /** Bytes that count towards statesync.openBytesMax. */
  get bytes(): number {
    return FIXED_BYTES + this.stateBytes + this.shared.bytes + this.edits.bytes;
  }

  /** Writes under way. */
  get pending(): number {
    return this.#begun - this.#ended;
  }

  /** State vector of what is kept: what is under way may be lost, and a client that was told of it would not send it again.
   *  The array is shared. */
  keptVector(): Uint8Array {
    if (this.#underWay.length === 0) return this.shared.vector();
    return this.#keptVector ??= this.#withoutUnderWay();
  }

  /** Whether nobody would miss it in memory. */
  get isUnused(): boolean {
    return this.pending === 0 && this.clients.size === 0 && !this.isAnnouncing && !this.isKeeping &&
      this.reloading === undefined && this.#waiters.length === 0;
  }

  /** The operation of that key, if it is under way. */
  pendingByKey(key: string): Entry | undefined {
    return this.#pendingKeys.get(key);
  }

  /** Takes a change as made, which is now under way to the store. Its update is part of the content already. */
  begin(change: Change): void {
    this.seal();
    this.#begun++;
    if (change.record === undefined) {
      this.isRemoved = true;
      return;
    }
    let { version } = this.record;
    for (const entry of change.entries) {
      if (entry.update !== undefined) {
        this.#grow(entry.update);
        this.#underWay.push(entry);
      }
      if (entry.version > version) {
        version = entry.version;
        this.edits.add(entry);
      }
      if (entry.operationKey !== undefined) this.#pendingKeys.set(entry.operationKey, entry);
    }
    this.record = change.record;
    this.#applyLocks(change);
  }

  /** Lets the one entry of the change that began last, which has a client's edit, take in what the same client sends until
   *  it goes to the store. */
  leaveOpen(client: LiveClient, { entries }: Change): void {
    const entry = entries[0]!;
    this.#openEntry = { client, entry, updates: [entry.update!], bytes: entry.update!.length };
  }

  /** Makes an update, which the content has already, part of the client's entry that waits; false if there is none. */
  join(client: LiveClient, update: Uint8Array): boolean {
    const open = this.#openEntry;
    if (
      open?.client !== client || open.updates.length >= JOINED_UPDATES_MAX ||
      open.bytes + update.length > JOINED_BYTES_MAX
    ) return false;
    open.updates.push(update);
    open.bytes += update.length;
    this.#grow(update);
    return true;
  }

  /** The entry that waits takes in nothing more. */
  seal(): void {
    const open = this.#openEntry;
    if (open === undefined) return;
    this.#openEntry = undefined;
    if (open.updates.length > 1) open.entry.update = mergeUpdates(open.updates);
  }

  /** All entries that made versions after that one, in their order; undefined when they are not all remembered. */
  editsAfter(version: number): readonly Entry[] | undefined {
    this.seal();
    return this.edits.after(version);
  }

  /** The change is kept. */
  end(change: Change): void {
    if (++this.#ended === this.#begun) {
      this.decided.clear();
      this.edits.settle();
    }
    if (change.record !== undefined) this.kept = change.record;
    for (const { type, userId, operationKey, update } of change.entries) {
      if (update !== undefined) {
        this.#underWay.shift();
        this.#keptVector = undefined;
      }
      if (operationKey !== undefined) this.#pendingKeys.delete(operationKey);
      if (type === "user_joined") this.announced.add(userId);
      else if (type === "user_left") this.announced.delete(userId);
    }
    if (this.listeners.size > 0) {
      for (const { update } of change.entries) if (update !== undefined) this.#untold.push(update);
    }
    if (this.#waiters.length > 0) this.#wakeWaiters();
  }

  /** Resolves when what is under way now is kept: true; false when it was lost, and is to be decided anew. Rejects when the
   *  store would not. */
  settled(): Promise<boolean> {
    if (this.pending === 0) return Promise.resolve(true);
    return new Promise((resolve, reject) => this.#waiters.push({ at: this.#begun, resolve, reject }));
  }

  /** Tells listeners of what was kept since the last time, as one update. */
  tell(): void {
    if (this.#untold.length === 0) return;
    const updates = this.#untold;
    this.#untold = [];
    const update = updates.length === 1 ? updates[0]! : mergeUpdates(updates);
    for (const listener of this.listeners) listener.onUpdate(update);
  }

  /** Takes what the store has in place of what is here. Listeners are told of all of it, since what they have may be more
   *  or less than was kept. */
  reload(loaded: LoadedDocument): void {
    const isOther = loaded.record.offset !== this.kept.offset;
    this.#openEntry = undefined;
    this.generation++;
    this.isRemoved = false;
    this.#begun = this.#ended = 0;
    this.record = this.kept = loaded.record;
    this.content = Content.load(loaded.record.type, loaded, this.random);
    this.locks = new DocumentLocks(loaded.locks);
    this.edits = new RecentEdits(loaded.record.version);
    this.shared = sharedOf(this.content, loaded);
    this.oldestOffset = loaded.oldestOffset;
    this.snapshotOffset = loaded.snapshot?.offset ?? 0;
    this.stateBytes = bytesOf(loaded);
    this.hasExactSize = false;
    this.#pendingKeys.clear();
    this.decided.clear();
    this.#underWay = [];
    if (isOther && this.listeners.size > 0) this.#untold = [...this.shared.whole()];
    for (const waiter of this.#waiters.splice(0)) waiter.resolve(false);
  }

  /** Takes entries that somebody else wrote behind what is kept, with the record after them. Nothing may be under way. */
  catchUp(entries: readonly StoredEntry[], record: DocumentRecord): void {
    this.generation++;
    let { version } = this.record;
    for (const entry of entries) {
      if (entry.update !== undefined) {
        this.content.applyRemote(entry.update);
        this.#grow(entry.update);
        if (this.listeners.size > 0) this.#untold.push(entry.update);
      }
      if (entry.version > version) {
        version = entry.version;
        this.edits.add(entry);
      }
      if (entry.lock !== undefined) {
        if (entry.type === "lock_acquired") this.locks.put(entry.lock);
        else if (entry.type === "lock_released") this.locks.remove(entry.lock);
      }
    }
    this.record = this.kept = record;
  }

  /** It can be used no more: everybody who waits or has it open is told. */
  fail(error: Error): void {
    this.failure ??= error;
    this.#ended = this.#begun;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this.closeClients(error);
  }

  /** Ends it for all who have it open. */
  closeClients(error: Error): void {
    const clients = [...this.clients.keys()];
    this.clients.clear();
    this.refused.clear();
    this.users.clear();
    for (const client of clients) client.onClosed(error);
  }

  /** A client has it open from now on. Returns whether its user had not. */
  enter(client: LiveClient, access: AccessLevel): boolean {
    this.clients.set(client, access);
    const user = nameOf(client.principal);
    const count = this.users.get(user) ?? 0;
    this.users.set(user, count + 1);
    return count === 0;
  }

  /** A client has it open no more. Returns whether its user has not either. */
  leave(client: LiveClient): boolean {
    if (!this.clients.delete(client)) return false;
    this.refused.delete(client);
    const user = nameOf(client.principal);
    const count = (this.users.get(user) ?? 1) - 1;
    if (count > 0) this.users.set(user, count);
    else this.users.delete(user);
    return count === 0;
  }

  /** Whether entries are to be written of who has come or gone. */
  get hasNewUsers(): boolean {
    if (this.users.size !== this.announced.size) return true;
    for (const user of this.users.keys()) if (!this.announced.has(user)) return true;
    return false;
  }

  /** Looks again at what each client may do, and tells those for whom it has changed. Returns whether any left. */
  reviewAccess(): boolean {
    let hasLeft = false;
    for (const [client, before] of [...this.clients]) {
      const access = accessOf(client.principal, this.kept);
      if (access === before) continue;
      if (this.clients.has(client)) this.clients.set(client, access);
      client.onAccess(access);
      if (access !== "none") continue;
      this.leave(client);
      hasLeft = true;
      client.onClosed(new StateSyncError("notFound"));
    }
    return hasLeft;
  }

  /** Lets clients that a lock refused try again. */
  askAgain(): void {
    const clients = [...this.refused];
    this.refused.clear();
    for (const client of clients) client.onAskAgain();
  }

  /** What a caller may do, with what is under way. */
  accessOf(principal: Principal | undefined): AccessLevel {
    return accessOf(principal, this.record);
  }

  #withoutUnderWay(): Uint8Array {
    this.seal();
    const clocks = decodeStateVector(this.shared.vector());
    for (const { update } of this.#underWay) {
      for (const [client, from] of parseUpdateMeta(update!).from) {
        if (from === 0) clocks.delete(client);
        else if (from < (clocks.get(client) ?? 0)) clocks.set(client, from);
      }
    }
    return encodeStateVector(clocks);
  }

  /** The content has an update more. */
  #grow(update: Uint8Array): void {
    this.stateBytes += update.length;
    this.hasExactSize = false;
    this.#keptVector = undefined;
    this.shared.add(update);
    // Nobody is there to be given it.
    if (this.clients.size === 0) this.shared.drop();
  }

  #applyLocks({ putLocks, removeLocks }: Change): void {
    if (removeLocks !== undefined) {
      for (const id of removeLocks) {
        const lock = this.locks.byId(id);
        if (lock !== undefined) this.locks.remove(lock);
      }
    }
    if (putLocks !== undefined) { for (const lock of putLocks) this.locks.put(lock); }
  }

  #wakeWaiters(): void {
    let count = 0;
    while (count < this.#waiters.length && this.#waiters[count]!.at <= this.#ended) count++;
    for (const waiter of this.#waiters.splice(0, count)) waiter.resolve(true);
  }
}

function sharedOf(content: Content, { snapshot, updates }: LoadedDocument): SharedState {
  return new SharedState(content, snapshot?.state, updates.map(({ update }) => update));
}

function bytesOf({ snapshot, updates }: LoadedDocument): number {
  return updates.reduce((bytes, { update }) => bytes + update.length, snapshot?.state.length ?? 0);
}
