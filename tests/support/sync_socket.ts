/** A bare socket that speaks the providers' frames: what comes is kept, so that tests see each message. */
import * as Y from "yjs";
import { until } from "./yjs.ts";

/** The socket. `using` closes it. */
export interface BareSocket extends Disposable {
  readonly socket: WebSocket;
  /** Messages so far. */
  readonly messages: Uint8Array[];
  readonly closed: Promise<CloseEvent>;
  send(...bytes: (number | Uint8Array)[]): void;
  /** Resolves with the first message that is `is`, of those that came and come. */
  message(is: (message: Uint8Array) => boolean): Promise<Uint8Array>;
}

/** Opens a socket at a path of `url`. */
export async function openBareSocket(url: string, path: string): Promise<BareSocket> {
  const socket = new WebSocket(url.replace("http", "ws") + path);
  socket.binaryType = "arraybuffer";
  const messages: Uint8Array[] = [];
  const looks = new Set<() => void>();
  const closed = new Promise<CloseEvent>((resolve) => socket.addEventListener("close", resolve));
  socket.onmessage = ({ data }) => {
    messages.push(new Uint8Array(data));
    for (const look of looks) look();
  };
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onerror = () => reject(new Error(`${path} is no socket`));
  });
  return {
    socket,
    messages,
    closed,
    send: (...bytes) =>
      socket.send(Uint8Array.from(bytes.flatMap((part) => typeof part === "number" ? part : [...part]))),
    async message(is) {
      let found: Uint8Array | undefined;
      await until(
        "a message",
        (look) => {
          looks.add(look);
          return () => looks.delete(look);
        },
        () => (found = messages.find(is)) !== undefined,
      );
      return found!;
    },
    [Symbol.dispose]() {
      if (socket.readyState <= WebSocket.OPEN) socket.close();
    },
  };
}

/** A byte string with its length in front, of less than 16,384 bytes. */
export function chunk(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  return Uint8Array.from([...(length < 128 ? [length] : [(length & 0x7f) | 0x80, length >> 7]), ...bytes]);
}

/** A document with a text, and the update that makes it. */
export function textUpdate(text: string): { update: Uint8Array; vector: Uint8Array } {
  const doc = new Y.Doc();
  doc.getText("content").insert(0, text);
  const made = { update: Y.encodeStateAsUpdate(doc), vector: Y.encodeStateVector(doc) };
  doc.destroy();
  return made;
}
