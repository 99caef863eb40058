/** One document's clients on this gateway: what all of them get is encoded once for each framing, and the same bytes go to each.
 *
 *  Rounds. After an update went out, the link is told that the next one may come, not before the sockets had the time to write
 *  it. What becomes durable meanwhile comes as one update: under load the cost of an edit for each client falls with the number
 *  of edits, and what waits does not grow. */
import type { DocumentOutput, SyncAnswer } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { Bag } from "../../../transport/rpc/bag.ts";
import { joinBytes } from "../../runtime/bytes.ts";
import type { Timer } from "../timer.ts";
import type { Channel } from "./channel.ts";
import { answerFrame, awarenessFrame, type Framing, updateFrame } from "./frames.ts";
import type { SyncMetrics } from "./metrics.ts";
import { Presence, type PresenceOwner } from "./presence.ts";

/** Length of a round for each client, in milliseconds: somewhat more than it takes until its socket has written a frame. */
const ROUND_MS_PER_CLIENT = 0.012;
/** Longest round, in milliseconds. */
const ROUND_MS_MAX = 50;
/** Shortest and longest time between two ticks of presence, in milliseconds, and what each client adds. */
const TICK_MS_MIN = 50;
const TICK_MS_MAX = 200;
const TICK_MS_PER_CLIENT = 0.3;
/** How often it is looked for clients that did not renew their presence, in milliseconds. */
const EXPIRY_CHECK_MS = 5_000;
/** States from this size on are kept for whoever asks the same within ANSWER_KEPT_MS, and sent in turns. */
export const LARGE_STATE_BYTES = 64 * 1_024;
/** How long an answer serves others who ask the same, in milliseconds: those who come at the same time, after a restart say. */
const ANSWER_KEPT_MS = 2_000;
/** Edits behind a kept answer, in bytes; beyond, the next one asks anew. */
const ANSWER_EDITS_BYTES = 256 * 1_024;

/** What a document is made of. */
export interface SyncDocumentDeps {
  readonly id: string;
  readonly number: number;
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly metrics: SyncMetrics;
  /** The next edits may come. */
  onReady(): void;
  /** Asks in the name of a channel. */
  ask(channel: Channel, stateVector: Uint8Array): void;
  /** Presence for other gateways. */
  passPresence(update: Uint8Array): void;
}

/** Clients that get the same bytes. */
interface Group {
  readonly framing: Framing;
  readonly members: Bag<Channel>;
}

/** One question to the service, and who waits for the answer. */
interface Question {
  readonly key: string;
  /** Who asked in its name on the link. */
  readonly asker: Channel;
  waiting: Channel[];
  /** Pieces of the update that comes now. */
  pieces: Uint8Array[];
  updates: Uint8Array[];
  isDone: boolean;
  /** Edits that came since it was asked: whoever joins later has not got them, nor may the answer have them. */
  since: Uint8Array[];
  sinceBytes: number;
  /** The answer by framing; the last frame is the one that says it is whole. */
  readonly frames: Map<string, readonly Uint8Array[]>;
  /** Of a kept answer: it is let go of. */
  cancelDrop: (() => void) | undefined;
}

/** A document that clients of this gateway have open. */
export class SyncDocument {
  readonly id: string;
  readonly number: number;
  readonly #deps: SyncDocumentDeps;
  readonly #groups = new Map<string, Group>();
  readonly #presence: Presence;
  #size = 0;
  /** Questions that are open or whose answers are kept, by what was asked. */
  readonly #questions = new Map<string, Question>();
  /** Those of them that are open, by the channel in whose name they are asked, one after the other. */
  readonly #asked = new Map<Channel, Question[]>();
  #wantsPresence = false;
  #lastTickMs = -Infinity;
  #cancelTick: (() => void) | undefined;
  #cancelExpiry: (() => void) | undefined;
  #cancelRound: (() => void) | undefined;
  #presenceFrames = new Map<string, Uint8Array>();
  #presenceWhole: Uint8Array | undefined;
  /** As many of its client ids as the metrics have. */
  #countedPresence = 0;
  #isClosed = false;

  constructor(deps: SyncDocumentDeps) {
    this.id = deps.id;
    this.number = deps.number;
    this.#deps = deps;
    this.#presence = new Presence((reason) => deps.metrics.refused(`presence_${reason}`));
  }

  /** Clients here. */
  get size(): number {
    return this.#size;
  }

