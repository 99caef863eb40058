import { assertEquals } from "@std/assert";
import { checkHeader, FLAG, guuidEquals, kindOfFlags, writeHeader } from "./header.ts";

const GUUID = Uint8Array.of(1, 2, 3, 4, 5, 6, 0x77, 8, 0x89, 10, 11, 12, 13, 14, 15, 16);

function datagram(payloadBytes: number, blocks: number): Uint8Array {
  const bytes = new Uint8Array(32 + payloadBytes + 8 * blocks);
  writeHeader(bytes, FLAG.ACK | FLAG.PSH, GUUID, 0xdeadbeef, 0x00c0ffee, payloadBytes);
  return bytes;
}

Deno.test("writeHeader() makes the golden bytes of SPEC §1.1", () => {
  assertEquals(
    datagram(0x1234, 0).subarray(0, 32).toHex(),
    "51554e54" + "02" + "22" + "01020304050677088" + "90a0b0c0d0e0f10" + "deadbeef" + "00c0ffee" + "1234",
  );
});

Deno.test("checkHeader() counts the SACK blocks that the lengths leave room for", () => {
  for (const blocks of [0, 1, 7, 8]) assertEquals(checkHeader(datagram(100, blocks)), blocks);
});

Deno.test("checkHeader() refuses what is not a Quantum datagram of version 2", () => {
  const cases: [string, Uint8Array, "malformed" | "version"][] = [
    ["empty", new Uint8Array(0), "malformed"],
    ["shorter than header and tag", datagram(16, 0).subarray(0, 47), "malformed"],
    ["nine SACK blocks", datagram(100, 9), "malformed"],
    ["a SACK block cut short", datagram(100, 1).subarray(0, 136), "malformed"],
    ["payload longer than the datagram", datagram(100, 0).subarray(0, 131), "malformed"],
    ["payload shorter than its tag", datagram(15, 1), "malformed"],
    ["longer than UDP can carry", datagram(65_507 - 31, 0), "malformed"],
    ["another magic", datagram(100, 0).fill(0x52, 1, 2), "version"],
    ["another version", datagram(100, 0).fill(3, 4, 5), "version"],
  ];
  for (const [what, bytes, reason] of cases) assertEquals(checkHeader(bytes), reason, what);
});

Deno.test("kindOfFlags() knows the five kinds of SPEC §1.4 and nothing else", () => {
  const known = new Map<number, string>([
    [FLAG.SYN, "syn"],
    [FLAG.SYN | FLAG.ACK, "synack"],
    [FLAG.SYN | FLAG.RST, "retry"],
    [FLAG.RST, "reset"],
    [FLAG.ACK, "session"],
    [FLAG.ACK | FLAG.PSH, "session"],
    [FLAG.ACK | FLAG.FIN, "session"],
    [FLAG.ACK | FLAG.PSH | FLAG.FIN, "session"],
  ]);
  for (let flags = 0; flags < 256; flags++) assertEquals(kindOfFlags(flags), known.get(flags) as never);
});

Deno.test("guuidEquals() compares every byte", () => {
  const bytes = datagram(100, 0);
  assertEquals(guuidEquals(bytes, GUUID), true);
  for (let i = 0; i < 16; i++) {
    const other = GUUID.slice();
    other[i]! ^= 1;
    assertEquals(guuidEquals(bytes, other), false, `byte ${i}`);
  }
});
