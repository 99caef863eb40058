/** The open documents, and the one way in which they change: a decision on what is in memory becomes a change of the store, and
 *  is told when that is kept. Where somebody else was faster, the document is read anew and the decision made anew. */
import type { Random } from "../runtime/random.ts";
import { Committer, type Write } from "./committer.ts";
import { StateSyncError } from "./errors.ts";
import type { LiveClient } from "./live.ts";
import { OpenDocument } from "./open_document.ts";
import type { DocumentRecord } from "./records.ts";
import type { Awaitable, Change, DocumentStore, LoadedDocument } from "./store.ts";

/** How often a decision is made anew before its caller is told to come back. */
const TRIES_MAX = 8;
/** Entries that a document catches up with at once when somebody else wrote them; behind more it is read anew. */
const CATCH_UP_MAX = 1_000;
/** Entries beyond statesync.historyEntries before a document is compacted, as a part of them. */
const HISTORY_SLACK_PART = 4;

/** Documents looked at each time for one that can be closed: more would make every call slow while all are in use. */
const EVICTION_STEPS = 32;

/** What was decided: a change, or that there is none. */
export interface Decision<T> {
  readonly value: T;
  readonly change?: Change | undefined;
  /** The client whose edit the change is: what it sends until that goes to the store may become part of it. */
  readonly client?: LiveClient | undefined;
  /** It has become part of the change that began last, and ends as that does. */
  readonly isJoined?: boolean;
}

/** A decision that needs something first, and is made again then. */
export interface Later {
  readonly wait: Promise<unknown>;
}

/** Decides on a document as it is in memory. It changes the content last of all: when it throws, nothing is changed. */
export type Decide<T> = (document: OpenDocument) => Decision<T> | Later;

/** What they need. */
export interface DocumentsDeps {
  readonly store: DocumentStore;
  readonly random: Random;
  readonly config: {
    readonly openBytesMax: number;
    readonly snapshotEveryEntries: number;
    readonly historyEntries: number;
  };
  /** Runs a function at the end of this turn of the event loop. */
  readonly endOfTurn: (run: () => void) => void;
  /** Told of each change that is kept, before its caller is. */
  readonly onKept: (change: Change, document: OpenDocument | undefined) => void;
  /** Told of a document that was read anew, or caught up with others' changes. */
  readonly onRenewed: (document: OpenDocument) => void;
  /** Told after each group of changes. */
  readonly onGroup: () => void;
  /** Told of what went wrong beside any call. */
  readonly onTrouble: (text: string, error: unknown) => void;
}

/** Figures. */
export interface DocumentsFigures {
  readonly open: number;
  readonly openBytes: number;
  readonly loads: number;
  readonly evictions: number;
  readonly reloads: number;
  readonly snapshots: number;
  readonly compactions: number;
}

/** The open documents. */
export class Documents {
  readonly committer: Committer;
  readonly #deps: DocumentsDeps;
  readonly #open = new Map<string, OpenDocument>();
  readonly #opening = new Map<string, Promise<OpenDocument | undefined>>();
  /** Documents whose listeners and clients are to be told after this group. */
  readonly #changed = new Set<OpenDocument>();
  /** Decisions to be made anew, by document, until it was read anew. */
  readonly #again = new Map<OpenDocument, (() => void)[]>();
  /** The last change of a client's edit, while what the client sends becomes part of it. */
  readonly #openWrites = new WeakMap<OpenDocument, DocumentWrite<unknown>>();
  #newest: OpenDocument | undefined;
  #oldest: OpenDocument | undefined;
  #bytes = 0;
  readonly #figures = { loads: 0, evictions: 0, reloads: 0, snapshots: 0, compactions: 0 };
  readonly #background = new Set<Promise<void>>();

  constructor(deps: DocumentsDeps) {
    this.#deps = deps;
    this.committer = new Committer({
      store: deps.store,
      endOfTurn: deps.endOfTurn,
      onGroup: () => this.#endGroup(),
    });
  }

