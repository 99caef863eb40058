/** Who is at a document: the awareness states of y-protocols, gathered and sent on in ticks.
 *
 *      awareness update = count, then count × (client id, clock, length, JSON text)
 *
 *  The JSON is passed on as the bytes that it came in: nobody here reads it, but for the one that means absence, `null`. A
 *  client id is its connection's that brought it first; nobody else changes or ends it. Pure: time comes in. */
import { BadMessage, numberBytes, Reader, writeNumber } from "./frames.ts";

/** Client ids of one connection: an application may show a few on one, as one for each of its views. */
export const IDS_PER_CONNECTION = 4;
/** Largest state of a client, in bytes of JSON. */
export const STATE_BYTES_MAX = 8 * 1_024;
/** All states of a document together, in bytes: every client that joins is sent them, and gateways tell each other in one message. */
export const DOCUMENT_BYTES_MAX = 1_024 * 1_024;
/** How long a state holds that is not renewed, in milliseconds; clients renew theirs every 15 s. */
export const EXPIRE_MS = 30_000;
/** From this age on, in milliseconds, somebody else may bring a client id: its connection has missed a renewal, and is most
 *  likely gone without a word while its client has come back on another one. */
const ABANDONED_MS = 20_000;
/** What an entry takes besides its JSON, at most. */
const ENTRY_EXTRA_BYTES = 20;

/** One connection of this gateway, as presence knows it. */
export interface PresenceOwner {
  /** Who is behind it; "" is nobody in particular. */
  readonly userId: string;
  /** Client ids that it brought and that are there. */
  readonly ids: Set<number>;
}

/** Clients of other gateways, all together. */
const ELSEWHERE: PresenceOwner = { userId: "", ids: new Set() };

interface Entry {
  readonly id: number;
  clock: number;
  /** Undefined: it has gone, which is still to be told. */
  json: Uint8Array | undefined;
  owner: PresenceOwner;
  renewedAtMs: number;
}

/** Why entries were not taken. */
export type PresenceRefusal = "foreign_id" | "too_many_ids" | "state_too_large" | "document_full";

/** Presence of one document. */
export class Presence {
  readonly #entries = new Map<number, Entry>();
  /** Changed since the last `flush`: ids here, and whether one was of this gateway. */
  #dirty = new Set<Entry>();
  #bytes = 0;
  #whole: Uint8Array | undefined;
  readonly #onRefused: (reason: PresenceRefusal) => void;

  constructor(onRefused: (reason: PresenceRefusal) => void) {
    this.#onRefused = onRefused;
  }

  /** Client ids that are there. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether there is something that `flush` would tell. */
  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Takes what a connection of this gateway shows. @throws {BadMessage} for what is no awareness update; then nothing is taken. */
  receive(owner: PresenceOwner, update: Uint8Array, nowMs: number): void {
    for (const { id, clock, json } of readEntries(update)) this.#take(owner, id, clock, json, nowMs);
  }

  /** Takes what another gateway passed on; what is none is left out. */
  receiveForeign(update: Uint8Array, nowMs: number): void {
    let entries;
    try {
      entries = readEntries(update);
    } catch (error) {
      if (error instanceof BadMessage) return;
      throw error;
    }
    for (const { id, clock, json } of entries) this.#take(ELSEWHERE, id, clock, json, nowMs);
  }

  /** A connection of this gateway has ended, and with it its clients. */
  leave(owner: PresenceOwner): void {
    for (const id of [...owner.ids]) {
      const entry = this.#entries.get(id);
      if (entry?.owner === owner) this.#end(entry);
    }
    owner.ids.clear();
  }

