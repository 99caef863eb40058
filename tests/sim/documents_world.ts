/** Documents in a world where everything breaks: services that die, a disk that is slow and refuses, connections that end; people
 *  who edit on and offline, programs that send operations again and again, locks, restores, and subscribers who come back. All
 *  that happens follows from the seed. */
import { create, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createHandlerContext } from "@connectrpc/connect";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type ApplyOperationResponse,
  type OperationSchema,
  StateSyncService,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { formatGuuid, GUUID_BYTES } from "../../services/runtime/guuid.ts";
import { encodePrincipal, PRINCIPAL_METADATA } from "../../services/runtime/principal.ts";
import { statesyncConfigSchema } from "../../services/statesync/config.ts";
import { createStatesyncModule, StateSyncError, type StatesyncModule } from "../../services/statesync/mod.ts";
import {
  CONFLICT_POLICIES,
  DOCUMENT_TYPES,
  type DocumentType,
  type StoredEntry,
} from "../../services/statesync/records.ts";
import { createMemoryStore } from "../../services/statesync/stores/memory.ts";
import { openSqliteStore } from "../../services/statesync/stores/sqlite.ts";
import { type EventStream, Subscriber } from "./documents_subscriber.ts";
import {
  Editor,
  type EditorEvent,
  type LinkProfile,
  type Reachable,
  type Session,
} from "./documents_editor.ts";
import { Schedule } from "./documents_schedule.ts";
import { DocumentsDisk, type SimStore } from "./documents_store.ts";
import { SimRandom } from "./random.ts";

/** What happened in worlds, so that a test can tell that anything did. */
export type DocumentsTally = Record<
  | EditorEvent
  | "deaths"
  | "operations"
  | "conflicts"
  | "rejected"
  | "repeated"
  | "refusedOperations"
  | "locks"
  | "lockRefusals"
  | "resolved"
  | "restores"
  | "undos"
  | "events"
  | "reconnects"
  | "reloads",
  number
>;

/** A tally of nothing. */
export function newDocumentsTally(): DocumentsTally {
  return {
    edits: 0,
    offlineEdits: 0,
    saved: 0,
    breaks: 0,
    refusals: 0,
    connects: 0,
    asks: 0,
    deaths: 0,
    operations: 0,
    conflicts: 0,
    rejected: 0,
    repeated: 0,
    refusedOperations: 0,
    locks: 0,
    lockRefusals: 0,
    resolved: 0,
    restores: 0,
    undos: 0,
    events: 0,
    reconnects: 0,
    reloads: 0,
  };
}

/** Runs the world of a seed and checks it.
 *  @throws {Error} when something acknowledged is lost, somebody ends with other content, or a subscriber misses something. */
export async function runDocumentsWorld(
  seed: number,
  tally: DocumentsTally = newDocumentsTally(),
): Promise<DocumentsTally> {
  await new DocumentsWorld(seed, tally).run();
  return tally;
}

/** How long things go wrong, in virtual ms, and how long it may take until all is well afterwards. */
const TROUBLE_MS = 700;
const PEACE_MS_MAX = 120_000;
const USERS = 4;
const DOCUMENTS_MAX = 2;
const NODES_MAX = 2;
const DOWN_MS = 300;
const LOCK_TTL_MS = 1_000;
/** How long a locker thinks about it before it gives a lock back, or leaves it to its end. */
const LOCK_HELD_MS = 300;
const SWEEP_MS = 200;
/** Part of the worlds whose disk is the SQLite store. */
const SQLITE_PART = 0.2;

/** What a subscriber comes back from, and what a sender sends again for. */
const FOR_LATER: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Aborted]);
/** What a sender of operations may be told for good. */
const REFUSALS: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.FailedPrecondition,
  Code.OutOfRange,
]);

/** The service has died before it answered. */
class Lost extends Error {
  override readonly name = "Lost";
}

interface WorldDocument {
  readonly id: string;
  readonly type: DocumentType;
}

type Method = typeof StateSyncService.method;
type UnaryName = {
  [K in keyof Method]: Method[K]["methodKind"] extends "unary" ? K : never;
}[keyof Method];
type StreamName = Exclude<keyof Method, UnaryName>;
type Answer<K extends keyof Method> = MessageShape<Method[K]["output"]>;