  figures(): DocumentsFigures {
    return { ...this.#figures, open: this.#open.size, openBytes: this.#bytes };
  }

  /** The document if it is open. */
  peek(docId: string): OpenDocument | undefined {
    return this.#open.get(docId);
  }

  /** All that are open. */
  all(): IterableIterator<OpenDocument> {
    return this.#open.values();
  }

  /** The document as it is kept, open or not. */
  record(docId: string): Awaitable<DocumentRecord | undefined> {
    const document = this.#open.get(docId);
    return document === undefined || document.reloading !== undefined
      ? this.#deps.store.record(docId)
      : document.kept;
  }

  /** The document, open. Undefined if there is none. */
  open(docId: string): Awaitable<OpenDocument | undefined> {
    const document = this.#open.get(docId);
    if (document !== undefined) {
      if (document.reloading !== undefined) return document.reloading.then(() => this.open(docId));
      this.#use(document);
      return document;
    }
    const opening = this.#opening.get(docId);
    if (opening !== undefined) return opening;
    this.#figures.loads++;
    const loaded = this.#deps.store.load(docId);
    if (!(loaded instanceof Promise)) return this.#add(loaded);
    const promise = loaded.then((loaded) => this.#add(loaded)).finally(() => this.#opening.delete(docId));
    this.#opening.set(docId, promise);
    return promise;
  }

  /** Reads what is in memory, and answers when that is kept: all that anybody was told of before, by whichever service. */
  async read<T>(docId: string, look: (document: OpenDocument) => Awaitable<T>): Promise<T> {
    for (let tries = 1; tries <= TRIES_MAX; tries++) {
      const stored = this.#deps.store.record(docId);
      const record = stored instanceof Promise ? await stored : stored;
      if (record === undefined) throw new StateSyncError("notFound");
      const opened = this.open(docId);
      const document = opened instanceof Promise ? await opened : opened;
      if (document === undefined || document.isRemoved) throw new StateSyncError("notFound");
      if (document.failure !== undefined) throw document.failure;
      if (record.offset > document.kept.offset && document.pending === 0) {
        // Somebody else has written it, and the notice is on its way.
        this.changedElsewhere(docId, record.offset);
        continue;
      }
      const looked = look(document);
      const value = looked instanceof Promise ? await looked : looked;
      if (document.pending === 0 || await document.settled()) return value;
    }
    throw busy();
  }

  /** Carries out a decision; resolves with its value when it is kept. */
  write<T>(docId: string, decide: Decide<T>): Promise<T> {
    return new Promise((resolve, reject) => this.#try(new Attempt(docId, decide, resolve, reject)));
  }

  /** Writes a change of a document that is not open: that it is made. */
  writeNew(change: Change): Promise<void> {
    return new Promise((resolve, reject) => {
      this.committer.add({
        change,
        done: () => {
          this.#deps.onKept(change, undefined);
          resolve();
        },
        lost: () => reject(new StateSyncError("exists", change.docId)),
        failed: reject,
      });
    });
  }

  /** Says that a document's size has changed, or its use. Closes others while there are too many bytes. */
  resized(document: OpenDocument): void {
    if (this.#open.get(document.id) !== document) return;
    this.#bytes += document.bytes - document.countedBytes;
    document.countedBytes = document.bytes;
    this.#evict(document);
  }

  /** Whether what is in use alone is more than may be open. */
  get isFull(): boolean {
    return this.#bytes > this.#deps.config.openBytesMax;
  }

  /** Somebody else has changed a document (offset 0: removed it). */
  changedElsewhere(docId: string, offset: number): void {
    // What is read at this moment may be what was there before.
    this.#opening.get(docId)?.then(() => this.changedElsewhere(docId, offset), () => {});
    const document = this.#open.get(docId);
    if (document === undefined) return;
    if (offset === 0) return this.#fail(document, new StateSyncError("notFound"));
    document.knownOffset = Math.max(document.knownOffset, offset);
    this.#catchUpIfBehind(document);
  }

  /** Looks at every open document again: changes by others may have been missed. */
  changedEverywhere(): void {
    const look = (document: OpenDocument | undefined) => {
      if (document === undefined) return;
      document.knownOffset = Infinity;
      this.#catchUpIfBehind(document);
    };
    for (const opening of this.#opening.values()) opening.then(look, () => {});
    for (const document of this.#open.values()) look(document);
  }

  /** Resolves when nothing is under way any more. */
  async settled(): Promise<void> {
    await this.committer.settled();
    await Promise.all(this.#background);
  }

  #try<T>(attempt: Attempt<T>): void {
    let opened;
    try {
      opened = this.open(attempt.docId);
    } catch (error) {
      return attempt.reject(error);
    }
    if (opened instanceof Promise) {
      opened.then((document) => this.#decide(attempt, document), attempt.reject);
    } else this.#decide(attempt, opened);
  }

  #decide<T>(attempt: Attempt<T>, document: OpenDocument | undefined): void {
    if (document === undefined || document.isRemoved) return attempt.reject(new StateSyncError("notFound"));
    if (document.failure !== undefined) return attempt.reject(document.failure);
    if (document.reloading !== undefined) return this.#try(attempt);
    let decision;
    try {
      decision = attempt.decide(document);
    } catch (error) {
      return attempt.reject(error);
    }
    if ("wait" in decision) {
      if (++attempt.tries > TRIES_MAX) return attempt.reject(busy());
      decision.wait.then(() => this.#try(attempt), attempt.reject);
      return;
    }
    const { value, change, client, isJoined } = decision;
    if (change !== undefined) {
      document.begin(change);
      this.resized(document);
      const write = new DocumentWrite(this, document, change, attempt, value);
      if (client !== undefined) {
        document.leaveOpen(client, change);
        this.#openWrites.set(document, write as DocumentWrite<unknown>);
      }
      this.committer.add(write);
    } else if (isJoined === true) {
      this.#openWrites.get(document)!.join(attempt as Attempt<unknown>, value);
    } else if (document.pending === 0) attempt.resolve(value);
    else {
      document.settled().then(
        (isKept) => isKept ? attempt.resolve(value) : this.again(document, attempt),
        attempt.reject,
      );
    }
  }

  /** A change goes to the store. For DocumentWrite. */
  seal(document: OpenDocument, write: DocumentWrite<unknown>): void {
    if (this.#openWrites.get(document) !== write) return;
    this.#openWrites.delete(document);
    document.seal();
  }

  /** A change of an open document is kept. For DocumentWrite. */
  kept(document: OpenDocument, change: Change): void {
    document.end(change);
    this.#changed.add(document);
    if (change.record === undefined) this.#fail(document, new StateSyncError("notFound"));
    else this.#catchUpIfBehind(document);
    this.#deps.onKept(change, document);
  }

  /** A change was lost to somebody else's: the document is read anew. For DocumentWrite. */
  lost(document: OpenDocument, generation: number): void {
    if (document.generation !== generation || document.reloading !== undefined) return;
    this.#reload(document, () => this.#readAnew(document));
  }

  /** The store would not write a change: what is in memory is more than it has. For DocumentWrite. */
  failed(document: OpenDocument, error: Error): void {
    this.#fail(document, error);
  }

  /** Makes a decision anew once the document was read anew. For DocumentWrite. */
  again<T>(document: OpenDocument, attempt: Attempt<T>): void {
    if (document.failure !== undefined) return attempt.reject(document.failure);
    if (++attempt.tries > TRIES_MAX) return attempt.reject(busy());
    const run = () => this.#try(attempt);
    if (document.reloading === undefined) return run();
    const waiting = this.#again.get(document);
    if (waiting === undefined) this.#again.set(document, [run]);
    else waiting.push(run);
  }

  #add(loaded: LoadedDocument | undefined): OpenDocument | undefined {
    if (loaded === undefined) return undefined;
    const document = new OpenDocument(loaded, this.#deps.random);
    this.#open.set(document.id, document);
    document.older = this.#newest;
    if (this.#newest !== undefined) this.#newest.newer = document;
    this.#newest = document;
    this.#oldest ??= document;
    this.resized(document);
    return document;
  }

  #use(document: OpenDocument): void {
    if (this.#newest === document) return;
    this.#unlink(document);
    document.older = this.#newest;
    this.#newest!.newer = document;
    this.#newest = document;
  }

  #unlink(document: OpenDocument): void {
    const { older, newer } = document;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    document.older = document.newer = undefined;
  }

  #evict(but: OpenDocument): void {
    for (let i = 0; i < EVICTION_STEPS && this.isFull; i++) {
      const document = this.#oldest;
      if (document === undefined || document === but) return;
      if (document.isUnused) {
        this.#figures.evictions++;
        this.#remove(document);
      } else this.#use(document);
    }
  }

  #remove(document: OpenDocument): void {
    if (this.#open.get(document.id) !== document) return;
    this.#open.delete(document.id);
    this.#unlink(document);
    this.#bytes -= document.countedBytes;
    document.countedBytes = 0;
  }

  #fail(document: OpenDocument, error: Error): void {
    this.#remove(document);
    this.#changed.delete(document);
    document.fail(error);
    const waiting = this.#again.get(document);
    this.#again.delete(document);
    // Each finds the document gone, or opens it as it is kept.
    for (const run of waiting ?? []) run();
  }

  /** Reads a document anew, while whoever comes waits. */
  #reload(document: OpenDocument, read: () => Promise<void>): void {
    this.#figures.reloads++;
    document.reloading = read().catch((error) =>
      this.#fail(document, error instanceof Error ? error : new StateSyncError("unavailable", String(error)))
    ).then(() => {
      document.reloading = undefined;
      if (document.failure !== undefined) return;
      this.resized(document);
      document.tell();
      this.#deps.onRenewed(document);
      if (this.#catchUpIfBehind(document)) return;
      const waiting = this.#again.get(document);
      this.#again.delete(document);
      for (const run of waiting ?? []) run();
    });
  }

  /** Reads what others are known to have written. Whether there is any to be read. */
  #catchUpIfBehind(document: OpenDocument): boolean {
    // What is under way ends first: it is lost, and the document read anew for it, or others wrote behind it.
    if (document.pending > 0 || document.reloading !== undefined) return false;
    const isBehind = document.knownOffset > document.kept.offset;
    document.knownOffset = 0;
    if (isBehind) this.#reload(document, () => this.#catchUp(document));
    return isBehind;
  }

  async #readAnew(document: OpenDocument): Promise<void> {
    const loaded = await this.#deps.store.load(document.id);
    if (loaded === undefined) throw new StateSyncError("notFound");
    document.reload(loaded);
  }

  async #catchUp(document: OpenDocument): Promise<void> {
    const { store } = this.#deps;
    const record = await store.record(document.id);
    if (record === undefined) throw new StateSyncError("notFound");
    const count = record.offset - document.kept.offset;
    if (count <= 0) return;
    const entries = count > CATCH_UP_MAX
      ? []
      : await store.entries(document.id, document.kept.offset + 1, count);
    if (entries.length === count) document.catchUp(entries, record);
    else await this.#readAnew(document);
  }

  #endGroup(): void {
    for (const document of this.#changed) {
      document.tell();
      this.#keep(document);
    }
    this.#changed.clear();
    this.#deps.onGroup();
  }

  /** Keeps the content anew when there was much since, and lets go of what is older than is to be kept. */
  #keep(document: OpenDocument): void {
    const { snapshotEveryEntries, historyEntries } = this.#deps.config;
    const { offset } = document.record;
    if (document.isKeeping || offset - document.snapshotOffset < snapshotEveryEntries) return;
    document.isKeeping = true;
    const keeping = this.#putSnapshot(document)
      .then(async () => {
        const excess = document.kept.offset + 1 - document.oldestOffset - historyEntries;
        if (excess > historyEntries / HISTORY_SLACK_PART) {
          await this.#compact(document, document.kept.offset + 1 - historyEntries);
        }
      })
      .catch((error) => this.#deps.onTrouble("keeping a document's content anew failed", error))
      .finally(() => {
        document.isKeeping = false;
        this.#background.delete(keeping);
        this.resized(document);
      });
    this.#background.add(keeping);
  }

  async #putSnapshot(document: OpenDocument): Promise<void> {
    const { generation, record: { offset, version } } = document;
    const state = document.content.encodeState();
    document.stateBytes = state.length;
    document.hasExactSize = true;
    // Tried again after as many entries, whether it succeeds or not.
    document.snapshotOffset = offset;
    if (!await document.settled() || document.generation !== generation) return;
    await this.#deps.store.putSnapshot(document.id, { offset, version, state });
    this.#figures.snapshots++;
  }

  async #compact(document: OpenDocument, offset: number): Promise<void> {
    await this.#deps.store.compact(document.id, offset);
    this.#figures.compactions++;
    const [first] = await this.#deps.store.entries(document.id, 1, 1);
    document.oldestOffset = first?.offset ?? document.oldestOffset;
  }
}

