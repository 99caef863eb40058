/** Documents: made, edited, locked, watched, gone back on. Pure: time and chance come in.
 *
 *  Every call decides on what is in memory and answers when that is kept (documents.ts); what an answer says, an event tells
 *  and a client sees is on disk. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { Clock } from "../runtime/clock.ts";
import { createGuuidSource, formatGuuid, type GuuidSource } from "../runtime/guuid.ts";
import { isAdmin } from "../runtime/principal.ts";
import type { Random } from "../runtime/random.ts";
import { createSteadyTime } from "../runtime/steady_time.ts";
import { accessOf, mayCreate, nameOf, readableBy, requireAccess } from "./access.ts";
import { type DecisionContext, makeChange } from "./changes.ts";
import { ResolveCall, type Resolved } from "./conflict_calls.ts";
import { Content } from "./crdt/content.ts";
import type { Difference } from "./crdt/history.ts";
import {
  decideDelete,
  decidePurge,
  decideRestore,
  decideUpdate,
  type DocumentChange,
  documentEntry,
} from "./document_decisions.ts";
import { type Decision, Documents } from "./documents.ts";
import { StateSyncError } from "./errors.ts";
import { Figures, type StatesyncFigures } from "./figures.ts";
import { History, type ListedVersion } from "./history.ts";
import {
  checkDescription,
  checkDocId,
  checkLockTtl,
  checkName,
  checkObjectId,
  checkPermissions,
  checkProperties,
  checkSessionId,
  checkTags,
  checkUndoCount,
  checkVersionName,
} from "./limits.ts";
import type { AccessLevel, LiveClient } from "./live.ts";
import { OpenLiveDocuments } from "./live_documents.ts";
import {
  decideAcquire,
  decideExpiry,
  decideExtend,
  decideRelease,
  decideSessionEnd,
  type WantedLock,
} from "./lock_decisions.ts";
import { LockIndex } from "./lock_index.ts";
import type { OpenDocument } from "./open_document.ts";
import { type AppliedOperation, OperationCall, type OperationsDeps } from "./operations.ts";
import type {
  ConflictPolicy,
  ConflictRecord,
  DocumentRecord,
  DocumentType,
  LockRecord,
  Permissions,
  StoredEntry,
} from "./records.ts";
import type {
  Awaitable,
  Change,
  DocumentCounts,
  DocumentFilter,
  DocumentStore,
  OperationFilter,
} from "./store.ts";
import { type Subscription, Subscriptions } from "./subscriptions.ts";

/** The part of the configuration that the service reads. */
export interface StatesyncServiceConfig {
  readonly conflictPolicy: ConflictPolicy;
  readonly lockTtlMs: number;
  readonly maxUpdateBytes: number;
  readonly maxUpdateStructs: number;
  readonly maxDocumentBytes: number;
  readonly openBytesMax: number;
  readonly subscribersMax: number;
  readonly snapshotEveryEntries: number;
  readonly historyEntries: number;
}

/** What the service needs. */
export interface StatesyncServiceDeps {
  readonly store: DocumentStore;
  readonly config: StatesyncServiceConfig;
  readonly clock: Clock;
  readonly random: Random;
  /** Runs a function at the end of this turn of the event loop. */
  readonly endOfTurn: (run: () => void) => void;
  /** Told of what went wrong beside any call. */
  readonly onTrouble: (text: string, error: unknown) => void;
}

/** A document to make. */
export interface CreateDocument {
  /** One is made when it is empty. */
  readonly docId: string;
  readonly name: string;
  readonly type: DocumentType;
  /** Empty: the caller. */
  readonly createdBy: string;
  /** In the canonical form. */
  readonly content: Uint8Array;
  readonly conflictPolicy?: ConflictPolicy | undefined;
  readonly tags: readonly string[];
  readonly description: string;
  readonly properties: Readonly<Record<string, string>>;
  /** Left out, or without an owner: who makes it. */
  readonly permissions?: Permissions | undefined;
}

/** A document as it is shown. */
export interface ShownDocument {
  readonly record: DocumentRecord;
  readonly content: Uint8Array | undefined;
  readonly activeUsers: readonly string[];
}

