import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { etcdAddresses, kvConfigSchema } from "./config.ts";

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
      { autoCompaction: { mode: "periodic" } },
      { autoCompaction: { mode: "periodic", retention: "soon" } },
      { autoCompaction: { mode: "revision", retention: "1h" } },
      { member: { clientUrls: ["here"] } },
      { engine: "floppy" },
      { engine: "etcd" },
      { engine: "etcd", etcd: { endpoints: ["http://a:2379", "https://b:2379"] } },
      { etcd: { endpoints: ["a"] } },
      { etcd: { tls: { certFile: "cert.pem" } } },
      { unknown: 1 },
    ]
  ) assertThrows(() => kvConfigSchema.parse(wrong), z.ZodError);
});

Deno.test("etcdAddresses() takes addresses and URLs", () => {
  const endpoints = ["10.0.0.1:2379", "http://etcd.example:2380", "http://[::1]:1"];
  assertEquals(etcdAddresses(kvConfigSchema.parse({ etcd: { endpoints } })), [
    { hostname: "10.0.0.1", port: 2379 },
    { hostname: "etcd.example", port: 2380 },
    { hostname: "[::1]", port: 1 },
  ]);
});
