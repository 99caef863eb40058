import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as authProtocol from "y-protocols/auth";
import * as syncProtocol from "y-protocols/sync";
import * as Y from "yjs";
import {
  answerFrame,
  askFrame,
  authDeniedFrame,
  authenticatedFrame,
  awarenessFrame,
  BadMessage,
  BARE,
  closeFrame,
  deniedFrame,
  isEmptyUpdate,
  MESSAGE,
  namedFraming,
  numberBytes,
  Reader,
  statelessFrame,
  syncStatusFrame,
  updateFrame,
  writeNumber,
} from "./frames.ts";

/** What lib0, on which the providers stand, writes. */
function written(write: (encoder: encoding.Encoder) => void): Uint8Array {
  const encoder = encoding.createEncoder();
  write(encoder);
  return encoding.toUint8Array(encoder);
}

Deno.test("numbers and texts are read as lib0 writes them, and written as lib0 reads them", () => {
  const number = fc.oneof(fc.nat(300), fc.maxSafeNat());
  fc.assert(fc.property(number, fc.string({ unit: "grapheme" }), fc.uint8Array(), (value, text, bytes) => {
    const reader = new Reader(written((encoder) => {
      encoding.writeVarUint(encoder, value);
      encoding.writeVarString(encoder, text);
      encoding.writeVarUint8Array(encoder, bytes);
    }));
    assertEquals([reader.number(), reader.text(), reader.chunk(), reader.left], [value, text, bytes, 0]);
    const own = new Uint8Array(numberBytes(value));
    assertEquals(writeNumber(own, 0, value), own.length);
    assertEquals(decoding.readVarUint(decoding.createDecoder(own)), value);
  }));
});

Deno.test("whatever the bytes, a reader reads within them or says that they are none", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), fc.array(fc.nat(2)), (bytes, steps) => {
    // Behind it lies what is somebody else's.
    const around = new Uint8Array(bytes.length + 64).fill(7);
    around.set(bytes);
    const reader = new Reader(around.subarray(0, bytes.length));
    try {
      for (const step of steps) {
        if (step === 0) reader.number();
        else if (step === 1) reader.chunk();
        else reader.text();
        assertEquals(reader.left >= 0, true);
      }
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error;
    }
  }));
});

Deno.test("numbers beyond what a double holds are none", () => {
  assertThrows(() => new Reader(Uint8Array.of(...Array(8).fill(0xff), 0x7f)).number(), BadMessage);
  assertThrows(() => new Reader(Uint8Array.of(...Array(30).fill(0x80), 0)).number(), BadMessage);
  assertThrows(() => new Reader(new Uint8Array(0)).number(), BadMessage);
  assertThrows(() => new Reader(Uint8Array.of(2, 0xff, 0xfe)).text(), BadMessage);
});

Deno.test("y-websocket's frames are those of y-protocols", () => {
  const doc = new Y.Doc();
  doc.getText("content").insert(0, "x".repeat(300));
  const vector = Y.encodeStateVector(doc);
  const update = Y.encodeStateAsUpdate(doc);
  const sync = (write: (encoder: encoding.Encoder) => void) =>
    written((encoder) => {
      encoding.writeVarUint(encoder, 0);
      write(encoder);
    });
  assertEquals(askFrame(BARE, vector), sync((encoder) => syncProtocol.writeSyncStep1(encoder, doc)));
  assertEquals(answerFrame(BARE, update), sync((encoder) => syncProtocol.writeSyncStep2(encoder, doc)));
  assertEquals(updateFrame(BARE, update), sync((encoder) => syncProtocol.writeUpdate(encoder, update)));
  assertEquals(
    deniedFrame("no ü"),
    written((encoder) => {
      encoding.writeVarUint(encoder, 2);
      authProtocol.writePermissionDenied(encoder, "no ü");
    }),
  );
  const other = new Y.Doc();
  const reply = encoding.createEncoder();
  const decoder = decoding.createDecoder(answerFrame(BARE, update));
  assertEquals(decoding.readVarUint(decoder), 0);
  syncProtocol.readSyncMessage(decoder, reply, other, null);
  assertEquals(other.getText("content").toString(), doc.getText("content").toString());
  doc.destroy();
  other.destroy();
});

Deno.test("Hocuspocus's frames have the name in front, of any length and characters", () => {
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), fc.uint8Array(), (name, bytes) => {
    const framing = namedFraming(name);
    const named = (...parts: (number | string | Uint8Array)[]) =>
      written((encoder) => {
        encoding.writeVarString(encoder, name);
        for (const part of parts) {
          if (typeof part === "number") encoding.writeVarUint(encoder, part);
          else if (typeof part === "string") encoding.writeVarString(encoder, part);
          else encoding.writeVarUint8Array(encoder, part);
        }
      });
    assertEquals(askFrame(framing, bytes), named(0, 0, bytes));
    assertEquals(answerFrame(framing, bytes), named(0, 1, bytes));
    assertEquals(updateFrame(framing, bytes), named(0, 2, bytes));
    assertEquals(awarenessFrame(framing, bytes), named(1, bytes));
    assertEquals(authDeniedFrame(framing, name), named(2, 1, name));
    assertEquals(authenticatedFrame(framing, "readonly"), named(2, 2, "readonly"));
    assertEquals(statelessFrame(framing, name), named(5, name));
    assertEquals(closeFrame(framing, name), named(7, name));
    // Its client reads a number with a sign: 1 is one, 0 none.
    const status = decoding.createDecoder(syncStatusFrame(framing, true));
    assertEquals([decoding.readVarString(status), decoding.readVarUint(status)], [name, MESSAGE.syncStatus]);
    assertEquals(decoding.readVarInt(status), 1);
  }));
});

Deno.test("framings of different names share no frames, nor do they with y-websocket's", () => {
  assertEquals(new Set(["", ":", "a", "b"].map((name) => namedFraming(name).key).concat(BARE.key)).size, 5);
});

Deno.test("the update that changes nothing is known", () => {
  const doc = new Y.Doc();
  assertEquals(isEmptyUpdate(Y.encodeStateAsUpdate(doc)), true);
  doc.getText("content").insert(0, "x");
  assertEquals(isEmptyUpdate(Y.encodeStateAsUpdate(doc)), false);
  doc.destroy();
});