/** One service on the shared disk. */
class ServiceNode implements Reachable {
  readonly sessions = new Set<Session>();
  isUp = true;
  readonly #module: StatesyncModule;
  readonly #store: SimStore;
  readonly #died = Promise.withResolvers<never>();

  constructor(module: StatesyncModule, store: SimStore) {
    this.#module = module;
    this.#store = store;
    this.#died.promise.catch(() => {});
  }

  get live(): Reachable["live"] {
    return this.#module.live;
  }

  /** Ends it at once, whatever it was about. */
  die(disk: DocumentsDisk): void {
    this.isUp = false;
    disk.kill(this.#store);
    this.#died.reject(new Lost());
    for (const session of this.sessions) session.die();
  }

  close(): Promise<void> {
    this.isUp = false;
    return this.#module.close();
  }

  /** Calls it as a gateway does in somebody's name. Rejects with what it says, or `Lost`. */
  call<K extends UnaryName>(
    name: K,
    request: MessageInitShape<Method[K]["input"]>,
    principal?: Principal,
  ): Promise<Answer<K>> {
    const method = StateSyncService.method[name];
    const handle = this.#module.handlers[name] as (request: unknown, context: unknown) => Promise<Answer<K>>;
    const asked =
      (async () => await handle(create(method.input, request as never), contextOf(name, principal)))();
    return Promise.race([asked, this.#died.promise]);
  }

  /** Opens a stream; what it gives in turn, until `stop`. */
  stream<K extends StreamName>(
    name: K,
    request: MessageInitShape<Method[K]["input"]>,
    principal: Principal,
  ): { next(): Promise<Answer<K> | undefined>; stop(): void } {
    const method = StateSyncService.method[name];
    const stopping = new AbortController();
    const handle = this.#module.handlers[name] as (
      request: unknown,
      context: unknown,
    ) => AsyncIterable<Answer<K>>;
    const messages = handle(
      create(method.input, request as never),
      contextOf(name, principal, stopping.signal),
    )[Symbol.asyncIterator]();
    return {
      next: async () => {
        const { value, done } = await Promise.race([messages.next(), this.#died.promise]);
        return done ? undefined : value;
      },
      stop: () => {
        stopping.abort();
        messages.return?.().catch(() => {}); // it was told to stop
      },
    };
  }
}

function contextOf(name: keyof Method, principal: Principal | undefined, signal?: AbortSignal) {
  return createHandlerContext({
    service: StateSyncService,
    method: StateSyncService.method[name],
    protocolName: "quantum",
    requestMethod: "POST",
    url: "",
    ...(signal === undefined ? {} : { requestSignal: signal }),
    requestHeader: new Headers(
      principal === undefined ? {} : { [PRINCIPAL_METADATA]: encodePrincipal(principal) },
    ),
  });
}

class DocumentsWorld {
  readonly #random: SimRandom;
  readonly #tally: DocumentsTally;
  readonly #schedule = new Schedule();
  readonly #disk: DocumentsDisk;
  readonly #nodes: (ServiceNode | undefined)[];
  readonly #documents: WorldDocument[] = [];
  readonly #editors: Editor[] = [];
  readonly #subscribers: Subscriber[] = [];
  readonly #users: readonly Principal[];
  readonly #link: LinkProfile & { breaks: number };
  readonly #config;
  /** Answers to operations, by document and key. */
  readonly #answered = new Map<string, ApplyOperationResponse>();
  readonly #refused = new Set<string>();
  /** Ids of events as somebody was told of them. */
  readonly #told = new Map<string, string>();
  #problem: { readonly error: unknown } | undefined;
  #isOver = false;
  #acting = 0;
  #lives = 0;

  constructor(seed: number, tally: DocumentsTally) {
    const random = this.#random = new SimRandom(seed, "documents");
    this.#tally = tally;
    this.#disk = new DocumentsDisk(
      random.chance(SQLITE_PART)
        ? openSqliteStore({
          path: ":memory:",
          durability: "none",
          intervalMs: 100,
          clock: this.#schedule.clock,
        })
        : createMemoryStore({ epoch: `epoch-${seed}` }),
      {
        commitMs: random.pick([0, 5, 40]),
        failures: random.pick([0, 0, 0.03]),
        slowReads: random.pick([0, 0.2, 1]),
        readFailures: random.pick([0, 0, 0.02]),
        lostNotices: random.pick([0, 0.1]),
      },
      this.#schedule,
      random.fork("disk"),
    );
    this.#nodes = Array.from({ length: 1 + random.below(NODES_MAX) }, () => undefined);
    this.#users = Array.from(
      { length: USERS },
      (_, i) =>
        create(PrincipalSchema, {
          kind: Principal_Kind.USER,
          userId: `user-${i}`,
          username: `u${i}`,
          sessionId: `session-${i}`,
        }),
    );
    this.#link = {
      delayMs: random.pick([0, 10, 60]),
      breaks: random.pick([0, 0.02, 0.1]),
      halfOpenMs: random.pick([0, 500]),
    };
    const isSmall = random.chance(0.3);
    this.#config = {
      ...statesyncConfigSchema.parse({}),
      snapshotEveryEntries: random.pick([3, 10, 1_000]),
      historyEntries: isSmall ? random.pick([5, 10]) : 10_000,
    };
  }