const NO_BYTES = new Uint8Array(0);
const NO_MEMBERS = { editors: [], commenters: [], viewers: [], public: false };
/** Documents whose locks are looked at in one slice of a sweep. */
const SWEEP_SLICE = 200;

/** The service. */
export class StatesyncService {
  readonly live: OpenLiveDocuments;
  readonly subscriptions: Subscriptions;
  readonly #deps: StatesyncServiceDeps;
  readonly #ids: GuuidSource;
  readonly #nowMs: () => number;
  readonly #newId: () => string;
  readonly #context: () => DecisionContext;
  readonly #documents: Documents;
  readonly #history: History;
  readonly #operations: OperationsDeps & { readonly store: DocumentStore };
  readonly #lockIndex = new LockIndex();
  readonly #figures = new Figures();
  #hasNews = false;
  #isClosed = false;

  constructor(deps: StatesyncServiceDeps) {
    const { store, config, clock, random, endOfTurn, onTrouble } = deps;
    this.#deps = deps;
    this.#ids = createGuuidSource({ clock, random });
    this.#nowMs = createSteadyTime(clock);
    this.#newId = () => formatGuuid(this.#ids.next());
    this.#context = () => ({ nowMs: this.#nowMs(), newId: this.#newId });
    this.#documents = new Documents({
      store,
      random,
      config,
      endOfTurn,
      onKept: (change, document) => this.#onKept(change, document),
      onRenewed: (document) => this.#onRenewed(document),
      onGroup: () => this.#onGroup(),
      onTrouble,
    });
    this.subscriptions = new Subscriptions({
      store,
      max: config.subscribersMax,
      newId: this.#newId,
      pause: () => new Promise((resolve) => endOfTurn(resolve)),
      recordOf: (docId) => this.#documents.record(docId),
    });
    this.live = new OpenLiveDocuments({
      documents: this.#documents,
      context: this.#context,
      limits: config,
      endOfTurn,
      create: (client, docId, type) => this.#createFor(client, docId, type),
      failure: () => store.failure,
      onTrouble,
    });
    const { maxDocumentBytes } = config;
    this.#history = new History({
      store,
      documents: this.#documents,
      random,
      context: this.#context,
      maxDocumentBytes,
    });
    this.#operations = { store, nowMs: this.#nowMs, newId: this.#newId, maxDocumentBytes };
    store.onForeign = (docId, offset) => {
      this.#documents.changedElsewhere(docId, offset);
      this.subscriptions.tell(docId);
      this.subscriptions.tellAll();
    };
    store.onForeignGap = () => {
      this.#documents.changedEverywhere();
      this.subscriptions.wakeEverybody();
    };
  }

  /** The service's time: wall time that never goes back, in milliseconds. */
  nowMs(): number {
    return this.#nowMs();
  }

  /** Changes when offsets and sequences begin anew. */
  get epoch(): string {
    return this.#deps.store.epoch;
  }

  /** Why nothing can be changed, if so. */
  get failure(): Error | undefined {
    return this.#deps.store.failure;
  }

  // ---- documents ----

  /** Makes a document. @throws {StateSyncError} `invalid`, `exists`, `denied`, … */
  async create(principal: Principal | undefined, request: CreateDocument): Promise<DocumentRecord> {
    this.#checkOpen();
    const docId = request.docId === "" ? this.#newId() : checkDocId(request.docId);
    if (!mayCreate(principal, docId)) {
      throw new StateSyncError("denied", "no grant says that it may make this");
    }
    const createdBy = creatorOf(principal, request.createdBy);
    const nowMs = this.#nowMs();
    const before = this.#newRecord(principal, docId, createdBy, nowMs, request);
    const update = request.content.length === 0
      ? undefined
      : Content.create(request.type, this.#deps.random).setCanonical(request.content);
    if (update !== undefined && update.length > this.#deps.config.maxDocumentBytes) {
      throw new StateSyncError("tooLarge", `${update.length} bytes (statesync.maxDocumentBytes)`);
    }
    const entry = { ...documentEntry(createdBy, "created"), isVersion: true, update };
    const change = makeChange({ nowMs, newId: this.#newId }, before, {}, [entry]);
    await this.#documents.writeNew(change);
    return change.record;
  }

  /** A document as it is kept. @throws {StateSyncError} `notFound` */
  get(principal: Principal | undefined, docId: string, hasContent: boolean): Promise<ShownDocument> {
    return this.#documents.read(docId, (document) => {
      requireAccess(principal, document.record, "read");
      return {
        record: document.record,
        content: hasContent ? document.shared.canonical() : undefined,
        activeUsers: [...document.users.keys()],
      };
    });
  }

  /** What a caller may do with a document, and the document's record. @throws {StateSyncError} `notFound` */
  async access(
    principal: Principal | undefined,
    docId: string,
  ): Promise<{ readonly access: AccessLevel; readonly record: DocumentRecord }> {
    const record = await this.#readable(principal, docId);
    return { access: accessOf(principal, record), record };
  }

  /** Changes a document. @throws {StateSyncError} */
  update(
    principal: Principal | undefined,
    docId: string,
    change: DocumentChange,
    ifVersion: number | undefined,
  ): Promise<DocumentRecord> {
    this.#checkOpen();
    const { maxDocumentBytes } = this.#deps.config;
    return this.#documents.write(
      docId,
      (document) => decideUpdate(document, principal, change, ifVersion, maxDocumentBytes, this.#context()),
    );
  }

  /** Marks a document as deleted, or removes it for good. Whether it was there. @throws {StateSyncError} `denied` */
  async delete(principal: Principal | undefined, docId: string, isPurge: boolean): Promise<boolean> {
    this.#checkOpen();
    const decide = isPurge ? decidePurge : decideDelete;
    try {
      return await this.#documents.write(docId, (document) => decide(document, principal, this.#context()));
    } catch (error) {
      if (error instanceof StateSyncError && error.kind === "notFound") return false;
      throw error;
    }
  }

  /** Makes a deleted document active again. @throws {StateSyncError} */
  restore(principal: Principal | undefined, docId: string): Promise<DocumentRecord> {
    this.#checkOpen();
    return this.#documents.write(docId, (document) => decideRestore(document, principal, this.#context()));
  }

  /** Up to `limit` documents that the caller may read, in the order of ids, and the id that they were looked for up to;
   *  undefined at the end. */
  async list(
    principal: Principal | undefined,
    filter: DocumentFilter,
    after: string,
    limit: number,
  ): Promise<{ readonly documents: readonly DocumentRecord[]; readonly next: string | undefined }> {
    const readable = readableBy(principal);
    const found: DocumentRecord[] = [];
    const wanted = readable === undefined ? filter : { ...filter, readableBy: readable };
    for (let from = after;;) {
      const page = await this.#deps.store.list(wanted, from, limit + 1);
      for (const record of page) {
        if (accessOf(principal, record) === "none") continue;
        if (found.length === limit) return { documents: found, next: found.at(-1)!.id };
        found.push(record);
      }
      if (page.length <= limit) return { documents: found, next: undefined };
      from = page.at(-1)!.id;
    }
  }

  /** Users who have a document open here. */
  activeUsers(docId: string): readonly string[] {
    return [...this.#documents.peek(docId)?.users.keys() ?? []];
  }

  // ---- operations and conflicts ----

  /** Carries out an operation. @throws {StateSyncError} */
  applyOperation(principal: Principal | undefined, operation: Operation): Promise<AppliedOperation> {
    this.#checkOpen();
    const call = new OperationCall(this.#operations, principal, operation);
    return this.#documents.write(call.docId, (document) => call.decide(document));
  }

  /** Entries of operations below offset `before`, newest first. @throws {StateSyncError} `notFound` */
  async operations(
    principal: Principal | undefined,
    docId: string,
    filter: OperationFilter,
    before: number,
    limit: number,
  ): Promise<readonly StoredEntry[]> {
    await this.#readable(principal, docId);
    return await this.#deps.store.operations(docId, filter, before, limit);
  }

  /** Conflicts with ids below `before`, newest first. @throws {StateSyncError} `notFound` */
  async conflicts(
    principal: Principal | undefined,
    docId: string,
    isOpenOnly: boolean,
    before: string,
    limit: number,
  ): Promise<readonly ConflictRecord[]> {
    await this.#readable(principal, docId);
    return await this.#deps.store.conflicts(docId, isOpenOnly, before, limit);
  }

  /** Decides a conflict. @throws {StateSyncError} */
  resolveConflict(
    principal: Principal | undefined,
    docId: string,
    conflictId: string,
    choice: string,
    operation: Operation | undefined,
  ): Promise<Resolved> {
    this.#checkOpen();
    const call = new ResolveCall(this.#operations, principal, conflictId, choice, operation);
    return this.#documents.write(docId, (document) => call.decide(document));
  }

  // ---- events ----

  /** Subscribes to a document. @throws {StateSyncError} */
  async subscribe(
    principal: Principal | undefined,
    docId: string,
    startOffset: number,
    epoch: string,
  ): Promise<Subscription> {
    this.#checkOpen();
    return await this.subscriptions.ofDocument(
      principal,
      await this.#readable(principal, docId),
      startOffset,
      epoch,
    );
  }

  /** Subscribes to the events of all documents that the caller may read, or of all there are. @throws {StateSyncError} */
  async subscribeAll(
    principal: Principal | undefined,
    isGlobal: boolean,
    startSequence: number,
    epoch: string,
  ): Promise<Subscription> {
    this.#checkOpen();
    if (isGlobal && !isAdmin(principal)) {
      throw new StateSyncError("denied", "the scope `global` is for administrators");
    }
    return await this.subscriptions.ofAll(isGlobal ? undefined : principal, startSequence, epoch);
  }

  /** Ends one of the caller's subscriptions. Administrators may end anybody's. */
  unsubscribe(principal: Principal | undefined, docId: string, subscriberId: string): boolean {
    return this.subscriptions.end(
      docId,
      subscriberId,
      (subscription) => isAdmin(principal) || nameOf(subscription.principal) === nameOf(principal),
    );
  }

  // ---- locks ----

  /** Gives the caller a lock, or more time. @throws {StateSyncError} */
  acquireLock(
    principal: Principal | undefined,
    docId: string,
    wanted: WantedLock,
  ): Promise<LockRecord> {
    this.#checkOpen();
    checkObjectId(wanted.objectId);
    checkSessionId(wanted.sessionId);
    const ttlMs = checkLockTtl(wanted.ttlMs, this.#deps.config.lockTtlMs);
    return this.#documents.write(
      docId,
      (document) => decideAcquire(document, principal, { ...wanted, ttlMs }, this.#context()),
    );
  }

  /** Lets a lock of the caller last longer. @throws {StateSyncError} */
  extendLock(
    principal: Principal | undefined,
    docId: string,
    lockId: string,
    ttlMs: number,
  ): Promise<LockRecord> {
    this.#checkOpen();
    const time = checkLockTtl(ttlMs, this.#deps.config.lockTtlMs);
    return this.#documents.write(
      docId,
      (document) => decideExtend(document, principal, lockId, time, this.#context()),
    );
  }

  /** Gives a lock back. @throws {StateSyncError} */
  releaseLock(
    principal: Principal | undefined,
    docId: string,
    which: { readonly lockId: string; readonly objectId: string },
  ): Promise<boolean> {
    this.#checkOpen();
    return this.#documents.write(
      docId,
      (document) => decideRelease(document, principal, which, this.#context()),
    );
  }

  /** Locks that hold now, of a document or of one object. @throws {StateSyncError} `notFound` */
  locks(principal: Principal | undefined, docId: string, objectId: string): Promise<LockRecord[]> {
    return this.#documents.read(docId, (document) => {
      requireAccess(principal, document.record, "read");
      return document.locks.active(this.#nowMs(), objectId);
    });
  }

  /** Reads the locks that there are, so that their time is watched: at the start, and where other services make some too. */
  async readLocks(): Promise<void> {
    this.#lockIndex.replace(await this.#deps.store.locks());
  }

  /** Takes away locks whose time is up. */
  async sweepLocks(): Promise<void> {
    const nowMs = this.#nowMs();
    for (const docId of this.#lockIndex.expired(nowMs, SWEEP_SLICE)) {
      await this.#endLocks(docId, (document) => decideExpiry(document, this.#context()));
    }
  }

  /** A session has ended, and its locks with it. */
  async endSession(sessionId: string): Promise<void> {
    for (const docId of this.#lockIndex.documentsOf(sessionId)) {
      await this.#endLocks(docId, (document) => decideSessionEnd(document, sessionId, this.#context()));
    }
  }

  /** Sessions that hold locks. */
  sessionsWithLocks(): string[] {
    return this.#lockIndex.sessions();
  }

  // ---- versions ----

  /** Versions below `before`, newest first, and the oldest that can be read. @throws {StateSyncError} */
  async versions(
    principal: Principal | undefined,
    docId: string,
    before: number,
    limit: number,
    isNamed: boolean,
  ): Promise<{ readonly versions: readonly ListedVersion[]; readonly oldest: number }> {
    await this.#readable(principal, docId);
    return {
      versions: await this.#history.list(docId, before, limit, isNamed),
      oldest: await this.#history.oldest(docId),
    };
  }

  /** A version with its content, by number, or the newest made at a time or before. @throws {StateSyncError} */
  async version(
    principal: Principal | undefined,
    docId: string,
    which: { readonly version: number } | { readonly atMs: number },
  ): Promise<{ readonly version: ListedVersion; readonly content: Content }> {
    const record = await this.#readable(principal, docId);
    const number = "version" in which ? which.version : await this.#history.at(docId, which.atMs);
    return {
      content: await this.#history.content(record, number),
      version: await this.#history.one(docId, number),
    };
  }

  /** Names a version; 0 is the present one. @throws {StateSyncError} */
  async nameVersion(
    principal: Principal | undefined,
    docId: string,
    version: number,
    name: string,
  ): Promise<ListedVersion> {
    this.#checkOpen();
    const named = await this.#history.name(principal, docId, version, checkVersionName(name));
    return await this.#history.one(docId, named);
  }

  /** Takes a version's name. @throws {StateSyncError} */
  unnameVersion(principal: Principal | undefined, docId: string, version: number): Promise<boolean> {
    this.#checkOpen();
    return this.#history.unname(principal, docId, version);
  }

  /** What changed from one version to another; `to` 0 is the present one. @throws {StateSyncError} */
  async diff(
    principal: Principal | undefined,
    docId: string,
    from: number,
    to: number,
  ): Promise<{ readonly from: number; readonly to: number; readonly difference: Difference }> {
    const record = await this.#readable(principal, docId);
    const end = to || record.version;
    return { from, to: end, difference: await this.#history.diff(record, from, end) };
  }

  /** Makes the content what it was at a version, as a new one. @throws {StateSyncError} */
  restoreVersion(principal: Principal | undefined, docId: string, version: number): Promise<DocumentRecord> {
    this.#checkOpen();
    return this.#history.restore(principal, docId, version);
  }

  /** Takes back the last edits of a user (empty: of the caller). @throws {StateSyncError} */
  undo(
    principal: Principal | undefined,
    docId: string,
    userId: string,
    count: number,
  ): Promise<{ readonly record: DocumentRecord; readonly undone: number }> {
    this.#checkOpen();
    return this.#history.undo(principal, docId, userId, checkUndoCount(count));
  }

  // ---- the whole ----

  /** Figures of all documents. @throws {StateSyncError} `denied` */
  counts(principal: Principal | undefined): Awaitable<DocumentCounts> {
    if (!isAdmin(principal)) throw new StateSyncError("denied", "figures are for administrators");
    return this.#deps.store.counts();
  }

  figures(): StatesyncFigures {
    return this.#figures.read({
      ...this.#documents.figures(),
      ...this.#documents.committer.figures(),
      queued: this.#documents.committer.queued,
      subscribers: this.subscriptions.size,
      clients: this.live.clients,
      locks: this.#lockIndex.size,
    });
  }

  /** Ends what is open, keeps everything, lets go of the store. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.subscriptions.close();
    await this.live.close();
    await this.#documents.settled();
    await this.#deps.store.close();
  }

  async #readable(principal: Principal | undefined, docId: string): Promise<DocumentRecord> {
    const record = await this.#deps.store.record(docId);
    if (record === undefined) throw new StateSyncError("notFound");
    requireAccess(principal, record, "read");
    return record;
  }

  /** A document that a synchronising client asks for by its type. */
  #createFor({ principal }: LiveClient, docId: string, type: DocumentType): Promise<DocumentRecord> {
    return this.create(principal, {
      docId,
      type,
      name: "",
      createdBy: "",
      content: NO_BYTES,
      tags: [],
      description: "",
      properties: {},
    });
  }

  /** The record before the entry that makes it. */
  #newRecord(
    principal: Principal | undefined,
    id: string,
    createdBy: string,
    nowMs: number,
    request: CreateDocument,
  ): DocumentRecord {
    const { name, type, tags, description, properties, conflictPolicy } = request;
    const owner = request.permissions?.owner || createdBy;
    if (owner !== createdBy && !isAdmin(principal)) {
      throw new StateSyncError("denied", "metadata.permissions.owner is another than the caller");
    }
    return {
      id,
      name: checkName(name),
      type,
      state: "active",
      version: 0,
      offset: 0,
      conflictPolicy: conflictPolicy ?? this.#deps.config.conflictPolicy,
      createdBy,
      createdAtMs: nowMs,
      updatedBy: createdBy,
      updatedAtMs: nowMs,
      tags: checkTags(tags),
      description: checkDescription(description),
      properties: checkProperties(properties),
      permissions: checkPermissions({ ...request.permissions ?? NO_MEMBERS, owner }),
      fencingToken: 0,
      openConflicts: 0,
      hlc: 0n,
    };
  }

  async #endLocks(docId: string, decide: (document: OpenDocument) => Decision<number>): Promise<void> {
    try {
      await this.#documents.write(docId, (document) => {
        // Others may have ended some of them.
        this.#lockIndex.forget(docId);
        for (const lock of document.locks.all()) this.#lockIndex.put(lock);
        return decide(document);
      });
    } catch (error) {
      if (!(error instanceof StateSyncError)) throw error;
      // Gone with its locks. Where the store is away, the next sweep finds them.
      if (error.kind === "notFound") this.#lockIndex.forget(docId);
      else this.#deps.onTrouble("ending locks failed", error);
    }
  }

  #onKept(change: Change, document: OpenDocument | undefined): void {
    const { docId, entries, record } = change;
    this.#hasNews = true;
    this.subscriptions.tell(docId);
    this.#figures.count(entries);
    if (record === undefined) return this.#lockIndex.forget(docId);
    if (document === undefined) return;
    let isReleased = false, isGoverned = false;
    for (const { type, lock, document } of entries) {
      if (lock !== undefined) {
        if (type === "lock_acquired") this.#lockIndex.put(lock);
        else {
          this.#lockIndex.remove(lock);
          isReleased = true;
        }
      }
      if (document !== undefined) isGoverned = true;
    }
    if (isGoverned) this.#review(document);
    if (isReleased || isGoverned) document.askAgain();
  }

  #onRenewed(document: OpenDocument): void {
    this.#hasNews = true;
    this.subscriptions.tell(document.id);
    this.subscriptions.tellAll();
    for (const lock of document.locks.all()) this.#lockIndex.put(lock);
    this.#review(document);
    document.askAgain();
  }

  #review(document: OpenDocument): void {
    if (document.clients.size > 0 && document.reviewAccess()) this.live.announce(document);
  }

  #onGroup(): void {
    if (!this.#hasNews) return;
    this.#hasNews = false;
    this.subscriptions.tellAll();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new StateSyncError("stopped");
  }
}

/** Who a new document is said to be made by. @throws {StateSyncError} `denied` */
function creatorOf(principal: Principal | undefined, createdBy: string): string {
  const own = nameOf(principal);
  if (
    createdBy === "" || createdBy === own || (principal !== undefined && createdBy === principal.username)
  ) {
    return own;
  }
  if (isAdmin(principal)) return createdBy;
  throw new StateSyncError("denied", "created_by is another than the caller");
}
