/** Hocuspocus's protocol: several documents on one socket, each with a token of its own.
 *
 *      name ── first message ──► waiting ── token ──► authenticating ──► opening ──► open
 *                                    ▲                     └── denied ──────┴───► shut until the next token
 *
 *  The client counts its edits that are not saved: 1 when it asks for the document, one more with each edit, one less with each
 *  SyncStatus(true). So that its count is 0 only when all is on disk, there is one true for each edit on disk, and one for the
 *  answer that follows its question; an edit that was refused is counted until an answer that has it is on disk. */
import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import type { CloseName } from "../sockets/close_codes.ts";
import type { Timer } from "../timer.ts";
import { Channel, EARLY_MESSAGES_MAX, type SentUpdate, type Speaker } from "./channel.ts";
import {
  askFrame,
  AUTH,
  authDeniedFrame,
  authenticatedFrame,
  BadMessage,
  closeFrame,
  type Framing,
  isEmptyUpdate,
  MESSAGE,
  namedFraming,
  PING_FRAME,
  Reader,
  statelessFrame,
  SYNC,
  syncStatusFrame,
} from "./frames.ts";
import type { Links } from "./link.ts";
import type { SyncSession, SyncSocket } from "./socket.ts";

/** Longest name of a document with its session, in UTF-16 units. */
const NAME_CHARS_MAX = 512;
/** Stands between the document and the session of a name. */
const SEPARATOR = "\0";
const PONG = Uint8Array.of(MESSAGE.pong);

/** What a session is made of. */
export interface HocuspocusDeps {
  readonly socket: SyncSocket;
  readonly links: Links;
  /** Who opened the socket: tokens that are empty stand for it. */
  readonly caller: Caller;
  /** "" makes no document. */
  readonly createType: string;
  readonly documentsMax: number;
  readonly authTimeoutMs: number;
  readonly timer: Timer;
  /** Who a token stands for. @throws {GatewayError} (or rejects) for one that is none. */
  authenticate(token: string): Caller | Promise<Caller>;
  /** Asks whether a caller still is who it was. */
  confirm(caller: Caller): Promise<void>;
  /** Tells when a caller may not go on; the returned function ends that. */
  follow(caller: Caller, revoke: (error: GatewayError) => void): () => void;
  revoke(error: GatewayError): void;
  refused(reason: string): void;
}

/** A client. */
export class HocuspocusSession implements SyncSession {
  readonly silentFrame = PING_FRAME;
  readonly #deps: HocuspocusDeps;
  /** By name. */
  readonly #documents = new Map<string, OpenDocument>();
  #earlyMessages = 0;
  #earlyBytes = 0;
  #cancelDeadline: () => void;
  #isOver = false;

  constructor(deps: HocuspocusDeps) {
    this.#deps = deps;
    this.#cancelDeadline = deps.timer.after(deps.authTimeoutMs, () => deps.socket.close("authTimeout"));
  }

  onMessage(bytes: Uint8Array): void {
    // Without a name, and so no message for a document whose name is as long as the number.
    if (bytes.length === 1 && bytes[0] === MESSAGE.pong) return;
    if (bytes.length === 1 && bytes[0] === MESSAGE.ping) return this.#deps.socket.send(PONG);
    const reader = new Reader(bytes);
    const name = reader.text();
    if (name === "" || name.length > NAME_CHARS_MAX) throw new BadMessage("it names no document");
    const document = this.#documents.get(name) ?? this.#add(name);
    if (document === undefined) return;
    document.onMessage(reader.number(), reader);
  }