  /** Trouble, then peace, then everything is looked at. */
  async run(): Promise<void> {
    for (const i of this.#nodes.keys()) this.#start(i);
    await this.#until(this.#makeDocuments(), "documents are made");
    this.#enter();
    this.#act("trouble", () => this.#makeTrouble());
    await this.#schedule.run(() => this.#problem !== undefined, TROUBLE_MS);
    this.#throwProblem();
    this.#makePeace();
    const isWell = await this.#schedule.run(
      () => this.#problem !== undefined || (this.#acting === 0 && this.#isInStep()),
      this.#schedule.nowMs + PEACE_MS_MAX,
    );
    this.#throwProblem();
    assert(isWell, this.#describe());
    await this.#checkAll();
    for (const subscriber of this.#subscribers) subscriber.stop();
    await this.#until(Promise.all(this.#nodes.map((node) => node!.close())), "services end");
    await this.#disk.kept.close();
  }

  // ---- what there is ----

  #start(i: number): void {
    const store = this.#disk.open();
    const module = createStatesyncModule({
      store,
      config: this.#config,
      clock: this.#schedule.clock,
      random: this.#random.fork(`node ${this.#lives++}`),
      endOfTurn: this.#schedule.endOfTurn,
      onTrouble: (text, error) => {
        if (!(error instanceof StateSyncError) || error.kind !== "unavailable") {
          this.#fault(new Error(text, { cause: error }));
        }
      },
    });
    const node = new ServiceNode(module, store);
    this.#nodes[i] = node;
    this.#sweep(node, module).catch((error) => this.#fault(error));
  }

  /** What the worker does beside its calls. */
  async #sweep(node: ServiceNode, { service }: StatesyncModule): Promise<void> {
    for (let hasRead = false; node.isUp; await this.#schedule.pause(SWEEP_MS)) {
      try {
        if (!hasRead) await service.readLocks();
        hasRead = true;
        await service.sweepLocks();
      } catch (error) {
        if (!(error instanceof StateSyncError) || error.kind !== "unavailable") throw error;
      }
    }
  }

