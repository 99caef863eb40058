/** One client's view of one document: what is said in both directions, whatever protocol it is said in.
 *
 *      opening ── opened ──► open ──► closed
 *         └── not let in, link lost ───┘
 */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { ClientUpdate } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import type { Bagged } from "../../../transport/rpc/bag.ts";
import { GatewayError } from "../problem.ts";
import type { CloseName } from "../sockets/close_codes.ts";
import { newPresenceOwner, type SyncDocument } from "./document.ts";
import { BadMessage, type Framing } from "./frames.ts";
import type { Link, Links } from "./link.ts";
import type { PresenceOwner } from "./presence.ts";

/** What a client may have sent before its document is open, in messages: its providers send three. */
export const EARLY_MESSAGES_MAX = 1_024;
/** Bytes of a client's updates that are not known to be on disk, with UPDATE_EXTRA_BYTES each; a socket cannot be told to wait, so
 *  more closes it. A client that replays a long history at once stays below. */
export const UNSAVED_BYTES_MAX = 32 * 1_024 * 1_024;
/** What an update takes besides its bytes while it is under way. */
export const UPDATE_EXTRA_BYTES = 64;
/** Questions of a client under way. */
export const QUESTIONS_MAX = 8;

/** What a client's update was: an answer to our question, or an edit. */
export type UpdateKind = "answer" | "edit";

/** The protocol's side of a channel. */
export interface Speaker {
  readonly framing: Framing;
  send(frame: Uint8Array): void;
  /** Sends frames that may be large, in turn with those of others. Calls `onSent` when they were given to the socket. */
  sendState(frames: readonly Uint8Array[], onSent: () => void): void;
  /** The document is open; `stateVector` is the service's, for the client to send what it has more. */
  onOpened(access: string, stateVector: Uint8Array): void;
  onAccess(access: string): void;
  /** The client is to send what the service lacks. */
  onAsk(stateVector: Uint8Array): void;
  /** An update is on disk. */
  onSaved(update: SentUpdate): void;
  onRefused(update: SentUpdate, code: number, reason: string): void;
  /** The channel has ended, other than by `close`. */
  onClosed(why: CloseName, reason: string): void;
}

/** What a channel is for. */
export interface ChannelOptions {
  readonly docId: string;
  readonly principal: Principal;
  /** "" makes no document. */
  readonly createType: string;
  readonly speaker: Speaker;
  /** Asks whether the client still is who it was. Rejects with a GatewayError when it is not, or that cannot be found out. */
  confirm(): Promise<void>;
}

/** An update of a client that was passed on. */
export interface SentUpdate {
  /** Rises by one within the channel. */
  readonly number: number;
  readonly kind: UpdateKind;
  /** Questions that the client had asked before it. */
  readonly round: number;
  /** What it counts for while it is under way. */
  readonly bytes: number;
}

type Early = readonly [what: "question" | "answer" | "edit" | "presence", bytes: Uint8Array];

/** A channel. */
export class Channel implements Bagged {
  bagIndex = -1;
  readonly framing: Framing;
  readonly presence: PresenceOwner;
  readonly #links: Links;
  readonly #options: ChannelOptions;
  #link: Link | undefined;
  /** Its number on the link. */
  #number = 0;
  #document: SyncDocument | undefined;
  #isClosed = false;
  #early: Early[] = [];
  #earlyBytes = 0;
  /** In the order of numbers; those before `#unsavedAt` are done. */
  #unsaved: (SentUpdate | undefined)[] = [];
  #unsavedAt = 0;
  #unsavedBytes = 0;
  #lastNumber = 0;
  /** Updates that wait until it is known that their client may still send them. */
  #held: ClientUpdate[] = [];
  #isConfirming = false;
  #questions = 0;
  #rounds = 0;

  constructor(links: Links, options: ChannelOptions) {
    this.#links = links;
    this.#options = options;
    this.framing = options.speaker.framing;
    this.presence = newPresenceOwner(options.principal.userId);
  }

  get docId(): string {
    return this.#options.docId;
  }

  /** Its number on the link. */
  get number(): number {
    return this.#number;
  }

  /** Questions that the client has asked. */
  get rounds(): number {
    return this.#rounds;
  }

  /** Undefined until it is open. */
  get document(): SyncDocument | undefined {
    return this.#document;
  }

  /** Begins. Ends by `onClosed` if the service cannot be reached. */
  open(): void {
    const { docId, principal, createType } = this.#options;
    const link = this.#links.of(docId);
    if (link === undefined) return this.end("unavailable", "no document service is there");
    this.#link = link;
    this.#number = link.open(this, docId, principal, createType);
  }

  /** The client asks for what its state vector lacks. */
  question(stateVector: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#document === undefined) return this.#keep("question", stateVector);
    if (this.#questions >= QUESTIONS_MAX) {
      return this.end("tooFast", `${QUESTIONS_MAX} questions are under way`);
    }
    this.#questions++;
    this.#rounds++;
    this.#document.question(this, stateVector);
  }

