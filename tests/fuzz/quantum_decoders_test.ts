/** Property and mutation fuzzing of Quantum's pure decoders. The corpus holds inputs worth keeping. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  BAD_FRAME,
  END_OF_FRAMES,
  FRAME,
  FrameReader,
  writeClose,
  writeDatagram,
  writeFrame1,
  writeFrame2,
  writeReset,
  writeStreamHeader,
} from "../../transport/quantum/wire/frames.ts";
import { checkHeader, HEADER_BYTES, kindOfFlags, writeHeader } from "../../transport/quantum/wire/header.ts";
import {
  readTransportParams,
  TRANSPORT_PARAMS_BYTES_MAX,
  writeTransportParams,
} from "../../transport/quantum/wire/transport_params.ts";
import { frameCorpus } from "./quantum_corpus.ts";

const number = fc.oneof(fc.nat(63), fc.nat(70_000), fc.maxSafeNat());
const data = fc.uint8Array({ maxLength: 40 });

type Frame =
  | { type: "stream"; id: number; offset: number; fin: boolean; data: Uint8Array }
  | { type: "one"; kind: number; value: number }
  | { type: "two"; kind: number; id: number; value: number }
  | { type: "reset"; id: number; value: number; size: number }
  | { type: "close"; value: number; data: Uint8Array }
  | { type: "datagram"; data: Uint8Array }
  | { type: "ping" };

const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constant("stream" as const),
    id: number,
    offset: fc.nat(2 ** 40).map((n) => n),
    fin: fc.boolean(),
    data,
  }),
  fc.record({
    type: fc.constant("one" as const),
    kind: fc.constantFrom(FRAME.ACK_DELAY, FRAME.ACK_FLOOR, FRAME.MAX_DATA, FRAME.MAX_STREAMS),
    value: number,
  }),
  fc.record({
    type: fc.constant("two" as const),
    kind: fc.constantFrom(FRAME.STOP, FRAME.MAX_STREAM_DATA),
    id: number,
    value: number,
  }),
  fc.record({ type: fc.constant("reset" as const), id: number, value: number, size: number }),
  fc.record({ type: fc.constant("close" as const), value: number, data }),
  fc.record({ type: fc.constant("datagram" as const), data }),
  fc.record({ type: fc.constant("ping" as const) }),
);

function write(bytes: Uint8Array, at: number, frame: Frame): number {
  switch (frame.type) {
    case "stream":
      at = writeStreamHeader(bytes, at, frame.id, frame.offset, frame.data.length, frame.fin);
      bytes.set(frame.data, at);
      return at + frame.data.length;
    case "one":
      return writeFrame1(bytes, at, frame.kind, frame.value);
    case "two":
      return writeFrame2(bytes, at, frame.kind, frame.id, frame.value);
    case "reset":
      return writeReset(bytes, at, frame.id, frame.value, frame.size);
    case "close":
      return writeClose(bytes, at, frame.value, frame.data);
    case "datagram":
      return writeDatagram(bytes, at, frame.data);
    case "ping":
      bytes[at] = FRAME.PING;
      return at + 1;
  }
}

function read(reader: FrameReader, type: number, bytes: Uint8Array): Frame {
  const data = bytes.slice(reader.dataStart, reader.dataEnd);
  switch (type) {
    case FRAME.STREAM:
      return { type: "stream", id: reader.stream, offset: reader.offset, fin: reader.fin, data };
    case FRAME.STOP:
    case FRAME.MAX_STREAM_DATA:
      return { type: "two", kind: type, id: reader.stream, value: reader.value };
    case FRAME.RESET:
      return { type: "reset", id: reader.stream, value: reader.value, size: reader.finalSize };
    case FRAME.CLOSE:
      return { type: "close", value: reader.value, data };
    case FRAME.DATAGRAM:
      return { type: "datagram", data };
    case FRAME.PING:
      return { type: "ping" };
    default:
      return { type: "one", kind: type, value: reader.value };
  }
}

Deno.test("FrameReader reads back whatever the writers wrote", () => {
  fc.assert(fc.property(fc.array(frame, { maxLength: 20 }), (frames) => {
    const bytes = new Uint8Array(20 * 80);
    let end = 0;
    for (const one of frames) end = write(bytes, end, one);
    const reader = new FrameReader();
    reader.reset(bytes, end);
    const seen: Frame[] = [];
    for (let type = reader.next(); type !== END_OF_FRAMES; type = reader.next()) {
      seen.push(read(reader, type, bytes));
    }
    assertEquals(seen, frames.map((one) => ({ ...one })));
  }));
});

/** Walks a payload to its end: terminates, stays inside, gives only safe numbers. */
function walk(bytes: Uint8Array): void {
  const reader = new FrameReader();
  reader.reset(bytes, bytes.length);
  for (let steps = 0;; steps++) {
    assert(steps <= bytes.length, "every frame takes at least a byte");
    const type = reader.next();
    if (type === END_OF_FRAMES || type === BAD_FRAME) return;
    assert(reader.dataStart >= 0 && reader.dataEnd <= bytes.length);
    for (const value of [reader.stream, reader.offset, reader.value, reader.finalSize]) {
      assert(Number.isSafeInteger(value) && value >= 0);
    }
  }
}

Deno.test("FrameReader ends on any bytes, inside them", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), walk), { numRuns: 2000 });
});

Deno.test("FrameReader ends on the kept corpus and on mutations of it", () => {
  const corpus = frameCorpus();
  for (const bytes of corpus) walk(bytes);
  fc.assert(
    fc.property(fc.constantFrom(...corpus), fc.nat(255), fc.nat(255), fc.nat(200), (seed, at, value, cut) => {
      const bytes = seed.slice();
      bytes[at % bytes.length] = value;
      walk(bytes.subarray(0, Math.max(1, cut % (bytes.length + 1))));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("checkHeader() gives a verdict on any bytes, and its lengths add up", () => {
  const header = new Uint8Array(HEADER_BYTES);
  writeHeader(header, 2, new Uint8Array(16), 1, 2, 0);
  fc.assert(
    fc.property(fc.boolean(), fc.nat(300), fc.nat(400), fc.nat(255), (known, payloadBytes, length, flags) => {
      const bytes = new Uint8Array(length).fill(7);
      if (known) bytes.set(header.subarray(0, length));
      if (length > 31) {
        bytes[5] = flags;
        bytes[30] = payloadBytes >>> 8;
        bytes[31] = payloadBytes & 0xff;
      }
      const verdict = checkHeader(bytes);
      if (typeof verdict === "number") assertEquals(HEADER_BYTES + payloadBytes + 8 * verdict, length);
      kindOfFlags(flags);
    }),
    { numRuns: 2000 },
  );
});

Deno.test("readTransportParams() gives parameters in range, or nothing, for any bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const params = readTransportParams(bytes, 0, bytes.length);
      if (params === undefined) return;
      const again = new Uint8Array(TRANSPORT_PARAMS_BYTES_MAX);
      const end = writeTransportParams(again, 0, params);
      assertEquals(readTransportParams(again, 0, end), params);
    }),
    { numRuns: 2000 },
  );
});
