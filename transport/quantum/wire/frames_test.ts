import { assertEquals } from "@std/assert";
import {
  BAD_FRAME,
  END_OF_FRAMES,
  FRAME,
  FrameReader,
  streamHeaderBytes,
  writeClose,
  writeDatagram,
  writeFrame1,
  writeFrame2,
  writeReset,
  writeStreamHeader,
} from "./frames.ts";

function bytesOf(write: (bytes: Uint8Array) => number): Uint8Array {
  const bytes = new Uint8Array(64);
  return bytes.subarray(0, write(bytes));
}

function reading(hex: string): FrameReader {
  const reader = new FrameReader();
  const bytes = Uint8Array.fromHex(hex);
  reader.reset(bytes, bytes.length);
  return reader;
}

Deno.test("the frame writers make the golden bytes of SPEC §4.1", () => {
  const cases: [string, (bytes: Uint8Array) => number][] = [
    ["024064", (b) => writeFrame1(b, 0, FRAME.ACK_DELAY, 100)],
    ["0305", (b) => writeFrame1(b, 0, FRAME.ACK_FLOOR, 5)],
    ["04040980004000", (b) => writeReset(b, 0, 4, 9, 16_384)],
    ["05074100", (b) => writeFrame2(b, 0, FRAME.STOP, 7, 256)],
    ["0680100000", (b) => writeFrame1(b, 0, FRAME.MAX_DATA, 2 ** 20)],
    ["070380100000", (b) => writeFrame2(b, 0, FRAME.MAX_STREAM_DATA, 3, 2 ** 20)],
    ["085000", (b) => writeFrame1(b, 0, FRAME.MAX_STREAMS, 4096)],
    ["090c03627965", (b) => writeClose(b, 0, 12, new TextEncoder().encode("bye"))],
    ["0a02ffee", (b) => writeDatagram(b, 0, Uint8Array.of(0xff, 0xee))],
    ["110402", (b) => writeStreamHeader(b, 0, 4, 0, 2, true)],
    ["12440041004040", (b) => writeStreamHeader(b, 0, 1024, 256, 64, false)],
  ];
  for (const [hex, write] of cases) assertEquals(bytesOf(write).toHex(), hex);
});

Deno.test("streamHeaderBytes() is what writeStreamHeader() writes", () => {
  for (const id of [0, 63, 64, 2 ** 31]) {
    for (const offset of [0, 1, 16_384, 2 ** 40]) {
      for (const count of [0, 63, 64, 60_000]) {
        assertEquals(
          bytesOf((b) => writeStreamHeader(b, 0, id, offset, count, false)).length,
          streamHeaderBytes(id, offset, count),
        );
      }
    }
  }
});

Deno.test("FrameReader.next() walks a payload of every frame", () => {
  const reader = reading(
    "024064" + "0000000000" + "01" + "110402aabb" + "1203410001cc" + "04040907" + "0a01dd" + "0903026869",
  );
  const seen: unknown[] = [];
  for (let type = reader.next(); type !== END_OF_FRAMES; type = reader.next()) {
    switch (type) {
      case FRAME.ACK_DELAY:
        seen.push(["delay", reader.value]);
        break;
      case FRAME.STREAM:
        seen.push(["stream", reader.stream, reader.offset, reader.dataEnd - reader.dataStart, reader.fin]);
        break;
      case FRAME.RESET:
        seen.push(["reset", reader.stream, reader.value, reader.finalSize]);
        break;
      case FRAME.DATAGRAM:
        seen.push(["datagram", reader.dataEnd - reader.dataStart]);
        break;
      case FRAME.CLOSE:
        seen.push(["close", reader.value, reader.dataEnd - reader.dataStart]);
        break;
      default:
        seen.push(type);
    }
  }
  assertEquals(seen, [
    ["delay", 100],
    FRAME.PADDING,
    FRAME.PING,
    ["stream", 4, 0, 2, true],
    ["stream", 3, 256, 1, false],
    ["reset", 4, 9, 7],
    ["datagram", 1],
    ["close", 3, 2],
  ]);
});

Deno.test("FrameReader.next() refuses reserved types, cut fields and data beyond the payload", () => {
  for (
    const hex of [
      "0b",
      "14",
      "20",
      "21",
      "24",
      "28",
      "ff",
      "02",
      "0402",
      "0a05aabb",
      "110405aa",
      "0900ff",
      "0640",
      "13c01fffffffffffffff4001",
    ]
  ) {
    assertEquals(reading(hex).next(), BAD_FRAME, hex);
  }
});