  #reach(): ServiceNode | undefined {
    const up = this.#nodes.filter((node) => node?.isUp);
    return up.length === 0 ? undefined : this.#random.pick(up);
  }

  async #makeDocuments(): Promise<void> {
    const random = this.#random;
    for (let i = 1 + random.below(DOCUMENTS_MAX); i > 0; i--) {
      const document = { id: `document ${i}: ü/..`, type: random.pick(DOCUMENT_TYPES) };
      const [owner, ...editors] = this.#users.map(({ userId }) => userId);
      await this.#insist(() =>
        this.#reach()!.call("createDocument", {
          docId: document.id,
          name: document.id,
          type: document.type,
          conflictPolicy: random.pick(CONFLICT_POLICIES),
          metadata: { permissions: { owner: owner!, editors } },
        }), [Code.AlreadyExists]);
      this.#documents.push(document);
    }
  }

  /** Asks until the answer is one. */
  async #insist<T>(ask: () => Promise<T>, alsoGood: readonly Code[]): Promise<void> {
    for (;;) {
      try {
        await ask();
        return;
      } catch (error) {
        if (error instanceof ConnectError && alsoGood.includes(error.code)) return;
        if (!mayComeBack(error)) throw error;
      }
      await this.#schedule.pause(10);
    }
  }

  /** Everybody comes. */
  #enter(): void {
    const random = this.#random;
    for (const [d, document] of this.#documents.entries()) {
      for (let i = 1 + random.below(3); i > 0; i--) {
        const editor = new Editor({
          schedule: this.#schedule,
          random: random.fork(`editor ${d} ${i}`),
          profile: this.#link,
          docId: document.id,
          type: document.type,
          principal: random.pick(this.#users),
          reach: () => this.#reach(),
          count: (what) => this.#tally[what]++,
          fault: (error) => this.#fault(error),
        }, 1_000 * (d + 1) + i);
        this.#editors.push(editor);
        editor.connect();
        this.#act("editor", () => this.#edit(editor));
      }
      for (let i = random.below(3); i > 0; i--) {
        this.#act("sender", () => this.#send(document, random.fork(`sender ${d} ${i}`), i));
      }
      for (let i = random.pick([0, 0, 0, 2]); i > 0; i--) {
        this.#act("locker", () => this.#lock(document, random.fork(`locker ${d} ${i}`)));
      }
      if (random.chance(0.3)) {
        this.#act("historian", () => this.#goBack(document, random.fork(`historian ${d}`)));
      }
      this.#act("resolver", () => this.#resolve(document, random.fork(`resolver ${d}`)));
      this.#subscribe(document.id, random.fork(`subscriber ${d}`));
      if (random.chance(0.3)) this.#subscribe(document.id, random.fork(`subscriber ${d} again`));
    }
    this.#subscribe(undefined, random.fork("subscriber of all"));
  }

  #subscribe(docId: string | undefined, random: SimRandom): void {
    const principal = random.pick(this.#users);
    this.#subscribers.push(
      new Subscriber({
        schedule: this.#schedule,
        random,
        docId,
        open: (start, epoch) => this.#openStream(docId, start, epoch, principal),
        mayComeBack,
        isCompacted: this.#config.historyEntries < 1_000,
        last: () => Promise.resolve(this.#lastOf(docId)),
        told: (event) => this.#tell(event),
        count: (what) => this.#tally[what]++,
        fault: (error) =>
          this.#fault(
            new Error(`subscriber of ${docId ?? "all"}: ${error instanceof Error ? error.message : error}`, {
              cause: error,
            }),
          ),
      }),
    );
  }

  #openStream(
    docId: string | undefined,
    start: number,
    epoch: string,
    principal: Principal,
  ): EventStream | undefined {
    const node = this.#reach();
    return docId === undefined
      ? node?.stream("subscribeEvents", { startSequence: BigInt(start), epoch }, principal)
      : node?.stream("subscribeDocument", { docId, startOffset: BigInt(start), epoch }, principal);
  }

  /** What was told of an offset is what anybody is ever told of it. */
  #tell(
    { docId, offset, id }: { readonly docId: string; readonly offset: number; readonly id: string },
  ): void {
    this.#tally.events++;
    const key = `${docId} ${offset}`;
    assertEquals(id, this.#told.get(key) ?? id, `event ${key}`);
    this.#told.set(key, id);
  }

  // ---- what goes wrong ----

  async #makeTrouble(): Promise<void> {
    const random = this.#random;
    const rate = random.pick([20, 100, 400]);
    while (await this.#goesOn(1 + random.below(rate))) {
      const what = random.below(10);
      if (what < 4) random.pick(this.#editors).breakOff();
      else if (what < 6) random.pick(this.#editors).disconnect();
      else if (what < 8) random.pick(this.#editors).connect();
      else this.#killOne();
    }
  }

  #killOne(): void {
    const random = this.#random;
    const i = random.below(this.#nodes.length);
    const node = this.#nodes[i];
    if (node === undefined || !node.isUp) return;
    this.#tally.deaths++;
    node.die(this.#disk);
    this.#act("restart", async () => {
      await this.#checkKept();
      await this.#schedule.pause(random.below(DOWN_MS));
      this.#start(i);
    });
  }

  #makePeace(): void {
    this.#isOver = true;
    this.#disk.isFaulty = false;
    this.#link.breaks = 0;
    for (const editor of this.#editors) editor.connect();
  }

  /** Whether everybody has what is kept. */
  #isInStep(): boolean {
    if (this.#nodes.some((node) => !node?.isUp)) return false;
    if (!this.#editors.every(({ isInStep }) => isInStep)) return false;
    return this.#documents.every(({ id }) => {
      const kept = Y.snapshot(this.#keptContent(id));
      return this.#editors.every((editor) =>
        editor.docId !== id || Y.equalSnapshots(Y.snapshot(editor.doc), kept)
      );
    }) && this.#subscribers.every((subscriber) => subscriber.position === this.#lastOf(subscriber.docId));
  }

  #lastOf(docId: string | undefined): number {
    return docId === undefined
      ? (this.#disk.kept.sequences() as { readonly last: number }).last
      : (this.#disk.kept.record(docId) as { readonly offset: number }).offset;
  }

  // ---- what people and programs do ----

  async #edit(editor: Editor): Promise<void> {
    const random = this.#random.fork(`${editor.name} ${editor.doc.clientID}`);
    while (await this.#goesOn(random.below(150))) {
      editor.edit();
    }
  }

  /** Operations, each sent until it is answered, and now and then again. */
  async #send(document: WorldDocument, random: SimRandom, number: number): Promise<void> {
    const principal = random.pick(this.#users);
    let view = this.#look(document);
    while (await this.#goesOn(random.below(200))) {
      if (random.chance(0.4)) view = this.#look(document);
      const operation = {
        ...makeOperation(document, view, random),
        id: newId(random),
        docId: document.id,
        clientId: `sender-${number}`,
        prevVersion: random.chance(0.3) ? 0n : BigInt(view.version),
        // Some were made a while ago, by their clients' clocks.
        hlc: random.chance(0.6) ? 0n : BigInt(this.#schedule.clock.wallMs() - random.below(500)) << 16n,
      };
      await this.#sendOne(operation, principal, random);
      if (random.chance(0.2) && !this.#refused.has(keyOf(operation))) {
        await this.#sendOne(operation, principal, random);
      }
    }
  }

  async #sendOne(
    operation: MessageInitShape<typeof OperationSchema> & {
      readonly id: string;
      readonly docId: string;
      readonly clientId: string;
    },
    principal: Principal,
    random: SimRandom,
  ): Promise<void> {
    const key = keyOf(operation);
    for (;;) {
      try {
        const answer = await this.#reach()?.call("applyOperation", { operation }, principal);
        if (answer !== undefined) return this.#answer(key, answer);
      } catch (error) {
        if (error instanceof ConnectError && REFUSALS.has(error.code) && !this.#answered.has(key)) {
          this.#tally.refusedOperations++;
          this.#refused.add(key);
          return;
        }
        if (!mayComeBack(error)) {
          throw new Error(`operation ${operation.id} of type ${operation.type}: ${error}`, { cause: error });
        }
      }
      await this.#schedule.pause(random.below(50));
    }
  }

  #answer(key: string, answer: ApplyOperationResponse): void {
    const { operation, version, offset, repeatedOperation } = answer;
    const before = this.#answered.get(key);
    assert(!this.#refused.has(key), `operation ${key} was refused before`);
    if (before === undefined) {
      this.#tally.operations++;
      if (operation!.status === "conflict") this.#tally.conflicts++;
      if (operation!.status === "rejected") this.#tally.rejected++;
      this.#answered.set(key, answer);
      return;
    }
    this.#tally.repeated++;
    assert(repeatedOperation, `operation ${key} was made twice`);
    assertEquals([version, offset], [before.version, before.offset], `answers to ${key}`);
    if (before.operation!.status !== "conflict") assertEquals(operation!.status, before.operation!.status);
  }

  async #lock({ id: docId }: WorldDocument, random: SimRandom): Promise<void> {
    while (await this.#goesOn(random.below(200))) {
      const principal = random.pick(this.#users);
      const objectId = random.chance(0.5) ? "" : random.pick(["a", "b", "A1"]);
      try {
        const node = this.#reach();
        if (node === undefined) continue;
        await node.call("acquireLock", { docId, objectId, ttlMs: LOCK_TTL_MS, sessionId: "" }, principal);
        this.#tally.locks++;
        await this.#schedule.pause(random.below(LOCK_HELD_MS));
        if (random.chance(0.5)) await this.#reach()?.call("releaseLock", { docId, objectId }, principal);
      } catch (error) {
        if (isCode(error, Code.FailedPrecondition)) this.#tally.lockRefusals++;
        else if (!mayComeBack(error) && !isCode(error, Code.InvalidArgument)) throw error;
      }
    }
  }

  /** Names versions, goes back to one, takes edits back. */
  async #goBack({ id: docId }: WorldDocument, random: SimRandom): Promise<void> {
    while (await this.#goesOn(random.below(800))) {
      const principal = random.pick(this.#users);
      const version = BigInt(1 + random.below(Number(this.#versionOf(docId))));
      try {
        const what = random.below(3);
        if (what === 0) {
          await this.#reach()?.call("nameVersion", { docId, version, name: `v${version}` }, principal);
        } else if (what === 1) {
          await this.#reach()?.call("restoreVersion", { docId, version }, principal);
          this.#tally.restores++;
        } else {
          await this.#reach()?.call("undoEdits", { docId, count: 1 + random.below(3) }, principal);
          this.#tally.undos++;
        }
      } catch (error) {
        const isFine = mayComeBack(error) ||
          [Code.FailedPrecondition, Code.OutOfRange, Code.NotFound].some((code) => isCode(error, code));
        if (!isFine) throw error;
      }
    }
  }

  async #resolve({ id: docId }: WorldDocument, random: SimRandom): Promise<void> {
    while (await this.#goesOn(random.below(500))) {
      const principal = random.pick(this.#users);
      try {
        const open = await this.#reach()?.call("listConflicts", { docId, open: true }, principal);
        if (open === undefined || open.conflicts.length === 0) continue;
        const conflict = random.pick(open.conflicts);
        await this.#reach()?.call("resolveConflict", {
          docId,
          conflictId: conflict.id,
          choice: random.pick(["mine", "theirs", "merge"]),
        }, principal);
        this.#tally.resolved++;
      } catch (error) {
        const isFine = mayComeBack(error) ||
          [Code.FailedPrecondition, Code.OutOfRange, Code.NotFound, Code.AlreadyExists, Code.InvalidArgument]
            .some((code) => isCode(error, code));
        if (!isFine) throw error;
      }
    }
  }

  /** The document as it is kept at this moment. */
  #look({ id, type }: WorldDocument): View {
    const doc = this.#keptContent(id);
    const objects = type === "whiteboard" || type === "canvas" ? [...doc.getMap("objects").keys()] : [];
    return {
      version: Number(this.#versionOf(id)),
      length: doc.getText("content").length,
      objects: new Set(objects.filter((key) => key.endsWith("/kind")).map((key) => key.slice(0, -5))),
    };
  }

  #versionOf(docId: string): bigint {
    return BigInt((this.#disk.kept.record(docId) as { readonly version: number }).version);
  }

  #keptContent(docId: string): Y.Doc {
    return contentOf(this.#disk.kept.load(docId) as Loaded);
  }

  // ---- what must hold ----

  /** Nothing that was acknowledged is gone. */
  #checkKept(): Promise<void> {
    for (const { id } of this.#documents) {
      const kept = Y.snapshot(this.#keptContent(id));
      for (const editor of this.#editors) {
        if (editor.docId !== id) continue;
        for (const update of editor.acknowledged) {
          assert(
            Y.snapshotContainsUpdate(kept, update),
            `${id}: an edit that was acknowledged to ${editor.name} is gone`,
          );
        }
      }
    }
    return Promise.resolve();
  }

  async #checkAll(): Promise<void> {
    await this.#checkKept();
    for (const { id } of this.#documents) {
      const record = (await this.#disk.kept.record(id))!;
      const entries = await this.#disk.kept.entries(id, 1, 10_000);
      const oldest = entries[0]?.offset ?? record.offset + 1;
      assertEquals(
        entries.map(({ offset }) => offset),
        Array.from({ length: entries.length }, (_, i) => oldest + i),
        "offsets of entries",
      );
      assertEquals(entries.at(-1)?.offset ?? record.offset, record.offset, "the last offset");
      let version = 0;
      for (const entry of entries) {
        assert(entry.version >= version, `version ${entry.version} after ${version}`);
        version = entry.version;
      }
      this.#checkOperations(id, entries, oldest);
      checkLocks(entries);
      await this.#checkSeen(id, record.version);
    }
  }

  /** Every service tells what is kept, once it has heard of it. */
  async #checkSeen(docId: string, version: number): Promise<void> {
    for (const node of this.#nodes) {
      const read = async () => {
        for (;;) {
          const { document } = await node!.call("getDocument", { docId });
          if (Number(document!.version) >= version) return document!;
          await this.#schedule.pause(10);
        }
      };
      const { type, content } = await this.#until(read(), `a service tells version ${version} of ${docId}`);
      if (type !== "text") continue;
      const text = this.#keptContent(docId).getText("content").toString();
      assertEquals(new TextDecoder().decode(content), text, "content as it is told");
    }
  }

  /** Each operation that was answered is there once, as it was answered; none that was refused is. */
  #checkOperations(docId: string, entries: readonly StoredEntry[], oldest: number): void {
    const byKey = new Map<string, StoredEntry>();
    for (const entry of entries) {
      if (entry.operationKey === undefined) continue;
      const key = `${docId}\n${entry.operationKey}`;
      assert(!byKey.has(key), `operation ${key} is there twice`);
      byKey.set(key, entry);
    }
    for (const [key, { offset, version }] of this.#answered) {
      if (!key.startsWith(`${docId}\n`) || Number(offset) < oldest) continue;
      const entry = byKey.get(key);
      assert(entry !== undefined, `operation ${key} was answered and is gone`);
      assertEquals([entry.offset, entry.version], [Number(offset), Number(version)], `place of ${key}`);
    }
    for (const key of this.#refused) assert(!byKey.has(key), `operation ${key} was refused and is there`);
  }

  // ---- the rest ----

  /** Lets time pass; false when the trouble is over. */
  async #goesOn(ms: number): Promise<boolean> {
    if (!this.#isOver) await this.#schedule.pause(ms);
    return !this.#isOver;
  }

  /** Lets something go on until it ends. */
  #act(what: string, act: () => Promise<void>): void {
    this.#acting++;
    act().catch((error) =>
      this.#fault(new Error(`${what}: ${error instanceof Error ? error.message : error}`, { cause: error }))
    )
      .finally(() => this.#acting--);
  }

  async #until<T>(promise: Promise<T>, what: string): Promise<T> {
    let result: { readonly value: T } | { readonly error: unknown } | undefined;
    promise.then((value) => result = { value }, (error) => result = { error });
    await this.#schedule.run(
      () => result !== undefined || this.#problem !== undefined,
      this.#schedule.nowMs + PEACE_MS_MAX,
    );
    this.#throwProblem();
    assert(result !== undefined, `never so: ${what}`);
    if ("error" in result) throw result.error;
    return result.value;
  }

  #fault(error: unknown): void {
    this.#problem ??= { error };
  }

  #throwProblem(): void {
    if (this.#problem !== undefined) throw this.#problem.error;
  }

  #describe(): string {
    const editors = this.#editors.map((editor) =>
      `${editor.name} on ${editor.docId}: ${editor.isInStep ? "in step" : "not in step"}, ${
        Y.equalSnapshots(Y.snapshot(editor.doc), Y.snapshot(this.#keptContent(editor.docId)))
          ? "equal"
          : "other content"
      }`
    );
    const subscribers = this.#subscribers.map((subscriber) =>
      `${subscriber.docId ?? "all"}: ${subscriber.position} of ${this.#lastOf(subscriber.docId)}`
    );
    return `not in step after ${PEACE_MS_MAX} ms; ${this.#acting} still act\n${
      [...editors, ...subscribers].join("\n")
    }`;
  }
}

