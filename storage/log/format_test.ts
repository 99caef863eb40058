import { assertEquals } from "@std/assert";
import { createFaultFs } from "../testing/fault_fs.ts";
import { crc32c } from "./crc32c.ts";
import { decodeHeader, encodeHeader, parseName, segmentName, snapshotName } from "./format.ts";
import { openLog } from "./mod.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const hex = (bytes: Uint8Array) => bytes.toHex().replace(/(.{32})/g, "$1\n").trim();

Deno.test("crc32c() gives the published values and can be made in pieces", () => {
  // RFC 3720, appendix B.4, and the CRC catalogue's check value.
  assertEquals(crc32c(ascii("123456789"), 0, 9, 0), 0xe3069283);
  assertEquals(crc32c(new Uint8Array(32), 0, 32, 0), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(0xff), 0, 32, 0), 0x62a8ab43);
  assertEquals(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i), 0, 32, 0), 0x46dd794e);
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i * 7);
  for (let cut = 0; cut <= 100; cut++) {
    assertEquals(crc32c(bytes, cut, 100, crc32c(bytes, 0, cut, 0)), crc32c(bytes, 0, 100, 0));
  }
});

Deno.test("Log writes the golden bytes of format version 1", async () => {
  const fs = createFaultFs(1);
  const log = await openLog({
    fs,
    directory: "/log",
    durability: "always",
    salt: () => 0x01020304,
    clock: { now: () => 0, wallMs: () => 1_700_000_000_000 },
  });
  await log.durable(log.append(ascii("first")));
  log.append(ascii("second"));
  await log.durable(log.append(ascii("3")));
  await log.snapshot([ascii("state"), ascii("more state")], 2);
  await log.close();

  assertEquals(
    hex(fs.readFile("/log/segment-0000000000000001.log")),
    GOLDEN_SEGMENT,
  );
  assertEquals(hex(fs.readFile("/log/snapshot-0000000000000002.snap")), GOLDEN_SNAPSHOT);
});

const GOLDEN_SEGMENT = `\
41464c47010000000100000000000000
0068e5cf8b01000004030201597e1668
d9185c1f100000800100000000000000
0000000000000000260adb9005000000
66697273740d05984510000080020000
0000000000010000000000000066c2de
2d060000007365636f6e64dbee49c801
00000033`;
const GOLDEN_SNAPSHOT = `\
4146534e010000000200000000000000
0068e5cf8b01000004030201ace04d12
e11500880500000073746174652f2b66
340a0000006d6f7265207374617465f3
41b30a100000c002000000000000000f
00000000000000`;

Deno.test("decodeHeader() tells damage from another version", () => {
  const header = { kind: "segment", seq: 2 ** 40, createdMs: 5, salt: 0xffffffff } as const;
  const bytes = encodeHeader(header);
  assertEquals(decodeHeader(bytes, "segment"), header);
  assertEquals(decodeHeader(bytes, "snapshot"), {
    wrong: "damaged",
    what: "this is no snapshot (wrong magic)",
  });
  assertEquals(decodeHeader(bytes.subarray(0, 31), "segment"), {
    wrong: "damaged",
    what: "the file ends within its header, after 31 bytes",
  });
  const flipped = bytes.slice();
  flipped[9]! ^= 1;
  assertEquals(decodeHeader(flipped, "segment"), {
    wrong: "damaged",
    what: "the header's CRC does not match",
  });
  const newer = bytes.slice();
  newer[4] = 2;
  new DataView(newer.buffer).setUint32(28, crc32c(newer, 0, 28, 0), true);
  assertEquals(decodeHeader(newer, "segment"), {
    wrong: "version",
    what: "format version 2, this program reads 1",
  });
});

Deno.test("parseName() knows the log's own files and no others", () => {
  assertEquals(parseName(segmentName(17)), { kind: "segment", seq: 17 });
  assertEquals(parseName(snapshotName(2 ** 53 - 1)), { kind: "snapshot", seq: 2 ** 53 - 1 });
  for (
    const name of ["lock", "snapshot.tmp", "segment-17.log", "segment-0000000000000017.log~", "notes.txt"]
  ) {
    assertEquals(parseName(name), undefined);
  }
});
