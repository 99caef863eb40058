import { assert, assertEquals } from "@std/assert";
import { CLOSE, type CloseKind, type CloseName, closeReason } from "./close_codes.ts";

Deno.test("close codes say by their range whether a client should come back", () => {
  for (const [name, { code, mayReconnect }] of Object.entries<CloseKind>(CLOSE)) {
    if (code < 3000) continue; // the protocol's own
    assertEquals(mayReconnect, code >= 4500 && code < 4600, name);
    assertEquals(!mayReconnect, code >= 4400 && code < 4500, name);
  }
});

Deno.test("no two rows have one code", () => {
  const codes = Object.values(CLOSE).map(({ code }) => code);
  assertEquals(new Set(codes).size, codes.length);
});

Deno.test("reasons fit a close frame, whatever the detail", () => {
  for (const name of Object.keys(CLOSE) as CloseName[]) {
    assertEquals(closeReason(name), CLOSE[name].text);
    for (const detail of ["", "why", "x".repeat(1_000), "𝒳".repeat(60), "ä".repeat(200)]) {
      const reason = closeReason(name, detail);
      assert(new TextEncoder().encode(reason).length <= 123, reason);
      assert(!reason.includes("\uFFFD"), reason);
      assert(reason.startsWith(CLOSE[name].text));
    }
  }
});