function keyOf(
  { docId, clientId, id }: { readonly docId: string; readonly clientId: string; readonly id: string },
): string {
  return `${docId}\n${clientId}\0${id}`;
}

interface View {
  readonly version: number;
  readonly length: number;
  readonly objects: ReadonlySet<string>;
}

function makeOperation(
  { type }: WorldDocument,
  view: View,
  random: SimRandom,
): MessageInitShape<typeof OperationSchema> {
  if (type === "text") {
    const at = random.below(view.length + 1);
    const length = Math.min(view.length - at, random.below(5));
    const edit = random.chance(0.6) || length === 0
      ? { index: at, insert: `[op ${random.below(100)}]` }
      : { index: at, delete: length };
    return { type: "text", payload: { case: "text", value: { edits: [edit] } } };
  }
  if (type === "sheet") {
    const cell = random.pick(["A1", "A2", "B1"]);
    const value = { kind: { case: "numberValue" as const, value: random.below(100) } };
    return { type: "update", payload: { case: "cells", value: { edits: [{ cell, value }] } } };
  }
  const objectId = random.pick(["a", "b", "c"]);
  if (!view.objects.has(objectId)) {
    return { type: "create", payload: { case: "object", value: { objectId, kind: "note", x: 1, y: 2 } } };
  }
  const what = random.pick(["move", "update", "delete", "style"] as const);
  const colour = { kind: { case: "stringValue" as const, value: random.pick(["red", "green"]) } };
  return {
    type: what,
    payload: {
      case: "object",
      value: {
        objectId,
        ...(what === "move" ? { x: random.below(100), y: random.below(100) } : {}),
        ...(what === "update" || what === "style" ? { properties: { color: colour } } : {}),
      },
    },
  };
}

