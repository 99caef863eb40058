import { Code, ConnectError } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { pathBytes, readCall, writeCall } from "./call_header.ts";
import {
  FRAME,
  FRAME_HEADER_BYTES,
  FrameReader,
  FrameWriter,
  MAX_END_BYTES,
  MAX_HEADER_BYTES,
  NEED_MORE,
  VIOLATION,
} from "./frame.ts";
import { checkMetadata, MAX_METADATA_ENTRIES, readMetadata, writeMetadata } from "./metadata.ts";
import { endToError, readEnd, writeErrorEnd, writeOkEnd } from "./status.ts";

Deno.test("CALL, MESSAGE and END have the bytes of SPEC §2 and §3", () => {
  const writer = new FrameWriter();
  writeCall(writer, pathBytes("/a.B/C"), 258, { "x-id": "7" });
  assertEquals(
    hex(writer.take()),
    "01" + "00000015" + "01" + "03" + "06" + "2f612e422f43" + "00000102" + "04" + "782d6964" + "0001" + "37",
  );
  const mark = writer.beginFrame(FRAME.MESSAGE);
  writer.bytes(Uint8Array.of(0xca, 0xfe));
  writer.endFrame(mark);
  writeOkEnd(writer, undefined);
  assertEquals(hex(writer.take()), "02" + "00000002" + "cafe" + "04" + "00000000");
  writeErrorEnd(writer, new ConnectError("no", Code.NotFound, { k: "v" }), undefined);
  assertEquals(
    hex(writer.take()),
    "04" + "0000000b" + "05" + "0002" + "6e6f" + "00" + "01" + "6b" + "0001" + "76",
  );
});

Deno.test("FrameReader finds the same frames whatever the chunks are", () => {
  const frame = fc.tuple(fc.constantFrom(1, 2, 3, 4), fc.uint8Array({ maxLength: 600 }));
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 8 }),
      fc.array(fc.nat(400), { maxLength: 30 }),
      (frames, cuts) => {
        const reader = new FrameReader(1000);
        const found: [number, Uint8Array][] = [];
        for (const chunk of cut(concat(frames), cuts)) {
          reader.push(chunk);
          for (let type = reader.next(); type > 0; type = reader.next()) found.push([type, reader.payload]);
        }
        // Compared at the end: later chunks must not have changed what was handed out.
        assertEquals(found, frames);
        assertEquals([reader.buffered, reader.peek(), reader.next()], [0, NEED_MORE, NEED_MORE]);
      },
    ),
  );
});

Deno.test("FrameReader takes noise without throwing and keeps no more than it was given", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 }), (chunks) => {
      const reader = new FrameReader(500);
      let given = 0;
      for (const chunk of chunks) {
        given += chunk.length;
        reader.push(chunk);
        while (reader.next() > 0) assertEquals(reader.payload.length <= MAX_END_BYTES, true);
      }
      assertEquals(reader.buffered <= given, true);
    }),
  );
});

Deno.test("FrameReader refuses a length as soon as its five bytes are there", () => {
  const cases: [number, number, Code][] = [
    [FRAME.CALL, MAX_HEADER_BYTES, Code.InvalidArgument],
    [FRAME.HEADERS, MAX_HEADER_BYTES, Code.InvalidArgument],
    [FRAME.END, MAX_END_BYTES, Code.InvalidArgument],
    [FRAME.MESSAGE, 1000, Code.ResourceExhausted],
  ];
  for (const [type, limit, code] of cases) {
    const fits = new FrameReader(1000);
    fits.push(header(type, limit));
    assertEquals(fits.next(), NEED_MORE);
    for (const length of [limit + 1, 0xffff_ffff]) {
      const reader = new FrameReader(1000);
      reader.push(header(type, length).subarray(0, 4));
      assertEquals(reader.next(), NEED_MORE);
      reader.push(header(type, length).subarray(4));
      assertEquals([reader.next(), reader.next(), reader.violation?.code], [VIOLATION, VIOLATION, code]);
      assertEquals(reader.buffered, 0);
    }
  }
});

Deno.test("FrameWriter keeps writes apart and grows for large ones", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20_000), { maxLength: 12 }), (sizes) => {
      const writer = new FrameWriter();
      const taken = sizes.map((size, i) => {
        const mark = writer.beginFrame(FRAME.MESSAGE);
        for (let left = size; left > 0; left -= 7000) {
          writer.bytes(new Uint8Array(Math.min(7000, left)).fill(i + 1));
        }
        writer.endFrame(mark);
        return writer.take();
      });
      taken.forEach((bytes, i) => {
        const size = sizes[i]!;
        assertEquals(bytes.subarray(0, FRAME_HEADER_BYTES), header(FRAME.MESSAGE, size));
        assertEquals(bytes.subarray(FRAME_HEADER_BYTES).every((byte) => byte === i + 1), true);
        assertEquals(bytes.length, FRAME_HEADER_BYTES + size);
      });
    }),
    { numRuns: 30 },
  );
});