  end(): void {
    this.#isOver = true;
    this.#cancelDeadline();
    for (const document of this.#documents.values()) document.end();
    this.#documents.clear();
  }

  get deps(): HocuspocusDeps {
    return this.#deps;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** A document is open: the client has shown who it is. */
  onOpened(): void {
    this.#cancelDeadline();
  }

  forget(name: string): void {
    this.#documents.delete(name);
  }

  /** Whether a message may wait until its document is open. */
  keepEarly(bytes: number): boolean {
    this.#earlyMessages++;
    this.#earlyBytes += bytes;
    return this.#earlyMessages <= EARLY_MESSAGES_MAX && this.#earlyBytes <= this.#deps.links.maxMessageBytes;
  }

  dropEarly(messages: number, bytes: number): void {
    this.#earlyMessages -= messages;
    this.#earlyBytes -= bytes;
  }

  #add(name: string): OpenDocument | undefined {
    if (this.#documents.size >= this.#deps.documentsMax) {
      this.#deps.socket.close("tooFast", `${this.#deps.documentsMax} documents are open on this socket`);
      return undefined;
    }
    const document = new OpenDocument(this, name);
    this.#documents.set(name, document);
    return document;
  }
}

/** A document of a client. */
class OpenDocument implements Speaker {
  readonly framing: Framing;
  readonly #session: HocuspocusSession;
  readonly #name: string;
  readonly #docId: string;
  readonly #socket: SyncSocket;
  #channel: Channel | undefined;
  #caller: Caller | undefined;
  #unfollow: () => void = () => {};
  #isOpen = false;
  #access = "";
  /** Messages before the token was accepted. */
  #early: [type: number, reader: Reader][] = [];
  #earlyBytes = 0;
  /** Counts tokens: only what the last one stands for matters. */
  #tokens = 0;
  /** Whether the client counts one for its question, which an answer on disk takes off. */
  #owesAnswer = false;
  /** Numbers of edits since its last question that were refused. */
  #refused: number[] = [];
  /** Not this client's any more, or not yet: what it says of it is dropped. */
  #isShut = false;
  #isOver = false;

  constructor(session: HocuspocusSession, name: string) {
    this.#session = session;
    this.#name = name;
    this.#docId = name.split(SEPARATOR, 1)[0]!;
    this.framing = namedFraming(name);
    this.#socket = session.deps.socket;
  }