/** While one user held a lock, for as long as the entries say, nobody else edited what it covers by an operation; nor did
 *  anybody else edit anything at all while the document was locked. */
function checkLocks(entries: readonly StoredEntry[]): void {
  const held = new Map<string, NonNullable<StoredEntry["lock"]>>();
  for (const entry of entries) {
    if (entry.type === "lock_acquired") held.set(entry.lock!.objectId, entry.lock!);
    else if (entry.type === "lock_released") held.delete(entry.lock!.objectId);
    if (entry.update === undefined) continue;
    const payload = entry.operation?.payload;
    const objects = payload?.case === "object"
      ? [payload.value.objectId]
      : payload?.case === "cells"
      ? payload.value.edits.map(({ cell }) => cell)
      : [];
    for (const name of ["", ...objects]) {
      const lock = held.get(name);
      if (lock === undefined || lock.userId === entry.userId || lock.expiresAtMs <= entry.atMs) continue;
      if (!changesAnything(entries, entry)) continue;
      throw new Error(
        `entry ${entry.offset} by ${entry.userId} edits what ${lock.userId} has locked until ${lock.expiresAtMs}`,
      );
    }
  }
}

/** Whether something can be seen of an edit: what was made and deleted again while offline is kept, and touches nothing. Said of
 *  those whose entries are all there. */