Deno.test("metadata keeps names, values and their order", () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/);
  const text = fc.stringMatching(/^[\x21-\x7e\x80-\xff]([\x20-\x7e]{0,30}[\x21-\x7e])?$/);
  fc.assert(
    fc.property(fc.array(fc.tuple(name, text), { maxLength: 20 }), (entries) => {
      const writer = new FrameWriter();
      writeMetadata(writer, entries);
      const bytes = writer.take();
      assertEquals(checkMetadata(bytes, 0), undefined);
      assertEquals([...readMetadata(bytes, 0, new Headers())], [...new Headers(entries)]);
    }),
  );
});

Deno.test("metadata that passes the check never makes Headers throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      if (checkMetadata(bytes, 0) === undefined) readMetadata(bytes, 0, new Headers());
    }),
    { numRuns: 2000 },
  );
});

Deno.test("metadata is refused when it is cut short, misnamed, or too much", () => {
  const entry = (key: string, value: string) => [key.length, ...ascii(key), 0, value.length, ...ascii(value)];
  const cases: [string, number[]][] = [
    ["metadata has an empty name", [0, 0, 0]],
    ["metadata is cut short", [5, 97]],
    ["metadata is cut short", [1, 97, 0, 9, 98]],
    ["metadata has a bad name", entry("A", "b")],
    ["metadata has a bad value", entry("a", "b\nc")],
    ["metadata has a value with blanks at an end", entry("a", "b ")],
    [
      "metadata has too many entries",
      Array.from({ length: MAX_METADATA_ENTRIES + 1 }, () => entry("a", "")).flat(),
    ],
  ];
  for (const [expected, bytes] of cases) assertEquals(checkMetadata(Uint8Array.from(bytes), 0), expected);
});

Deno.test("readCall() takes back what writeCall() wrote, and any bytes without throwing", () => {
  fc.assert(
    fc.property(fc.option(fc.nat(100_000), { nil: undefined }), fc.boolean(), (remainingMs, withHeaders) => {
      const writer = new FrameWriter();
      const path = pathBytes("/pkg.Service/Method");
      writeCall(writer, path, remainingMs, withHeaders ? { a: "b" } : undefined);
      const payload = writer.take().subarray(FRAME_HEADER_BYTES);
      const header = readCall(payload);
      if ("code" in header) throw new Error(header.message);
      assertEquals(payload.subarray(header.pathStart, header.pathEnd), path);
      assertEquals(header.remainingMs, remainingMs);
      assertEquals(payload.length - header.metadataStart, withHeaders ? 5 : 0);
    }),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 50 }), (bytes) => void readCall(bytes)), {
    numRuns: 1000,
  });
});

Deno.test("readEnd() takes any bytes without throwing", () => {
  const nearly = fc.uint8Array({ maxLength: 30 }).map((rest) => Uint8Array.of(5, 0, 1, 65, 1, ...rest));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), nearly), (bytes) => {
      const end = readEnd(bytes);
      if (typeof end !== "string") endToError(end, undefined);
    }),
    { numRuns: 2000 },
  );
});

Deno.test("writeErrorEnd() leaves out trailers, then details, then the end of the text, to keep its bound", () => {
  const detail = { type: "a.B", value: new Uint8Array(60_000) };
  const cases: [ConnectError, Headers | undefined, number, number, number][] = [
    [error("m", [], {}), new Headers({ t: "x" }), 1, 0, 1],
    [error("m", [detail], { big: "x".repeat(10_000) }), undefined, 1, 1, 0],
    [error("m", [detail, detail], {}), undefined, 1, 0, 0],
    [error("m".repeat(65_535), [detail], {}), undefined, 1024, 0, 0],
  ];
  for (const [failed, trailers, textLength, details, entries] of cases) {
    const writer = new FrameWriter();
    writeErrorEnd(writer, failed, trailers);
    const reader = new FrameReader(0);
    reader.push(writer.take());
    assertEquals(reader.next(), FRAME.END);
    const end = readEnd(reader.payload);
    if (typeof end === "string") throw new Error(end);
    const seen = endToError(end, undefined);
    assertEquals(seen.code, Code.Aborted);
    assertEquals([seen.rawMessage.length, seen.details.length, [...seen.metadata].length], [
      textLength,
      details,
      entries,
    ]);
  }
});

function error(message: string, details: ConnectError["details"], metadata: HeadersInit): ConnectError {
  const made = new ConnectError(message, Code.Aborted, metadata);
  made.details = details;
  return made;
}

function header(type: number, length: number): Uint8Array {
  return Uint8Array.of(type, length >>> 24, length >>> 16, length >>> 8, length);
}

function concat(frames: readonly (readonly [number, Uint8Array])[]): Uint8Array {
  return Uint8Array.from(frames.flatMap(([type, payload]) => [...header(type, payload.length), ...payload]));
}

function cut(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (const length of cuts) {
    chunks.push(bytes.slice(at, at + length));
    at = Math.min(bytes.length, at + length);
  }
  return [...chunks, bytes.slice(at)];
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}