  /** The client has edited, or answers what it was asked. */
  update(kind: UpdateKind, update: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#document === undefined) return this.#keep(kind, update);
    const bytes = update.length + UPDATE_EXTRA_BYTES;
    this.#unsavedBytes += bytes;
    if (this.#unsavedBytes > UNSAVED_BYTES_MAX || !this.#links.reserve(bytes)) {
      this.#unsavedBytes -= bytes;
      return this.end("tooFast", "too many edits are not saved yet");
    }
    const number = ++this.#lastNumber;
    this.#unsaved.push({ number, kind, round: this.#rounds, bytes });
    this.#links.metrics.received(update.length);
    this.#held.push({
      $typeName: "aetherflow.statesync.v1.ClientUpdate",
      update: update as Uint8Array<ArrayBuffer>,
      number,
    });
    if (!this.#isConfirming) void this.#confirm();
  }

  /** The client shows who is there. @throws {BadMessage} */
  showPresence(update: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#document === undefined) return this.#keep("presence", update);
    this.#document.showPresence(this, update);
  }

  /** The client wants to know who is there. */
  queryPresence(): void {
    this.#document?.sendPresence(this);
  }

  send(frame: Uint8Array): void {
    if (!this.#isClosed) this.#options.speaker.send(frame);
  }

  /** Answers one question. */
  sendState(frames: readonly Uint8Array[]): void {
    if (!this.#isClosed) this.#options.speaker.sendState(frames, () => void this.#questions--);
  }

  // ---- what the link says ----

  onOpened(document: SyncDocument, access: string, stateVector: Uint8Array): void {
    this.#document = document;
    document.add(this);
    this.#options.speaker.onOpened(access, stateVector);
    const early = this.#early;
    this.#early = [];
    try {
      for (const [what, bytes] of early) {
        if (what === "question") this.question(bytes);
        else if (what === "presence") this.showPresence(bytes);
        else this.update(what, bytes);
      }
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error;
      this.end("badMessage", error.message);
    }
  }

  onAccess(access: string): void {
    if (!this.#isClosed) this.#options.speaker.onAccess(access);
  }

  onAsk(stateVector: Uint8Array): void {
    if (!this.#isClosed) this.#options.speaker.onAsk(stateVector);
  }

  /** All updates up to `number` that were not refused are on disk. */
  onSaved(number: number): void {
    for (; this.#unsavedAt < this.#unsaved.length; this.#unsavedAt++) {
      const next = this.#unsaved[this.#unsavedAt];
      if (next === undefined) continue; // refused
      if (next.number > number) break;
      this.#release(next.bytes);
      this.#options.speaker.onSaved(next);
      if (this.#isClosed) return;
    }
    this.#cut();
  }

  onRefused(number: number, code: number, reason: string): void {
    // Numbers rise by one, so that the place is known from the last.
    const at = this.#unsaved.length - 1 - (this.#lastNumber - number);
    const refused = this.#unsaved[at];
    if (refused === undefined) return;
    this.#unsaved[at] = undefined;
    this.#release(refused.bytes);
    while (this.#unsavedAt < this.#unsaved.length && this.#unsaved[this.#unsavedAt] === undefined) {
      this.#unsavedAt++;
    }
    this.#cut();
    this.#options.speaker.onRefused(refused, code, reason);
  }

  /** Ends it from this side or the service's, and tells the protocol. */
  end(why: CloseName, reason: string): void {
    if (this.#isClosed) return;
    this.close();
    this.#options.speaker.onClosed(why, reason);
  }

  /** The client leaves. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#early = [];
    this.#unsaved = [];
    this.#links.release(this.#unsavedBytes);
    this.#unsavedBytes = 0;
    // What it sent before it went is passed on before.
    if (!this.#isConfirming) this.#leave();
  }

  #leave(): void {
    this.#link?.close(this.#number, this, this.#document);
  }

  /** Passes updates on whose client is asked about after they came: what is sent after a revocation is not taken. */
  async #confirm(): Promise<void> {
    this.#isConfirming = true;
    try {
      while (this.#held.length > 0) {
        const held = this.#held;
        this.#held = [];
        await this.#options.confirm();
        for (const value of held) {
          this.#link!.input(
            this.#number,
            { case: "update", value },
            value.update.length + UPDATE_EXTRA_BYTES,
          );
        }
      }
    } catch (error) {
      this.#held = [];
      const isKnown = error instanceof GatewayError && error.code === "unauthenticated";
      this.end(isKnown ? "unauthenticated" : "unavailable", (error as Error).message);
    }
    this.#isConfirming = false;
    if (this.#isClosed) this.#leave();
  }

  #cut(): void {
    if (this.#unsavedAt < CUT_AFTER && this.#unsavedAt < this.#unsaved.length) return;
    this.#unsaved.splice(0, this.#unsavedAt);
    this.#unsavedAt = 0;
  }

  #release(bytes: number): void {
    this.#unsavedBytes -= bytes;
    this.#links.release(bytes);
  }

  #keep(what: Early[0], bytes: Uint8Array): void {
    this.#earlyBytes += bytes.length;
    if (this.#early.length >= EARLY_MESSAGES_MAX || this.#earlyBytes > this.#links.maxMessageBytes) {
      return this.end("tooFast", "too much came before the document was open");
    }
    this.#early.push([what, bytes]);
  }
}

/** Settled updates after which they are let go of, at the latest: one by one would move all that are behind. */
const CUT_AFTER = 1_024;