/** A decision on its way. */
class Attempt<T> {
  tries = 0;

  constructor(
    readonly docId: string,
    readonly decide: Decide<T>,
    readonly resolve: (value: T) => void,
    readonly reject: (error: unknown) => void,
  ) {}
}

/** A change of an open document on its way to the store, with the decisions that became it. */
class DocumentWrite<T> implements Write {
  readonly #generation: number;
  readonly #attempts: Attempt<T>[];
  readonly #values: T[];

  constructor(
    private readonly documents: Documents,
    private readonly document: OpenDocument,
    readonly change: Change,
    attempt: Attempt<T>,
    value: T,
  ) {
    this.#generation = document.generation;
    this.#attempts = [attempt];
    this.#values = [value];
  }

  join(attempt: Attempt<T>, value: T): void {
    this.#attempts.push(attempt);
    this.#values.push(value);
  }

  seal(): void {
    this.documents.seal(this.document, this as DocumentWrite<unknown>);
  }

  done(): void {
    this.documents.kept(this.document, this.change);
    for (const [i, attempt] of this.#attempts.entries()) attempt.resolve(this.#values[i]!);
  }

  lost(): void {
    this.documents.lost(this.document, this.#generation);
    for (const attempt of this.#attempts) this.documents.again(this.document, attempt);
  }

  failed(error: Error): void {
    this.documents.failed(this.document, error);
    for (const attempt of this.#attempts) attempt.reject(error);
  }
}

function busy(): StateSyncError {
  return new StateSyncError("unavailable", "others change the document all the time");
}