  /** Ends what was not renewed. */
  expire(nowMs: number): void {
    for (const entry of [...this.#entries.values()]) {
      if (nowMs - entry.renewedAtMs >= EXPIRE_MS) this.#end(entry);
    }
  }

  /** What changed since the last time, as awareness updates: for the clients here, and what of it other gateways lack. */
  flush(): { all: Uint8Array | undefined; own: Uint8Array | undefined } {
    const dirty = [...this.#dirty];
    this.#dirty = new Set();
    const own = dirty.filter(({ owner }) => owner !== ELSEWHERE);
    const all = encodeEntries(dirty);
    return { all, own: own.length === dirty.length ? all : encodeEntries(own) };
  }

  /** All who are there, as one awareness update; undefined: nobody. The same array until something changes. */
  whole(): Uint8Array | undefined {
    return this.#whole ??= encodeEntries([...this.#entries.values()]);
  }

  /** Those of this gateway. */
  own(): Uint8Array | undefined {
    return encodeEntries([...this.#entries.values()].filter(({ owner }) => owner !== ELSEWHERE));
  }

  #take(owner: PresenceOwner, id: number, clock: number, json: Uint8Array, nowMs: number): void {
    const isGone = isNull(json);
    let entry = this.#entries.get(id);
    if (entry !== undefined && entry.owner !== owner) {
      if (!mayTakeOver(owner, entry, nowMs)) return this.#onRefused("foreign_id");
      if (clock <= entry.clock) return;
      if (owner !== ELSEWHERE && owner.ids.size >= IDS_PER_CONNECTION) return this.#onRefused("too_many_ids");
      entry.owner.ids.delete(id);
      entry.owner = owner;
      if (owner !== ELSEWHERE) owner.ids.add(id);
    }
    if (entry === undefined) {
      if (isGone) return;
      if (owner !== ELSEWHERE && owner.ids.size >= IDS_PER_CONNECTION) return this.#onRefused("too_many_ids");
      if (!this.#hasRoom(json.length + ENTRY_EXTRA_BYTES, json)) return;
      entry = { id, clock, json: undefined, owner, renewedAtMs: nowMs };
      this.#bytes += ENTRY_EXTRA_BYTES;
      this.#entries.set(id, entry);
      if (owner !== ELSEWHERE) owner.ids.add(id);
    } else {
      if (clock < entry.clock || (clock === entry.clock && !isGone)) return;
      if (!isGone && !this.#hasRoom(json.length - entry.json!.length, json)) return;
      entry.clock = clock;
    }
    if (isGone) return this.#remove(entry);
    this.#bytes += json.length - (entry.json?.length ?? 0);
    // A copy: what it came in holds more, and for longer.
    entry.json = json.slice();
    entry.renewedAtMs = nowMs;
    this.#changed(entry);
  }

  #hasRoom(more: number, { length }: Uint8Array): boolean {
    if (length > STATE_BYTES_MAX) this.#onRefused("state_too_large");
    else if (this.#bytes + more > DOCUMENT_BYTES_MAX) this.#onRefused("document_full");
    else return true;
    return false;
  }

  /** The next clock, so that clients believe it. */
  #end(entry: Entry): void {
    entry.clock++;
    this.#remove(entry);
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.id);
    entry.owner.ids.delete(entry.id);
    this.#bytes -= (entry.json?.length ?? 0) + ENTRY_EXTRA_BYTES;
    entry.json = undefined;
    this.#changed(entry);
  }

  #changed(entry: Entry): void {
    this.#dirty.add(entry);
    this.#whole = undefined;
  }
}

/** Its own connection has most likely gone: its user has come back, or it has missed a renewal. */
function mayTakeOver(owner: PresenceOwner, entry: Entry, nowMs: number): boolean {
  if (nowMs - entry.renewedAtMs >= ABANDONED_MS) return true;
  // Who moves from one gateway to another is elsewhere until it is here, and the reverse.
  return owner === ELSEWHERE ? false : owner.userId !== "" && owner.userId === entry.owner.userId;
}

const NULL = Uint8Array.of(0x6e, 0x75, 0x6c, 0x6c);

function isNull(json: Uint8Array): boolean {
  return json.length === 4 && json.every((byte, i) => byte === NULL[i]);
}

function readEntries(update: Uint8Array): { id: number; clock: number; json: Uint8Array }[] {
  const reader = new Reader(update);
  const count = reader.number();
  // Each takes three bytes or more: what announces more than it has is refused before anything is made.
  if (count > reader.left / 3) throw new BadMessage("it announces more clients than it has");
  const entries = [];
  for (let i = 0; i < count; i++) {
    entries.push({ id: reader.number(), clock: reader.number(), json: reader.chunk() });
  }
  return entries;
}

function encodeEntries(entries: readonly Entry[]): Uint8Array | undefined {
  if (entries.length === 0) return undefined;
  let length = numberBytes(entries.length);
  for (const { id, clock, json = NULL } of entries) {
    length += numberBytes(id) + numberBytes(clock) + numberBytes(json.length) + json.length;
  }
  const bytes = new Uint8Array(length);
  let at = writeNumber(bytes, 0, entries.length);
  for (const { id, clock, json = NULL } of entries) {
    at = writeNumber(bytes, at, id);
    at = writeNumber(bytes, at, clock);
    at = writeNumber(bytes, at, json.length);
    bytes.set(json, at);
    at += json.length;
  }
  return bytes;
}