function changesAnything(entries: readonly StoredEntry[], { offset, update }: StoredEntry): boolean {
  if (entries[0]!.offset > 1) return false;
  const updates = entries.flatMap((entry) => entry.offset < offset ? entry.update ?? [] : []);
  const doc = contentOf({ snapshot: undefined, updates: updates.map((update) => ({ update })) });
  const before = seen(doc);
  Y.applyUpdate(doc, update!);
  return seen(doc) !== before;
}

function seen(doc: Y.Doc): string {
  const texts = ["content", ...["a", "b", "c"].map((id) => `text:${id}`)].map((name) =>
    doc.getText(name).toDelta()
  );
  return JSON.stringify([texts, doc.getMap("objects").toJSON(), doc.getMap("cells").toJSON()]);
}

type Loaded = {
  readonly snapshot: { readonly state: Uint8Array } | undefined;
  readonly updates: readonly { readonly update: Uint8Array }[];
};

function contentOf({ snapshot, updates }: Loaded): Y.Doc {
  const doc = new Y.Doc();
  doc.transact(() => {
    if (snapshot !== undefined) Y.applyUpdate(doc, snapshot.state);
    for (const { update } of updates) Y.applyUpdate(doc, update);
  });
  assert(
    doc.store.pendingStructs === null && doc.store.pendingDs === null,
    "what is kept builds on something that is not",
  );
  return doc;
}

function mayComeBack(error: unknown): boolean {
  return error instanceof Lost || (error instanceof ConnectError && FOR_LATER.has(error.code));
}

function isCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code;
}

function newId(random: SimRandom): string {
  return formatGuuid(random.fill(new Uint8Array(GUUID_BYTES)));
}
