/** Yjs clients of simulated worlds: people who edit on and offline, over connections that break, through a session at a service
 *  that does what a gateway does for one socket. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import * as Y from "yjs";
import { StateSyncError, type StateSyncErrorKind } from "../../services/statesync/errors.ts";
import type { AccessLevel, LiveClient, LiveDocument, LiveDocuments } from "../../services/statesync/live.ts";
import type { DocumentType } from "../../services/statesync/records.ts";
import type { Schedule } from "./documents_schedule.ts";
import type { SimRandom } from "./random.ts";

/** A service as clients reach it; undefined while it is down. */
export interface Reachable {
  readonly live: LiveDocuments;
  /** Sessions that end when it dies. */
  readonly sessions: Set<Session>;
}

/** How connections are. */
export interface LinkProfile {
  /** Longest way of a message, in ms. */
  readonly delayMs: number;
  /** Connections break this often, counted by messages. */
  readonly breaks: number;
  /** Longest time until the server notices that a client has gone, in ms: what it sent may still arrive, beside what it sends
   *  over its next connection. */
  readonly halfOpenMs: number;
}

/** What a client is made of. */
export interface EditorDeps {
  readonly schedule: Schedule;
  readonly random: SimRandom;
  readonly profile: LinkProfile;
  readonly docId: string;
  readonly type: DocumentType;
  readonly principal: Principal;
  /** One of the services that are up; undefined if none is. */
  reach(): Reachable | undefined;
  /** What happened, for the world to count. */
  count(what: EditorEvent): void;
  /** Something that must not happen. */
  fault(error: unknown): void;
}

/** What editors come to. */
export type EditorEvent = "edits" | "saved" | "breaks" | "refusals" | "connects" | "asks" | "offlineEdits";

type ToServer =
  | { readonly kind: "question"; readonly stateVector: Uint8Array }
  | { readonly kind: "update"; readonly update: Uint8Array };

type ToClient =
  | { readonly kind: "question"; readonly stateVector: Uint8Array }
  | { readonly kind: "update"; readonly update: Uint8Array }
  | { readonly kind: "answered" }
  | { readonly kind: "saved"; readonly isSaved: boolean }
  | { readonly kind: "over" };

const RECONNECT_MS = 200;
/** Outcomes of an edit that a well-behaved client may meet. */
const EXPECTED: ReadonlySet<StateSyncErrorKind> = new Set([
  "locked",
  "missing",
  "unavailable",
  "stopped",
  "notFound",
  "denied",
  "notActive",
]);

/** One person's client. */
export class Editor {
  readonly doc: Y.Doc;
  readonly name: string;
  /** Everything that was acknowledged to this client. */
  readonly acknowledged: Uint8Array[] = [];
  readonly #deps: EditorDeps;
  #connection: Connection | undefined;
  /** What was sent over this connection and is not answered yet, in order. */
  #unanswered: Uint8Array[] = [];
  #isWanted = true;
  #isRetrying = false;
  #tokens = 0;

  constructor(deps: EditorDeps, clientId: number) {
    this.#deps = deps;
    this.doc = new Y.Doc();
    this.doc.clientID = clientId;
    this.name = deps.principal.userId;
    this.doc.on("update", (update: Uint8Array, origin: unknown) => {
      if (origin !== this) this.#edited(update);
    });
  }

  /** Whether there is a connection on which everything has been said. */
  get isInStep(): boolean {
    return this.#connection?.isAnswered === true && this.#unanswered.length === 0;
  }

  get docId(): string {
    return this.#deps.docId;
  }

  /** Goes online, if it is not. */
  connect(): void {
    this.#isWanted = true;
    if (this.#connection !== undefined || this.#isRetrying) return;
    const server = this.#deps.reach();
    if (server === undefined) return this.#retry();
    this.#deps.count("connects");
    this.#connection = new Connection(
      this.#deps,
      server,
      (message) => this.#take(message),
      () => this.#closed(),
    );
    this.#connection.send({ kind: "question", stateVector: Y.encodeStateVector(this.doc) });
  }

  /** Goes offline until `connect`. */
  disconnect(): void {
    this.#isWanted = false;
    this.#connection?.break();
  }

  /** The connection breaks; the client comes back by itself. */
  breakOff(): void {
    this.#connection?.break();
  }

