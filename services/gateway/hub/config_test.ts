import { assert, assertEquals } from "@std/assert";
import { hubConfigSchema } from "./config.ts";

Deno.test("hubConfigSchema has these defaults", () => {
  assertEquals(hubConfigSchema.parse(undefined), {
    maxSockets: 50_000,
    maxChannels: 100_000,
    maxChannelsPerSocket: 128,
    maxMessageBytes: 65_536,
    maxQueuedBytes: 1_048_576,
    messagesPerSecond: 100,
    messageBurst: 200,
    authTimeoutMs: 10_000,
    pingIntervalMs: 25_000,
    historyMessages: 256,
    historyBytes: 1_048_576,
    historyTotalBytes: 134_217_728,
    idleChannelMs: 300_000,
    presenceTickMs: 250,
    reconnectMs: 5_000,
  });
});

Deno.test("hubConfigSchema names the key of what it refuses", () => {
  const cases: [input: unknown, path: string][] = [
    [{ maxSockets: 0 }, "maxSockets"],
    [{ maxChannels: 0 }, "maxChannels"],
    [{ maxChannelsPerSocket: 0 }, "maxChannelsPerSocket"],
    [{ maxMessageBytes: 100 }, "maxMessageBytes"],
    [{ maxQueuedBytes: 1 }, "maxQueuedBytes"],
    [{ messagesPerSecond: 0 }, "messagesPerSecond"],
    [{ messageBurst: 0 }, "messageBurst"],
    [{ authTimeoutMs: 0 }, "authTimeoutMs"],
    [{ pingIntervalMs: 10 }, "pingIntervalMs"],
    [{ historyMessages: -1 }, "historyMessages"],
    [{ historyBytes: -1 }, "historyBytes"],
    [{ historyTotalBytes: -1 }, "historyTotalBytes"],
    [{ idleChannelMs: 0 }, "idleChannelMs"],
    [{ presenceTickMs: 0 }, "presenceTickMs"],
    [{ reconnectMs: -1 }, "reconnectMs"],
    [{ unknown: 1 }, ""],
  ];
  for (const [input, path] of cases) {
    const result = hubConfigSchema.safeParse(input);
    assert(!result.success, JSON.stringify(input));
    assertEquals(result.error.issues[0]!.path.join("."), path);
  }
});