  onMessage(type: number, reader: Reader): void {
    if (type === MESSAGE.auth) return this.#onAuth(reader);
    if (type === MESSAGE.close) return this.#leave();
    if (this.#isShut) return;
    if (this.#channel !== undefined) return this.#take(type, reader);
    this.#earlyBytes += reader.left;
    this.#early.push([type, reader]);
    if (!this.#session.keepEarly(reader.left)) this.#socket.close("tooFast", "too much came before a token");
  }

  end(): void {
    this.#isOver = true;
    this.#reset();
  }

  send(frame: Uint8Array): void {
    this.#socket.send(frame);
  }

  sendState(frames: readonly Uint8Array[], onSent: () => void): void {
    this.#socket.sendState(frames, onSent);
  }

  onOpened(access: string, stateVector: Uint8Array): void {
    this.#isOpen = true;
    this.#session.onOpened();
    this.onAccess(access);
    this.onAsk(stateVector);
  }

  onAccess(access: string): void {
    this.#access = access;
    this.#socket.send(authenticatedFrame(this.framing, access === "read" ? "readonly" : "read-write"));
  }

  onAsk(stateVector: Uint8Array): void {
    this.#socket.send(askFrame(this.framing, stateVector));
  }

  onSaved({ number, kind, round }: SentUpdate): void {
    if (kind === "answer") return this.#onAnswerSaved(number, round);
    // It counts those since its last question only.
    if (round === this.#channel!.rounds) this.#status(true);
  }

  onRefused({ number, kind, round }: SentUpdate): void {
    this.#status(false);
    if (kind === "edit" && round === this.#channel!.rounds) this.#refused.push(number);
  }

  onClosed(why: CloseName, reason: string): void {
    const isItsOwn = why === "forbidden" || why === "notFound" || why === "unauthenticated";
    if (!isItsOwn) return this.#socket.close(why, reason);
    const frame = this.#isOpen ? closeFrame : authDeniedFrame;
    this.#socket.send(frame(this.framing, reason));
    this.#shut();
  }

  #onAuth(reader: Reader): void {
    if (reader.number() !== AUTH.token) throw new BadMessage("a client shows a token, and nothing else");
    const token = reader.text();
    const count = ++this.#tokens;
    let caller: Caller | Promise<Caller>;
    try {
      caller = token === "" ? this.#session.deps.caller : this.#session.deps.authenticate(token);
    } catch (error) {
      return this.#onDenied(error, count);
    }
    if (!(caller instanceof Promise)) return this.#onCaller(caller, count);
    caller.then(
      (found) => this.#onCaller(found, count),
      (error) => this.#onDenied(error, count),
    );
  }

  #onDenied(error: unknown, count: number): void {
    if (this.#isOver || count !== this.#tokens) return;
    if (!(error instanceof GatewayError) || error.code !== "unauthenticated") {
      return this.#socket.close("unavailable", "it cannot be found out who calls");
    }
    this.#session.deps.refused("token");
    this.#socket.send(authDeniedFrame(this.framing, error.message));
    this.#shut();
  }

  #onCaller(caller: Caller, count: number): void {
    if (this.#isOver || count !== this.#tokens) return;
    if (caller.principal.kind === Principal_Kind.ANONYMOUS) {
      return this.#onDenied(new GatewayError("unauthenticated", "this takes a token"), count);
    }
    const { deps } = this.#session;
    this.#unfollow();
    this.#unfollow = deps.follow(caller, deps.revoke);
    this.#isShut = false;
    const isSame = this.#channel !== undefined && this.#caller?.encoded === caller.encoded;
    this.#caller = caller;
    if (isSame) {
      if (this.#isOpen) this.onAccess(this.#access);
      return;
    }
    // Somebody else from here on: what was not saved under the old name is asked for again.
    this.#channel?.close();
    this.#isOpen = false;
    this.#owesAnswer = false;
    this.#refused = [];
    const { principal } = caller;
    const { links, createType } = deps;
    this.#channel = new Channel(links, {
      docId: this.#docId,
      principal,
      createType,
      speaker: this,
      confirm: () => deps.confirm(caller),
    });
    this.#channel.open();
    for (const [type, reader] of this.#takeOutEarly()) {
      if (this.#isOver) return;
      this.#takeEarly(type, reader);
    }
  }

  #takeEarly(type: number, reader: Reader): void {
    try {
      this.#take(type, reader);
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error;
      this.#socket.close("badMessage", error.message);
    }
  }

  #take(type: number, reader: Reader): void {
    const channel = this.#channel!;
    switch (type) {
      case MESSAGE.sync:
        return this.#onSync(channel, reader);
      case MESSAGE.awareness:
        return channel.showPresence(reader.chunk());
      case MESSAGE.queryAwareness:
        return channel.queryPresence();
      case MESSAGE.stateless:
        this.#session.deps.refused("stateless");
        this.#socket.send(statelessFrame(this.framing, STATELESS_REFUSAL));
        return;
      default:
        throw new BadMessage("its type is none of a client's");
    }
  }

  #onSync(channel: Channel, reader: Reader): void {
    switch (reader.number()) {
      case SYNC.stateVector:
        this.#owesAnswer = true;
        this.#refused = [];
        return channel.question(reader.chunk());
      case SYNC.answer: {
        const update = reader.chunk();
        if (isEmptyUpdate(update)) this.#onAnswerSaved(Infinity, channel.rounds);
        else channel.update("answer", update);
        return;
      }
      case SYNC.update:
        return channel.update("edit", reader.chunk());
      default:
        throw new BadMessage("its kind of sync message is none");
    }
  }

  /** An answer has all that the client had edited before it, what was refused too. */
  #onAnswerSaved(number: number, round: number): void {
    if (round !== this.#channel!.rounds) return;
    if (this.#owesAnswer) this.#status(true);
    this.#owesAnswer = false;
    const after = this.#refused.filter((refused) => refused > number);
    for (let i = after.length; i < this.#refused.length; i++) this.#status(true);
    this.#refused = after;
  }

  #status(isSaved: boolean): void {
    this.#socket.send(syncStatusFrame(this.framing, isSaved));
  }

  /** The client lets go of it. */
  #leave(): void {
    this.end();
    this.#session.forget(this.#name);
  }

  /** It is not this client's until it shows another token. */
  #shut(): void {
    this.#reset();
    this.#isShut = true;
  }

  #reset(): void {
    this.#unfollow();
    this.#unfollow = () => {};
    this.#channel?.close();
    this.#channel = undefined;
    this.#isOpen = false;
    this.#takeOutEarly();
  }

  #takeOutEarly(): [type: number, reader: Reader][] {
    const early = this.#early;
    this.#session.dropEarly(early.length, this.#earlyBytes);
    this.#early = [];
    this.#earlyBytes = 0;
    return early;
  }
}

const STATELESS_REFUSAL = JSON.stringify({
  type: "error",
  code: "unimplemented",
  detail: "stateless messages are for nobody here",
});
