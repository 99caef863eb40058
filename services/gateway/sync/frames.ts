/** The frames that Yjs's providers speak, as bytes. Numbers are LEB128, texts and byte strings have their length in front.
 *
 *      y-websocket   type content                    the document is in the URL
 *      Hocuspocus    name type content               name: the document, or `document NUL session`
 *
 *      sync 0         0 state vector · 1 answer · 2 update
 *      awareness 1    update             queryAwareness 3
 *      auth 2         y-websocket: 0 reason · Hocuspocus: 0 token version · 1 reason · 2 scope
 *      stateless 5    text               close 7   reason
 *      syncStatus 8   1 or 0             ping 9, pong 10 without a name
 */

/** Types of messages. */
export const MESSAGE = {
  sync: 0,
  awareness: 1,
  auth: 2,
  queryAwareness: 3,
  stateless: 5,
  close: 7,
  syncStatus: 8,
  ping: 9,
  pong: 10,
} as const;

/** Types within a sync message. */
export const SYNC = { stateVector: 0, answer: 1, update: 2 } as const;

/** Types within an auth message of Hocuspocus. */
export const AUTH = { token: 0, denied: 1, authenticated: 2 } as const;

/** A message that is none. */
export class BadMessage extends Error {
  override readonly name = "BadMessage";
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
const NO_BYTES = new Uint8Array(0);

/** Reads a message. All of it throw BadMessage at its end. */
export class Reader {
  #at = 0;

  constructor(readonly bytes: Uint8Array) {}

  /** Bytes that are left. */
  get left(): number {
    return this.bytes.length - this.#at;
  }

  /** A number up to 2^53 - 1. */
  number(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.bytes[this.#at++];
      if (byte === undefined) throw new BadMessage("a number is cut off");
      value += (byte & 0x7f) * factor;
      if (value > Number.MAX_SAFE_INTEGER) throw new BadMessage("a number is too large");
      if (byte < 0x80) return value;
      factor *= 128;
      if (factor > Number.MAX_SAFE_INTEGER) throw new BadMessage("a number is too long");
    }
  }

  /** A byte string; a view. */
  chunk(): Uint8Array {
    const length = this.number();
    if (length > this.left) throw new BadMessage("a byte string is cut off");
    const start = this.#at;
    this.#at += length;
    return this.bytes.subarray(start, this.#at);
  }

  /** A text. */
  text(): string {
    try {
      return decoder.decode(this.chunk());
    } catch (error) {
      if (error instanceof BadMessage) throw error;
      throw new BadMessage("a text is no UTF-8");
    }
  }
}

/** Bytes that a number takes. */
export function numberBytes(value: number): number {
  let count = 1;
  for (; value >= 128; value = Math.floor(value / 128)) count++;
  return count;
}

/** Writes a number at `at`; returns the place behind it. */
export function writeNumber(target: Uint8Array, at: number, value: number): number {
  for (; value >= 128; value = Math.floor(value / 128)) target[at++] = (value % 128) | 0x80;
  target[at++] = value;
  return at;
}

/** How a client wants frames to begin: clients with the same framing get the same bytes. */
export interface Framing {
  /** What tells framings apart. */
  readonly key: string;
  readonly prefix: Uint8Array;
}

/** Frames of y-websocket: nothing stands in front. */
export const BARE: Framing = { key: "", prefix: NO_BYTES };

/** Frames of Hocuspocus: the name, as the client wrote it, stands in front. */
export function namedFraming(name: string): Framing {
  const bytes = encoder.encode(name);
  const prefix = new Uint8Array(numberBytes(bytes.length) + bytes.length);
  prefix.set(bytes, writeNumber(prefix, 0, bytes.length));
  // Never that of y-websocket, whatever the name.
  return { key: `:${name}`, prefix };
}

/** A frame: prefix, numbers below 128, and a byte string. */
function frame({ prefix }: Framing, numbers: readonly number[], chunk?: Uint8Array): Uint8Array {
  const head = prefix.length + numbers.length;
  if (chunk === undefined) {
    const whole = new Uint8Array(head);
    whole.set(prefix);
    whole.set(numbers, prefix.length);
    return whole;
  }
  const whole = new Uint8Array(head + numberBytes(chunk.length) + chunk.length);
  whole.set(prefix);
  whole.set(numbers, prefix.length);
  whole.set(chunk, writeNumber(whole, head, chunk.length));
  return whole;
}

/** Asks the client for what a state vector lacks. */
export function askFrame(framing: Framing, stateVector: Uint8Array): Uint8Array {
  return frame(framing, [MESSAGE.sync, SYNC.stateVector], stateVector);
}

/** The (last) answer to a state vector: with it the client is in sync. */
export function answerFrame(framing: Framing, update: Uint8Array): Uint8Array {
  return frame(framing, [MESSAGE.sync, SYNC.answer], update);
}

/** An update. */
export function updateFrame(framing: Framing, update: Uint8Array): Uint8Array {
  return frame(framing, [MESSAGE.sync, SYNC.update], update);
}

/** An awareness update. */
export function awarenessFrame(framing: Framing, update: Uint8Array): Uint8Array {
  return frame(framing, [MESSAGE.awareness], update);
}

/** Tells a y-websocket client that it may not do what it did. */
export function deniedFrame(reason: string): Uint8Array {
  return frame(BARE, [MESSAGE.auth, 0], encoder.encode(reason));
}

/** Tells a Hocuspocus client that its token does not do. */
export function authDeniedFrame(framing: Framing, reason: string): Uint8Array {
  return frame(framing, [MESSAGE.auth, AUTH.denied], encoder.encode(reason));
}

/** Tells a Hocuspocus client that it is known, and what it may do. */
export function authenticatedFrame(framing: Framing, scope: "read-write" | "readonly"): Uint8Array {
  return frame(framing, [MESSAGE.auth, AUTH.authenticated], encoder.encode(scope));
}

/** Tells a Hocuspocus client whether one update is on disk. */
export function syncStatusFrame(framing: Framing, isSaved: boolean): Uint8Array {
  return frame(framing, [MESSAGE.syncStatus, isSaved ? 1 : 0]);
}

/** A text to a Hocuspocus client's application. */
export function statelessFrame(framing: Framing, payload: string): Uint8Array {
  return frame(framing, [MESSAGE.stateless], encoder.encode(payload));
}

/** Tells a Hocuspocus client that a document is closed. */
export function closeFrame(framing: Framing, reason: string): Uint8Array {
  return frame(framing, [MESSAGE.close], encoder.encode(reason));
}

/** Asks a Hocuspocus client for a sign of life. */
export const PING_FRAME: Uint8Array = Uint8Array.of(MESSAGE.ping);

/** Says nothing, to a y-websocket client, which goes when it hears nothing for long: presence of nobody. */
export const SILENT_FRAME: Uint8Array = Uint8Array.of(MESSAGE.awareness, 1, 0);

/** The update (v1) that changes nothing. */
export function isEmptyUpdate(update: Uint8Array): boolean {
  return update.length === 2 && update[0] === 0 && update[1] === 0;
}