  /** Edits something. */
  edit(): void {
    const { random, type } = this.#deps;
    this.#deps.count("edits");
    if (this.#connection === undefined) this.#deps.count("offlineEdits");
    this.doc.transact(() => {
      do editOnce(this.doc, type, random, `${this.name}${this.#tokens++}`); while (random.chance(0.2));
    });
  }

  #edited(update: Uint8Array): void {
    // What is not sent goes with what the server asks for when there is a connection again.
    if (this.#connection?.isAsked !== true) return;
    this.#send(update);
  }

  #send(update: Uint8Array): void {
    this.#unanswered.push(update);
    this.#connection!.send({ kind: "update", update });
  }

  #take(message: ToClient): void {
    switch (message.kind) {
      case "question":
        this.#connection!.isAsked = true;
        this.#send(Y.encodeStateAsUpdate(this.doc, message.stateVector));
        break;
      case "update":
        Y.applyUpdate(this.doc, message.update, this);
        break;
      case "answered":
        this.#connection!.isAnswered = true;
        break;
      case "saved": {
        const update = this.#unanswered.shift()!;
        if (!message.isSaved) break;
        this.#deps.count("saved");
        this.acknowledged.push(update);
        break;
      }
      case "over":
        this.#connection?.break();
    }
  }

  #closed(): void {
    this.#connection = undefined;
    this.#unanswered = [];
    if (this.#isWanted) this.#retry();
  }

  #retry(): void {
    if (this.#isRetrying) return;
    this.#isRetrying = true;
    this.#deps.schedule.after(1 + this.#deps.random.below(RECONNECT_MS), () => {
      this.#isRetrying = false;
      if (this.#isWanted) this.connect();
    });
  }
}

/** A connection as TCP is one: in order and whole until it breaks, and then nothing of what was under way arrives at the client;
 *  at the server what was sent before may. */
class Connection {
  /** Whether the server has asked for what it lacks, and whether it has told what the client lacked. */
  isAsked = false;
  isAnswered = false;
  readonly #deps: EditorDeps;
  readonly #session: Session;
  readonly #onClosed: () => void;
  #isBroken = false;
  #upUntilMs = 0;
  #downUntilMs = 0;
  /** After the break: messages that still arrive at the server. */
  #arriving = Infinity;

  constructor(
    deps: EditorDeps,
    server: Reachable,
    onMessage: (message: ToClient) => void,
    onClosed: () => void,
  ) {
    this.#deps = deps;
    this.#onClosed = onClosed;
    this.#session = new Session(server, deps, (message) => {
      this.#downUntilMs = this.#later(this.#downUntilMs);
      deps.schedule.after(this.#downUntilMs - deps.schedule.nowMs, () => {
        if (!this.#isBroken) onMessage(message);
      });
    });
  }

  send(message: ToServer): void {
    const { schedule, random, profile } = this.#deps;
    this.#upUntilMs = this.#later(this.#upUntilMs);
    schedule.after(this.#upUntilMs - schedule.nowMs, () => {
      if (this.#arriving-- > 0) this.#session.take(message);
    });
    if (random.chance(profile.breaks)) schedule.after(random.below(profile.delayMs + 1), () => this.break());
  }

  break(): void {
    if (this.#isBroken) return;
    const { schedule, random, profile } = this.#deps;
    this.#isBroken = true;
    this.#deps.count("breaks");
    this.#arriving = random.below(4);
    schedule.after(random.below(profile.halfOpenMs + 1), () => {
      this.#arriving = 0;
      this.#session.close();
    });
    this.#onClosed();
  }

  #later(untilMs: number): number {
    const { schedule, random, profile } = this.#deps;
    return Math.max(untilMs, schedule.nowMs + random.below(profile.delayMs + 1));
  }
}

/** What a gateway does for one socket. */
export class Session implements LiveClient {
  readonly principal: Principal;
  readonly #server: Reachable;
  readonly #deps: EditorDeps;
  readonly #tell: (message: ToClient) => void;
  #isOver = false;
  #live: LiveDocument | undefined;
  #unlisten = () => {};
  #waiting: ToServer[] = [];
  /** Updates under way, in order: a client is told in the order in which it sent. */
  #settling: { isSaved: boolean | undefined }[] = [];

