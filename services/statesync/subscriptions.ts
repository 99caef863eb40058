/** Who is told of what happens: cursors into the entries that the store keeps. A subscription holds no entries of its own, so
 *  that a slow one costs nothing; it is told of what is kept, once and in order, or that it must read anew. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { RecentMap } from "../runtime/recent_map.ts";
import { accessOf } from "./access.ts";
import { StateSyncError } from "./errors.ts";
import type { DocumentRecord, StoredEntry } from "./records.ts";
import type { Awaitable, DocumentStore } from "./store.ts";

/** Entries that a subscription reads at once. */
const ENTRIES_PER_READ = 256;
/** Documents of which a subscription of many remembers whether its caller may read them. */
const REMEMBERED_DOCUMENTS = 1_000;

/** What subscriptions need. */
export interface SubscriptionsDeps {
  readonly store: Pick<DocumentStore, "entries" | "entriesBySequence" | "sequences" | "epoch">;
  /** Subscribers at a time. */
  readonly max: number;
  readonly newId: () => string;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  /** A document as it is kept. */
  readonly recordOf: (docId: string) => Awaitable<DocumentRecord | undefined>;
}

/** All subscriptions. */
export class Subscriptions {
  readonly #deps: SubscriptionsDeps;
  readonly #byId = new Map<string, Subscription>();
  readonly #ofDocument = new Map<string, Set<Subscription>>();
  readonly #ofAll = new Set<Subscription>();
  #isClosed = false;

  constructor(deps: SubscriptionsDeps) {
    this.#deps = deps;
  }

  /** Subscribers now. */
  get size(): number {
    return this.#byId.size;
  }

  /** Subscribes to a document whose record the caller was found to be allowed to read. `startOffset` 0 is from now on.
   *  @throws {StateSyncError} `eventsGone`, `tooMany`, `stopped` */
  async ofDocument(
    principal: Principal | undefined,
    record: DocumentRecord,
    startOffset: number,
    epoch: string,
  ): Promise<Subscription> {
    const { store } = this.#deps;
    this.#checkRoom();
    this.#checkEpoch(epoch);
    const start = startOffset === 0 ? record.offset + 1 : startOffset;
    if (start <= record.offset) {
      const [first] = await store.entries(record.id, start, 1);
      if (first?.offset !== start) throw gone(`offset ${start} is compacted away`);
    } else if (start > record.offset + 1) {
      throw gone(`start_offset is ${start}, the last offset is ${record.offset}`);
    }
    return this.#add(principal, record.id, start);
  }

  /** Subscribes to the events of all documents that the caller may read (undefined: of all there are). `startSequence` 0
   *  is from now on.
   *  @throws {StateSyncError} `eventsGone`, `tooMany`, `stopped` */
  async ofAll(reader: Principal | undefined, startSequence: number, epoch: string): Promise<Subscription> {
    this.#checkRoom();
    this.#checkEpoch(epoch);
    const { last, oldest } = await this.#deps.store.sequences();
    const start = startSequence === 0 ? last + 1 : startSequence;
    if (start > last + 1) throw gone(`start_sequence is ${start}, the last one is ${last}`);
    if (start <= last && start < oldest) {
      throw gone(`start_sequence is ${start}, the oldest kept is ${oldest}`);
    }
    return this.#add(reader, undefined, start);
  }

  /** Ends a subscription of a document; false if there is none that the caller may end. */
  end(docId: string, id: string, mayEnd: (subscription: Subscription) => boolean): boolean {
    const subscription = this.#byId.get(id);
    if (subscription === undefined || subscription.docId !== docId || !mayEnd(subscription)) return false;
    subscription.close();
    return true;
  }

  /** Says that a document has new entries, and with it all documents together. */
  tell(docId: string): void {
    const subscriptions = this.#ofDocument.get(docId);
    if (subscriptions !== undefined) { for (const subscription of subscriptions) subscription.wake(); }
  }

  /** Says that some document has new entries. */
  tellAll(): void {
    for (const subscription of this.#ofAll) subscription.wake();
  }

  /** Lets everybody look again. */
  wakeEverybody(): void {
    for (const subscription of this.#byId.values()) subscription.wake();
  }

  /** Ends all. Idempotent. */
  close(): void {
    this.#isClosed = true;
    for (const subscription of [...this.#byId.values()]) subscription.stop();
  }

  #add(principal: Principal | undefined, docId: string | undefined, start: number): Subscription {
    // It was awaited since the first look.
    this.#checkRoom();
    const id = this.#deps.newId();
    const subscription = new Subscription(this.#deps, {
      id,
      principal,
      docId,
      start,
      onLeft: () => {
        this.#byId.delete(id);
        if (docId === undefined) return void this.#ofAll.delete(subscription);
        const others = this.#ofDocument.get(docId);
        others?.delete(subscription);
        if (others?.size === 0) this.#ofDocument.delete(docId);
      },
    });
    this.#byId.set(id, subscription);
    if (docId === undefined) this.#ofAll.add(subscription);
    else {
      const others = this.#ofDocument.get(docId);
      if (others === undefined) this.#ofDocument.set(docId, new Set([subscription]));
      else others.add(subscription);
    }
    return subscription;
  }

  #checkRoom(): void {
    if (this.#isClosed) throw new StateSyncError("stopped");
    const { max } = this.#deps;
    if (this.#byId.size >= max) {
      throw new StateSyncError("tooMany", `${max} subscribers (statesync.subscribersMax)`);
    }
  }

  #checkEpoch(epoch: string): void {
    if (epoch !== "" && epoch !== this.#deps.store.epoch) {
      throw gone(`epoch is ${epoch.slice(0, 64)}, the present one is ${this.#deps.store.epoch}`);
    }
  }
}

interface SubscriptionStart {
  readonly id: string;
  readonly principal: Principal | undefined;
  readonly docId: string | undefined;
  /** Offset, or sequence, of what it is told first. */
  readonly start: number;
  readonly onLeft: () => void;
}

/** One subscriber's place. */
export class Subscription {
  readonly id: string;
  readonly principal: Principal | undefined;
  /** Undefined: all documents. */
  readonly docId: string | undefined;
  readonly #deps: SubscriptionsDeps;
  readonly #onLeft: () => void;
  readonly #mayRead = new RecentMap<string, boolean>(REMEMBERED_DOCUMENTS);
  #next: number;
  /** Whether the last read was full, so that more is to be expected. */
  #isBehind = false;
  #isOpen = true;
  #isStopped = false;
  /** Raised by each wake, so that one which comes while the store is asked is not missed. */
  #wakes = 0;
  #wake: (() => void) | undefined;

