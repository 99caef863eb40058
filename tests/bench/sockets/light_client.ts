/** Clients of a document that follow it without keeping it: they know how far they have each writer's edits, and notice when one
 *  is missing. A real client builds the document; that work would be taken from the server that is measured. */
import * as decoding from "lib0/decoding";
import * as Y from "yjs";
import { createDialect, type Dialect, type DialectName } from "./dialect.ts";
import { type FrameSocket, openFrameSocket } from "./frame_socket.ts";

/** Where a document is. */
export interface DocumentPlace {
  /** `bare`: a server that only hands on; nothing is asked of it. */
  readonly dialect: DialectName | "bare";
  /** Address of the socket, with the document where the framing wants it there. */
  readonly url: string;
  readonly docId: string;
}

/** What a client is told; all optional. */
export interface LightListeners {
  /** A writer's edits came that begin at one clock and end before another. */
  onEdits?(writer: number, from: number, to: number): void;
  /** Somebody's presence came. */
  onPresence?(user: number, clock: number): void;
  onSaved?(): void;
}

/** A client that is in step with the server. */
export interface LightClient {
  readonly dialect: Dialect;
  readonly socket: FrameSocket;
  /** Bytes of the document's content that came. */
  readonly contentBytes: number;
  /** Next clock expected of each writer. */
  readonly clocks: ReadonlyMap<number, number>;
  /** Newest clock of each user's presence. */
  readonly presence: ReadonlyMap<number, number>;
}

/** Opens a client and waits until the server has told it all there is.
 *  @throws {Error} when the server ends the socket, or an edit is missing between two. */
export async function openLightClient(
  { dialect: name, url, docId }: DocumentPlace,
  listeners: LightListeners = {},
  bufferBytes?: number,
): Promise<LightClient> {
  const dialect = createDialect(name === "bare" ? "y-websocket" : name, docId);
  const clocks = new Map<number, number>();
  const presence = new Map<number, number>();
  const hasDocument = Promise.withResolvers<void>();
  const greeted = Promise.withResolvers<void>();
  let isFollowing = true;
  let isGreeted = false;
  const client = { dialect, clocks, presence, contentBytes: 0 };

  function take(bytes: Uint8Array, socket: FrameSocket): void {
    const message = dialect.read(bytes);
    if (message.kind === "step1") socket.send(dialect.step2(EMPTY));
    else if (message.kind === "step2" || message.kind === "update") {
      client.contentBytes += message.update.length;
      isFollowing &&= message.update.length <= PARSED_BYTES_MAX;
      if (isFollowing) takeEdits(message.update);
      if (message.kind === "step2") hasDocument.resolve();
    } else if (message.kind === "awareness") takePresence(message.update);
    else if (message.kind === "saved" && message.isSaved) takeSaved();
  }

  /** The first report is about what the client had when it came. */
  function takeSaved(): void {
    if (isGreeted) listeners.onSaved?.();
    isGreeted = true;
    greeted.resolve();
  }

  function takeEdits(update: Uint8Array): void {
    for (const [writer, from, to] of rangesOf(update)) {
      const known = clocks.get(writer) ?? 0;
      if (from > known) throw new Error(`edits ${known} to ${from} of ${writer} are missing`);
      if (to <= known) continue;
      clocks.set(writer, to);
      listeners.onEdits?.(writer, known, to);
    }
  }

  function takePresence(update: Uint8Array): void {
    for (const [user, clock] of usersOf(update)) {
      if ((presence.get(user) ?? -1) >= clock) continue;
      presence.set(user, clock);
      listeners.onPresence?.(user, clock);
    }
  }

  const socket = await openFrameSocket({
    url,
    onMessage: take,
    ...(bufferBytes === undefined ? {} : { bufferBytes }),
  });
  if (name !== "hocuspocus") greeted.resolve();
  if (name === "bare") hasDocument.resolve();
  else for (const message of dialect.hello(NOTHING)) socket.send(message);
  const synced = Promise.all([hasDocument.promise, greeted.promise]).then(() => undefined);
  const code = await Promise.race([synced, socket.ended]);
  socket.ended.catch(reportError); // a message that cannot be right ends the process
  if (code !== undefined) throw new Error(`${url} closed with ${code} before it was in step`);
  return Object.assign(client, { socket });
}

/** State vector of nothing, and an update that brings nothing. */
const NOTHING = Y.encodeStateVector(new Y.Doc());
const EMPTY = Y.encodeStateAsUpdate(new Y.Doc());
/** Larger updates are whole documents: from then on bytes are counted and nothing else. */
const PARSED_BYTES_MAX = 256 * 1_024;

type Range = readonly [writer: number, from: number, to: number];

/** What a function gave for the last bytes that it was asked about: a server sends the same ones to everybody. */
function lastOf<T>(parse: (bytes: Uint8Array) => T): (bytes: Uint8Array) => T {
  let last: Uint8Array | undefined;
  let result: T;
  return (bytes) => {
    if (last === undefined || !isEqual(last, bytes)) {
      result = parse(bytes);
      last = bytes.slice();
    }
    return result;
  };
}

const rangesOf = lastOf((update): readonly Range[] => {
  const { from, to } = Y.parseUpdateMeta(update);
  return [...to].map(([writer, end]) => [writer, from.get(writer) ?? 0, end] as const);
});

const usersOf = lastOf((update): readonly (readonly [user: number, clock: number])[] => {
  const decoder = decoding.createDecoder(update);
  return Array.from({ length: decoding.readVarUint(decoder) }, () => {
    const user = decoding.readVarUint(decoder);
    const clock = decoding.readVarUint(decoder);
    const length = decoding.readVarUint(decoder);
    decoder.pos += length;
    return [user, clock] as const;
  });
});

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
