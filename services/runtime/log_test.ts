import { assertEquals, assertStringIncludes } from "@std/assert";
import { createManualClock } from "./clock.ts";
import { createLogger, isSecretKey, type LogFormat, type LogLevel, redact } from "./log.ts";

function capture(format: LogFormat, level: LogLevel = "debug") {
  const lines: string[] = [];
  const clock = createManualClock(1_700_000_000_000);
  return { lines, log: createLogger("kv", { level, format }, { write: (line) => lines.push(line), clock }) };
}

Deno.test("Logger writes one JSON object a line, with inherited fields and without secrets", () => {
  const { lines, log } = capture("json");
  log.child({ requestId: "01A", level: "mine" }).warn("call failed", {
    apiToken: "abc",
    pageToken: "p",
    sizes: [1n],
  });
  assertEquals(lines.length, 1);
  assertEquals(JSON.parse(lines[0]!), {
    "@timestamp": "2023-11-14T22:13:20.000Z",
    level: "WARN",
    message: "call failed",
    logger: "kv",
    requestId: "01A",
    "field.level": "mine",
    apiToken: "[redacted]",
    pageToken: "p",
    sizes: ["1"],
  });
});

Deno.test("Logger writes text for people, with an error's stack below its line", () => {
  const { lines, log } = capture("text");
  log.error("cannot reach peer", { peer: "kv", why: "two words", error: new Error("boom") });
  assertStringIncludes(
    lines[0]!,
    '[error] kv: cannot reach peer peer=kv why="two words" error=boom\nError: boom\n',
  );
});

Deno.test("Logger drops what is below its level", () => {
  const { lines, log } = capture("json", "warn");
  log.debug("a");
  log.info("b");
  log.warn("c");
  log.error("d");
  const quiet = capture("json", "off");
  quiet.log.error("e");
  assertEquals([lines.map((line) => JSON.parse(line).message), quiet.lines], [["c", "d"], []]);
});

Deno.test("isSecretKey() knows secrets by their names", () => {
  const secrets = [
    "secret",
    "clientSecret",
    "token",
    "accessToken",
    "password",
    "passwd",
    "authorization",
    "Cookie",
    "api_key",
    "privateKey",
  ];
  const others = ["pageToken", "nextPageToken", "key", "keyText", "name", "revision"];
  assertEquals(secrets.filter((key) => !isSecretKey(key)), []);
  assertEquals(others.filter(isSecretKey), []);
});

Deno.test("redact() ends cycles, cuts long texts, names bytes by length and keeps an error's causes", () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  assertStringIncludes(JSON.stringify(redact(cycle)), '"[…]"');
  assertEquals(redact({ bytes: new Uint8Array(3), none: undefined }), { bytes: "[3 bytes]" });
  assertStringIncludes(redact("x".repeat(10_000)) as string, "… (10000 characters)");
  const error = redact(new Error("outer", { cause: { password: "p" } })) as Record<string, unknown>;
  assertEquals([error.message, error.cause], ["outer", { password: "[redacted]" }]);
});
