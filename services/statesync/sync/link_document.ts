/** One document on one link: what became durable since its gateway was told last, and the presence of others. */
import { mergeUpdates } from "yjs";
import type { DocumentOutput } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import type { LiveDocument } from "../live.ts";

/** Bytes of edits that may wait for a gateway which is not ready. It is ready again some milliseconds after it got the last
 *  ones, so one that lets so much gather has stopped; its clients come back and ask for what they lack. */
export const WAITING_BYTES_MAX = 16 * 1_024 * 1_024;
/** Bytes of presence that may wait; older ones go first, since newer ones say more. */
export const PRESENCE_BYTES_MAX = 1_024 * 1_024;
/** Bytes of edits that are merged into one update at a time. */
const MERGED_BYTES_MAX = 1_024 * 1_024;
/** How long edits wait for more to go with them, in milliseconds: so much for each client that gets them, since what an edit costs is
 *  mostly what sending something to each client costs. With few clients that is nothing, with many it is less than eyes see. */
const HOLD_MS_PER_CLIENT = 0.04;
const HOLD_MS_MAX = 20;
/** An edit goes at once when the last one is longer ago than so many times that: nothing is about to come. */
const SPARSE_FACTOR = 4;
/** What an output takes besides its bytes, about. */
const OUTPUT_BYTES = 16;

/** Time, passed in. */
export interface SyncTimer {
  /** Monotonic milliseconds. */
  now(): number;
  /** Calls `fn` once, `delayMs` milliseconds from now; the returned function cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

/** What `take` took. */
interface Taken {
  readonly output: DocumentOutput | undefined;
  readonly bytes: number;
  readonly hasMore: boolean;
}

/** What a document is made of. */
export interface LinkDocumentDeps {
  readonly live: LiveDocument;
  readonly number: number;
  readonly timer: SyncTimer;
  /** It has something to send. */
  onWaiting(document: LinkDocument): void;
  /** More waits than may. */
  onOverflow(document: LinkDocument): void;
}

/** A document that a link has open. */
export class LinkDocument {
  readonly live: LiveDocument;
  readonly number: number;
  /** Channels of the link that have it open. */
  readonly channels: Set<number> = new Set();
  readonly #deps: LinkDocumentDeps;
  readonly #stop: () => void;
  #updates: Uint8Array[] = [];
  #waitingBytes = 0;
  #presence: Uint8Array[] = [];
  #presenceBytes = 0;
  #isReady = true;
  /** When edits were taken last. */
  #takenAtMs = -Infinity;
  /** Edits wait for more. */
  #cancelHold: (() => void) | undefined;
  #wantsPresence = false;
  #toldWantsPresence = false;

  constructor(deps: LinkDocumentDeps) {
    this.#deps = deps;
    this.live = deps.live;
    this.number = deps.number;
    this.#stop = deps.live.listen({ onUpdate: (update) => this.#onUpdate(update) });
  }

  /** The gateway has given the last content to all clients. */
  ready(): void {
    this.#isReady = true;
    if (this.#updates.length > 0 && this.#cancelHold === undefined) this.#deps.onWaiting(this);
  }

  /** Presence of clients of another gateway. */
  presence(update: Uint8Array): void {
    this.#presence.push(update);
    this.#presenceBytes += update.length;
    while (this.#presenceBytes > PRESENCE_BYTES_MAX && this.#presence.length > 1) {
      this.#presenceBytes -= this.#presence.shift()!.length;
    }
    this.#deps.onWaiting(this);
  }

  /** Whether the gateway is to pass its clients' presence on. */
  set wantsPresence(wants: boolean) {
    this.#wantsPresence = wants;
    if (wants !== this.#toldWantsPresence) this.#deps.onWaiting(this);
  }

  /** Takes what may be sent now, about `room` bytes of it. An update that is larger than that comes when it has a message to
   *  itself (`isAlone`); `hasMore` says that something is left which could be sent. */
  take(room: number, isAlone: boolean): Taken {
    const first = this.#isReady && this.#cancelHold === undefined ? this.#updates[0] : undefined;
    if (first !== undefined && first.length > room && !isAlone) return { ...NOTHING, hasMore: true };
    const update = first === undefined ? undefined : this.#takeUpdates(room);
    const isLarge = update !== undefined && update.length > MERGED_BYTES_MAX;
    const presence = isLarge ? [] : this.#presence;
    const presenceBytes = isLarge ? 0 : this.#presenceBytes;
    if (!isLarge) {
      this.#presence = [];
      this.#presenceBytes = 0;
    }
    const wants = this.#wantsPresence;
    const isNews = wants !== this.#toldWantsPresence;
    this.#toldWantsPresence = wants;
    if (update === undefined && presence.length === 0 && !isNews) return NOTHING;
    if (update !== undefined) {
      this.#isReady = false;
      this.#takenAtMs = this.#deps.timer.now();
    }
    const output: DocumentOutput = {
      $typeName: "aetherflow.statesync.v1.DocumentOutput",
      document: this.number,
      update: (update ?? NO_BYTES) as Uint8Array<ArrayBuffer>,
      presence: presence as Uint8Array<ArrayBuffer>[],
      ...(isNews ? { wantsPresence: wants } : {}),
    };
    const bytes = OUTPUT_BYTES + output.update.length + presenceBytes;
    return { output, bytes, hasMore: this.#presence.length > 0 };
  }

  /** Hears of nothing more. */
  close(): void {
    this.#stop();
    this.#cancelHold?.();
    this.#updates = [];
    this.#presence = [];
  }

  #onUpdate(update: Uint8Array): void {
    this.#updates.push(update);
    this.#waitingBytes += update.length;
    if (this.#waitingBytes > WAITING_BYTES_MAX) return this.#deps.onOverflow(this);
    if (this.#updates.length === 1) this.#hold();
    if (this.#isReady && this.#cancelHold === undefined) this.#deps.onWaiting(this);
  }

  /** Lets the first of some edits wait for the others. */
  #hold(): void {
    const { timer } = this.#deps;
    const holdMs = Math.min(this.channels.size * HOLD_MS_PER_CLIENT, HOLD_MS_MAX);
    if (holdMs < 1 || timer.now() - this.#takenAtMs > holdMs * SPARSE_FACTOR) return;
    this.#cancelHold = timer.after(holdMs, () => {
      this.#cancelHold = undefined;
      if (this.#isReady) this.#deps.onWaiting(this);
    });
  }

  #takeUpdates(room: number): Uint8Array {
    const most = Math.min(room, MERGED_BYTES_MAX);
    let count = 0;
    let bytes = 0;
    while (count < this.#updates.length && (count === 0 || bytes + this.#updates[count]!.length <= most)) {
      bytes += this.#updates[count++]!.length;
    }
    const taken = this.#updates.splice(0, count);
    this.#waitingBytes -= bytes;
    return taken.length === 1 ? taken[0]! : mergeUpdates(taken);
  }
}

const NO_BYTES = new Uint8Array(0);
const NOTHING: Taken = { output: undefined, bytes: 0, hasMore: false };