  constructor(server: Reachable, deps: EditorDeps, tell: (message: ToClient) => void) {
    this.#server = server;
    this.#deps = deps;
    this.#tell = tell;
    this.principal = deps.principal;
    server.sessions.add(this);
    server.live.join(deps.docId, this, undefined).then(({ document }) => {
      if (this.#isOver) return document.leave(this);
      this.#live = document;
      this.#unlisten = document.listen({ onUpdate: (update) => this.#say({ kind: "update", update }) });
      this.#say({ kind: "question", stateVector: document.stateVector() });
      for (const message of this.#waiting.splice(0)) this.take(message);
    }).catch((error) => this.#end(error));
  }

  take(message: ToServer): void {
    if (this.#isOver) return;
    const live = this.#live;
    if (live === undefined) this.#waiting.push(message);
    else if (message.kind === "question") {
      live.answer(message.stateVector).then((updates) => {
        for (const update of updates) this.#say({ kind: "update", update });
        this.#say({ kind: "answered" });
      }).catch((error) => this.#end(error));
    } else this.#update(live, message.update);
  }

  onAccess(_access: AccessLevel): void {}

  onAskAgain(): void {
    if (this.#live === undefined) return;
    this.#deps.count("asks");
    this.#say({ kind: "question", stateVector: this.#live.stateVector() });
  }

  onClosed(error: Error): void {
    this.#end(error);
  }

  /** The client has gone. */
  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#unlisten();
    this.#live?.leave(this);
    this.#server.sessions.delete(this);
  }

  /** The service has died: the client notices. */
  die(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#tell({ kind: "over" });
  }

  #update(live: LiveDocument, update: Uint8Array): void {
    const settling: { isSaved: boolean | undefined } = { isSaved: undefined };
    this.#settling.push(settling);
    live.update(this, update).then(() => settling.isSaved = true, (error) => {
      if (!(error instanceof StateSyncError) || !EXPECTED.has(error.kind)) return this.#deps.fault(error);
      this.#deps.count("refusals");
      settling.isSaved = false;
      if (error.kind === "missing") this.onAskAgain();
      else if (error.kind !== "locked" && error.kind !== "denied" && error.kind !== "notActive") {
        this.#end(error);
      }
    }).then(() => {
      while (this.#settling[0]?.isSaved !== undefined) {
        this.#say({ kind: "saved", isSaved: this.#settling.shift()!.isSaved! });
      }
    });
  }

  #end(error: unknown): void {
    if (!(error instanceof StateSyncError) || !EXPECTED.has(error.kind)) this.#deps.fault(error);
    if (this.#isOver) return;
    this.#say({ kind: "over" });
    this.close();
  }

  #say(message: ToClient): void {
    if (!this.#isOver) this.#tell(message);
  }
}

// ---- edits ----

const OBJECTS = ["a", "b", "c"];
const CELLS = ["A1", "A2", "B1"];

function editOnce(doc: Y.Doc, type: DocumentType, random: SimRandom, token: string): void {
  if (type === "text") return editText(doc.getText("content"), random, token);
  if (type === "sheet") {
    const cells = doc.getMap("cells");
    const cell = random.pick(CELLS);
    if (random.chance(0.2)) cells.delete(`${cell}/value`);
    else cells.set(`${cell}/${random.pick(["value", "style.bold"])}`, token);
    return;
  }
  const objects = doc.getMap("objects");
  const id = random.pick(OBJECTS);
  if (!objects.has(`${id}/kind`)) objects.set(`${id}/kind`, "note");
  else if (random.chance(0.15)) {
    for (const key of [...objects.keys()]) if (key.startsWith(`${id}/`)) objects.delete(key);
  } else if (random.chance(0.3)) editText(doc.getText(`text:${id}`), random, token);
  else objects.set(`${id}/${random.pick(["x", "y"])}`, random.below(100));
}

function editText(text: Y.Text, random: SimRandom, token: string): void {
  const { length } = text;
  if (length > 0 && random.chance(0.3)) {
    const at = random.below(length);
    text.delete(at, 1 + random.below(Math.min(length - at, 6)));
  } else if (length > 0 && random.chance(0.1)) {
    text.format(0, 1 + random.below(length), { bold: random.chance(0.5) || null });
  } else text.insert(random.below(length + 1), token);
}
