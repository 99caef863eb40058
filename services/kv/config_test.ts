import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { kvConfigSchema } from "./config.ts";

Deno.test("kvConfigSchema has a default for every key and keeps its own rules", () => {
  const config = kvConfigSchema.parse(undefined);
  assertEquals(config, kvConfigSchema.parse(config));
  assertEquals(config.durability, "always");
  assert(
    config.maxKeyBytes + config.maxValueBytes > config.maxRequestBytes,
    "the request's bound is the last word",
  );
  assert(config.retainHistoryBytes < config.quotaBytes);
});

Deno.test("kvConfigSchema describes every key", () => {
  const undescribed: string[] = [];
  const look = (schema: unknown, path: string) => {
    const json = schema as { properties?: Record<string, { description?: string }> };
    for (const [key, value] of Object.entries(json.properties ?? {})) {
      if ("properties" in value) look(value, `${path}.${key}`);
      else if (value.description === undefined) undescribed.push(`${path}.${key}`);
    }
  };
  look(z.toJSONSchema(kvConfigSchema, { io: "input" }), "kv");
  assertEquals(undescribed, []);
});

Deno.test("kvConfigSchema refuses unknown keys and values out of range", () => {
  for (
    const wrong of [
      { durability: "sometimes" },
      { maxValueBytes: -1 },
      { quotaBytes: 1 },
      { retainRevisions: 0 },
      { watch: { watchersMax: 0 } },
      { unknown: 1 },
    ]
  ) assertThrows(() => kvConfigSchema.parse(wrong), z.ZodError);
});