  /** Use `Subscriptions`. */
  constructor(deps: SubscriptionsDeps, start: SubscriptionStart) {
    this.#deps = deps;
    this.id = start.id;
    this.principal = start.principal;
    this.docId = start.docId;
    this.#next = start.start;
    this.#onLeft = start.onLeft;
  }

  /** Offset, or sequence, before the next one that it is told. */
  get position(): number {
    return this.#next - 1;
  }

  /** What happened next, as soon as something has; undefined at the end.
   *  @throws {StateSyncError} `eventsGone`; `notFound` when the caller may not read the document any more; `stopped` */
  async take(): Promise<readonly StoredEntry[] | undefined> {
    while (this.#isOpen) {
      const wakes = this.#wakes;
      // Who has much to catch up with does it beside others.
      if (this.#isBehind) await this.#deps.pause();
      const entries = await this.#read();
      if (entries.length > 0) return entries;
      if (this.#isBehind) continue;
      if (wakes === this.#wakes && this.#isOpen) await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (this.#isStopped) throw new StateSyncError("stopped");
    return undefined;
  }

  /** There may be more. */
  wake(): void {
    this.#wakes++;
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** The service ends. */
  stop(): void {
    this.#isStopped = true;
    this.close();
  }

  /** Gives the place back. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#onLeft();
    this.wake();
  }

  async #read(): Promise<readonly StoredEntry[]> {
    return this.docId === undefined ? await this.#readAll() : await this.#readDocument(this.docId);
  }

  async #readDocument(docId: string): Promise<readonly StoredEntry[]> {
    const entries = await this.#deps.store.entries(docId, this.#next, ENTRIES_PER_READ);
    this.#isBehind = entries.length === ENTRIES_PER_READ;
    if (entries.length === 0) {
      if (await this.#deps.recordOf(docId) === undefined) throw new StateSyncError("notFound");
      return entries;
    }
    if (entries[0]!.offset !== this.#next) {
      throw gone(`the subscriber is at ${this.#next}, the oldest kept is ${entries[0]!.offset}`);
    }
    for (const [i, { document }] of entries.entries()) {
      if (document === undefined || accessOf(this.principal, document) !== "none") continue;
      // What came before it lost the right to read it still is told; then it finds this entry first.
      if (i === 0) throw new StateSyncError("notFound");
      return this.#taken(entries.slice(0, i), "offset");
    }
    return this.#taken(entries, "offset");
  }

  async #readAll(): Promise<readonly StoredEntry[]> {
    const entries = await this.#deps.store.entriesBySequence(this.#next, ENTRIES_PER_READ);
    this.#isBehind = entries.length === ENTRIES_PER_READ;
    if (entries.length === 0) return entries;
    if (entries.at(-1)!.sequence - this.#next >= entries.length) await this.#checkNotCompacted();
    this.#taken(entries, "sequence");
    if (this.principal === undefined) return entries;
    const readable: StoredEntry[] = [];
    for (const entry of entries) if (await this.#isReadable(entry)) readable.push(entry);
    return readable;
  }

  /** What is missing may have been compacted since the last read. */
  async #checkNotCompacted(): Promise<void> {
    const { oldest } = await this.#deps.store.sequences();
    if (this.#next < oldest) throw gone(`the subscriber is at ${this.#next}, the oldest kept is ${oldest}`);
  }

  /** Whether the caller may read the document; that it was deleted is told to those who could until then. */
  async #isReadable({ docId, document }: StoredEntry): Promise<boolean> {
    if (document !== undefined) {
      const active = document.state === "deleted" ? { ...document, state: "active" as const } : document;
      this.#mayRead.set(docId, accessOf(this.principal, document) !== "none");
      return accessOf(this.principal, active) !== "none";
    }
    const known = this.#mayRead.get(docId);
    if (known !== undefined) return known;
    const record = await this.#deps.recordOf(docId);
    const may = record !== undefined && accessOf(this.principal, record) !== "none";
    this.#mayRead.set(docId, may);
    return may;
  }

  #taken(entries: readonly StoredEntry[], by: "offset" | "sequence"): readonly StoredEntry[] {
    this.#next = entries.at(-1)![by] + 1;
    return entries;
  }
}

function gone(detail: string): StateSyncError {
  return new StateSyncError("eventsGone", detail);
}
