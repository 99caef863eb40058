/** The two framings in which Yjs documents travel over WebSockets, as far as the benches speak them. Both carry the sync protocol
 *  of y-protocols; Hocuspocus puts a document's name before each message, asks for a token, and says when edits are saved. */
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";

/** Which framing. */
export type DialectName = "y-websocket" | "hocuspocus";

/** What a server said. Bytes are views of what came. */
export type ServerMessage =
  | { readonly kind: "step1"; readonly stateVector: Uint8Array }
  | { readonly kind: "step2" | "update"; readonly update: Uint8Array }
  | { readonly kind: "awareness"; readonly update: Uint8Array }
  | { readonly kind: "saved"; readonly isSaved: boolean }
  | { readonly kind: "other" };

/** Writes and reads the messages about one document. */
export interface Dialect {
  /** What a client says at once when its socket is open. */
  hello(stateVector: Uint8Array): Uint8Array[];
  step2(update: Uint8Array): Uint8Array;
  update(update: Uint8Array): Uint8Array;
  awareness(update: Uint8Array): Uint8Array;
  read(message: Uint8Array): ServerMessage;
}

const [SYNC, AWARENESS, AUTH, SYNC_REPLY, SYNC_STATUS] = [0, 1, 2, 4, 8];
const [STEP1, STEP2, UPDATE] = [0, 1, 2];
const OTHER: ServerMessage = { kind: "other" };

/** The framing for a document. */
export function createDialect(name: DialectName, docId: string): Dialect {
  const isNamed = name === "hocuspocus";

  function message(type: number, write: (encoder: encoding.Encoder) => void): Uint8Array {
    return encoding.encode((encoder) => {
      if (isNamed) encoding.writeVarString(encoder, docId);
      encoding.writeVarUint(encoder, type);
      write(encoder);
    });
  }

  const sync = (step: number, bytes: Uint8Array) =>
    message(SYNC!, (encoder) => {
      encoding.writeVarUint(encoder, step);
      encoding.writeVarUint8Array(encoder, bytes);
    });

  return {
    hello: (stateVector) => [
      ...(isNamed
        ? [message(AUTH!, (encoder) => {
          encoding.writeVarUint(encoder, 0);
          encoding.writeVarString(encoder, "");
          encoding.writeVarString(encoder, "4.8.0");
        })]
        : []),
      sync(STEP1!, stateVector),
    ],
    step2: (update) => sync(STEP2!, update),
    update: (update) => sync(UPDATE!, update),
    awareness: (update) => message(AWARENESS!, (encoder) => encoding.writeVarUint8Array(encoder, update)),
    read(bytes) {
      if (bytes.length === 1) return OTHER; // a ping, which has no name
      const decoder = decoding.createDecoder(bytes);
      if (isNamed) {
        const length = decoding.readVarUint(decoder);
        decoder.pos += length;
      }
      const type = decoding.readVarUint(decoder);
      if (type === SYNC || (isNamed && type === SYNC_REPLY)) {
        const step = decoding.readVarUint(decoder);
        const payload = decoding.readVarUint8Array(decoder);
        if (step === STEP1) return { kind: "step1", stateVector: payload };
        return { kind: step === STEP2 ? "step2" : "update", update: payload };
      }
      if (type === AWARENESS) return { kind: "awareness", update: decoding.readVarUint8Array(decoder) };
      if (isNamed && type === SYNC_STATUS) {
        return { kind: "saved", isSaved: decoding.readVarInt(decoder) === 1 };
      }
      return OTHER;
    },
  };
}
