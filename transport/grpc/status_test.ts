import { assertEquals } from "@std/assert";
import { ERROR } from "../http2/errors.ts";
import { decodeStatusMessage, encodeTimeout, GRPC, statusOfReset } from "./status.ts";

Deno.test("decodeStatusMessage() reads what is percent-encoded and leaves the rest", () => {
  const cases: [string, string][] = [
    ["plain", "plain"],
    ["", ""],
    ["100%25", "100%"],
    ["%E2%98%83 %e2%98%83", "☃ ☃"],
    ["%", "%"],
    ["%2", "%2"],
    ["%zz%41", "%zzA"],
    ["\xe2\x98\x83", "☃"],
    ["%ff", "\ufffd"],
  ];
  assertEquals(cases.map(([field]) => decodeStatusMessage(field)), cases.map(([, text]) => text));
});

Deno.test("encodeTimeout() never says less than is left, in eight digits", () => {
  const cases: [number, string][] = [
    [0.2, "1m"],
    [-5, "1m"],
    [1_500.5, "1501m"],
    [99_999_999, "99999999m"],
    [100_000_000, "100000S"],
    [1e12, "99999999H"],
  ];
  assertEquals(cases.map(([ms]) => encodeTimeout(ms)), cases.map(([, text]) => text));
});

Deno.test("statusOfReset() tells what may be tried again", () => {
  const { UNAVAILABLE, CANCELLED, INTERNAL, RESOURCE_EXHAUSTED } = GRPC;
  const cases = [
    [ERROR.CANCEL, "connection", UNAVAILABLE, false],
    [ERROR.REFUSED_STREAM, "unprocessed", UNAVAILABLE, true],
    [ERROR.CANCEL, "peer", CANCELLED, false],
    [ERROR.ENHANCE_YOUR_CALM, "peer", RESOURCE_EXHAUSTED, false],
    [ERROR.NO_ERROR, "peer", INTERNAL, false],
    [999, "peer", INTERNAL, false],
    [ERROR.PROTOCOL_ERROR, "mistake", INTERNAL, false],
    [ERROR.ENHANCE_YOUR_CALM, "mistake", RESOURCE_EXHAUSTED, false],
  ] as const;
  for (const [code, cause, expected, isUnsent] of cases) {
    const status = statusOfReset(code, cause, "");
    assertEquals([status.code, status.isUnsent], [expected, isUnsent], `${code} ${cause}`);
  }
});