  /** Client ids that show presence. */
  get presenceSize(): number {
    return this.#presence.size;
  }

  /** From here on a channel gets what all get. */
  add(channel: Channel): void {
    const { framing } = channel;
    let group = this.#groups.get(framing.key);
    if (group === undefined) this.#groups.set(framing.key, group = { framing, members: new Bag() });
    group.members.add(channel);
    this.#size++;
    this.sendPresence(channel);
  }

  /** The channel has ended. */
  delete(channel: Channel): void {
    const group = this.#groups.get(channel.framing.key);
    if (group === undefined || channel.bagIndex < 0) return;
    group.members.delete(channel);
    this.#size--;
    if (group.members.size === 0) this.#groups.delete(channel.framing.key);
    this.#passQuestionsOn(channel);
    this.#presence.leave(channel.presence);
    if (this.#size > 0) this.#scheduleTick();
    else if (this.#wantsPresence) this.#tick(); // those elsewhere are to hear of it
  }

  /** Lets go of its timers. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTick?.();
    this.#cancelExpiry?.();
    this.#cancelRound?.();
    for (const question of this.#questions.values()) question.cancelDrop?.();
    this.#deps.metrics.presenceEntries(-this.#countedPresence);
    this.#countedPresence = 0;
  }

  /** Takes what the service says to all clients. */
  take({ update, presence, wantsPresence }: DocumentOutput): void {
    if (update.length > 0) this.#round(update);
    if (presence.length > 0) {
      const now = this.#deps.clock.now();
      for (const each of presence) this.#presence.receiveForeign(each, now);
      this.#scheduleTick();
    }
    if (wantsPresence !== undefined) {
      this.#wantsPresence = wantsPresence;
      const own = wantsPresence ? this.#presence.own() : undefined;
      if (own !== undefined) this.#deps.passPresence(own);
    }
  }

  /** A client asks for what its state vector lacks. Equal questions are asked once, and answered with the same bytes. */
  question(channel: Channel, stateVector: Uint8Array): void {
    const key = keyOf(stateVector);
    const known = this.#questions.get(key);
    if (known !== undefined) {
      if (known.isDone) this.#answer(known, channel);
      else known.waiting.push(channel);
      return;
    }
    const question: Question = {
      key,
      asker: channel,
      waiting: [channel],
      pieces: [],
      updates: [],
      isDone: false,
      since: [],
      sinceBytes: 0,
      frames: new Map(),
      cancelDrop: undefined,
    };
    this.#questions.set(key, question);
    const asked = this.#asked.get(channel);
    if (asked === undefined) {
      this.#asked.set(channel, [question]);
      this.#deps.ask(channel, stateVector);
    } else asked.push(question);
  }

  /** The service answers a channel's first question. `update` is that of the answer, or of the one it shares. */
  answer(channel: Channel, { more, part }: SyncAnswer, update: Uint8Array): void {
    const question = this.#asked.get(channel)?.[0];
    if (question === undefined) return;
    question.pieces.push(update);
    if (part) return;
    question.updates.push(question.pieces.length === 1 ? update : joinBytes(question.pieces));
    question.pieces = [];
    if (more) return;
    this.#forget(channel);
    question.isDone = true;
    for (const waiting of question.waiting) this.#answer(question, waiting);
    question.waiting = [];
    let bytes = 0;
    for (const { length } of question.updates) bytes += length;
    if (bytes < LARGE_STATE_BYTES || question.sinceBytes > ANSWER_EDITS_BYTES) this.#drop(question);
    else question.cancelDrop = this.#deps.timer.after(ANSWER_KEPT_MS, () => this.#drop(question));
  }

  /** A client shows presence. @throws {BadMessage} */
  showPresence(channel: Channel, update: Uint8Array): void {
    this.#presence.receive(channel.presence, update, this.#deps.clock.now());
    if (this.#presence.isDirty) this.#scheduleTick();
  }

  /** Tells a client who is there. */
  sendPresence(channel: Channel): void {
    const whole = this.#presence.whole();
    if (whole === undefined) return;
    if (whole !== this.#presenceWhole) {
      this.#presenceWhole = whole;
      this.#presenceFrames.clear();
    }
    const { framing } = channel;
    let frame = this.#presenceFrames.get(framing.key);
    if (frame === undefined) this.#presenceFrames.set(framing.key, frame = awarenessFrame(framing, whole));
    channel.send(frame);
  }

  /** Gives one update to all. */
  #round(update: Uint8Array): void {
    const { clock, timer } = this.#deps;
    const beganAtMs = clock.now();
    for (const { framing, members } of this.#groups.values()) {
      this.#sendAll(members, updateFrame(framing, update));
    }
    for (const question of this.#questions.values()) {
      question.since.push(update);
      question.sinceBytes += update.length;
      if (question.isDone && question.sinceBytes > ANSWER_EDITS_BYTES) this.#drop(question);
    }
    const restMs = Math.min(this.#size * ROUND_MS_PER_CLIENT, ROUND_MS_MAX) - (clock.now() - beganAtMs);
    if (restMs < 1) return this.#deps.onReady();
    this.#cancelRound = timer.after(restMs, () => this.#deps.onReady());
  }

  #sendAll(members: Bag<Channel>, frame: Uint8Array): void {
    for (const member of members.snapshot()) member.send(frame);
    this.#deps.metrics.sent(members.size, frame.length);
  }

  #answer(question: Question, channel: Channel): void {
    const { framing } = channel;
    let frames = question.frames.get(framing.key);
    if (frames === undefined) {
      const last = question.updates.length - 1;
      frames = question.updates.map((update, i) =>
        i === last ? answerFrame(framing, update) : updateFrame(framing, update)
      );
      question.frames.set(framing.key, frames);
    }
    channel.sendState(frames);
    // Who asked in its name has had them.
    if (channel !== question.asker) {
      for (const update of question.since) channel.send(updateFrame(framing, update));
    }
  }

  #drop(question: Question): void {
    question.cancelDrop?.();
    if (this.#questions.get(question.key) === question) this.#questions.delete(question.key);
  }

  /** The first question of a channel is answered: its next one may be asked. */
  #forget(channel: Channel): void {
    const asked = this.#asked.get(channel)!;
    asked.shift();
    if (asked.length === 0) this.#asked.delete(channel);
    else this.#deps.ask(channel, bytesOf(asked[0]!.key));
  }

