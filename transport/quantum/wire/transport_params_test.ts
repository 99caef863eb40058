import { assertEquals } from "@std/assert";
import {
  readTransportParams,
  TRANSPORT_PARAMS_BYTES_MAX,
  type TransportParams,
  writeTransportParams,
} from "./transport_params.ts";

const PARAMS: TransportParams = {
  connectionWindowBytes: 16 * 2 ** 20,
  streamWindowBytes: 4 * 2 ** 20,
  streamsOpenMax: 4096,
  idleTimeoutMs: 30_000,
  datagramBytesMax: 65_507,
  socketBudgetBytes: 165_000,
  ackDelayMaxMs: 8,
};
const GOLDEN = "0181000000" + "0280400000" + "035000" + "0480007530" + "058000ffe3" + "0680028488" + "0708" +
  "00";

Deno.test("writeTransportParams() makes the golden bytes, and readTransportParams() reads them", () => {
  const bytes = new Uint8Array(TRANSPORT_PARAMS_BYTES_MAX);
  const end = writeTransportParams(bytes, 0, PARAMS);
  assertEquals(bytes.subarray(0, end).toHex(), GOLDEN);
  assertEquals(readTransportParams(bytes, 0, bytes.length), PARAMS);
});

Deno.test("readTransportParams() gives defaults for what is missing and skips what it does not know", () => {
  const bytes = Uint8Array.fromHex("3f05" + "0304" + "00" + "ff");
  assertEquals(readTransportParams(bytes, 0, bytes.length), {
    connectionWindowBytes: 0,
    streamWindowBytes: 0,
    streamsOpenMax: 4,
    idleTimeoutMs: 0,
    datagramBytesMax: 1200,
    socketBudgetBytes: 65_536,
    ackDelayMaxMs: 25,
  });
});

Deno.test("readTransportParams() refuses values out of range and lists without an end", () => {
  for (const hex of ["", "0304", "03", "0544af00", "0780010000" + "00", "03c0000000ffffffff00"]) {
    const bytes = Uint8Array.fromHex(hex);
    assertEquals(readTransportParams(bytes, 0, bytes.length), undefined, hex);
  }
});