  /** Those who wait for answers to a channel that has ended ask themselves. */
  #passQuestionsOn(channel: Channel): void {
    const asked = this.#asked.get(channel) ?? [];
    this.#asked.delete(channel);
    for (const question of asked) {
      this.#drop(question);
      for (const other of question.waiting) {
        if (other !== channel && other.bagIndex >= 0) this.question(other, bytesOf(question.key));
      }
    }
  }

  #scheduleTick(): void {
    if (this.#cancelTick !== undefined || this.#isClosed) return;
    const { clock, timer } = this.#deps;
    const lengthMs = Math.min(TICK_MS_MIN + this.#size * TICK_MS_PER_CLIENT, TICK_MS_MAX);
    const waitMs = Math.max(0, this.#lastTickMs + lengthMs - clock.now());
    this.#cancelTick = timer.after(waitMs, () => {
      this.#cancelTick = undefined;
      this.#tick();
    });
  }

  #tick(): void {
    this.#lastTickMs = this.#deps.clock.now();
    const { all, own } = this.#presence.flush();
    this.#countPresence();
    if (all === undefined) return;
    for (const { framing, members } of this.#groups.values()) {
      this.#sendAll(members, awarenessFrame(framing, all));
    }
    if (own !== undefined && this.#wantsPresence) this.#deps.passPresence(own);
    this.#watchExpiry();
  }

  #countPresence(): void {
    this.#deps.metrics.presenceEntries(this.#presence.size - this.#countedPresence);
    this.#countedPresence = this.#presence.size;
  }

  #watchExpiry(): void {
    if (this.#cancelExpiry !== undefined || this.#presence.size === 0 || this.#isClosed) return;
    this.#cancelExpiry = this.#deps.timer.after(EXPIRY_CHECK_MS, () => {
      this.#cancelExpiry = undefined;
      this.#presence.expire(this.#deps.clock.now());
      if (this.#presence.isDirty) this.#scheduleTick();
      this.#watchExpiry();
    });
  }
}

/** Presence of a connection that shows none yet. */
export function newPresenceOwner(userId: string): PresenceOwner {
  return { userId, ids: new Set() };
}

/** A state vector as a key of a map. */
function keyOf(stateVector: Uint8Array): string {
  let key = "";
  for (const byte of stateVector) key += String.fromCharCode(byte);
  return key;
}

function bytesOf(key: string): Uint8Array {
  return Uint8Array.from(key, (char) => char.charCodeAt(0));
}
