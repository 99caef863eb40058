import { assertEquals } from "@std/assert";
import { ROOT } from "../support/paths.ts";
import plugin from "./lint_plugin.ts";

const PURE_FILES = [
  "transport/quantum/wire/header.ts",
  "transport/quantum/core/loss/recovery.ts",
  "services/kv/service.ts",
  "services/kv/state.ts",
  "services/host/plan.ts",
  "services/gateway/transcode.ts",
];

/** Statements that a pure file may not have. */
const IMPURE = [
  "Deno.cwd();",
  'const { env } = Deno; env.get("A");',
  "let address: Deno.NetAddr;",
  "setTimeout(() => {}, 1);",
  "const timer = setInterval;",
  "queueMicrotask(() => {});",
  "setImmediate(() => {});",
  "Date.now();",
  "new Date();",
  "let at: Date;",
  "performance.now();",
  "Math.random();",
  'Math["random"]();',
  "Math[name]();",
  "crypto.getRandomValues(bytes);",
  "crypto.subtle.digest(a, b);",
  "globalThis.setTimeout(() => {});",
  "const o = { performance };",
  "fetch(url);",
  'console.log("");',
  'import { randomBytes } from "node:crypto";',
  'import { randomUUID as id } from "node:crypto";',
  'import { webcrypto } from "node:crypto";',
  'import * as crypto from "node:crypto";',
  'import crypto from "node:crypto";',
  'import { setTimeout } from "node:timers/promises";',
  'import process from "node:process";',
  "function f() { const Date = 1; } Date.now();",
  "for (const x of [Date]) {}",
  "class A { at = Date.now(); }",
  "`${Date.now()}`;",
];

/** Statements that look like those and are right. */
const PURE = [
  "clock.now();",
  "state.Date = 1; const o = { Date: 1, performance: 2 }; o.performance;",
  "function f(performance: Clock) { return performance.now(); }",
  "function f({ crypto }: Deps, [Date]: A, ...Deno: B) { crypto.x; Date.y; Deno.z; }",
  "const f = (Date = 1) => Date;",
  "{ const Date = clock; Date.now(); }",
  "class Deno {} new Deno();",
  "for (const Date of dates) Date.year;",
  "try {} catch (performance) { performance; }",
  "Math.max(1, 2); Math.floor(x);",
  'import { createHash, hkdfSync } from "node:crypto"; createHash("sha256");',
  'import type { KeyObject, randomBytes } from "node:crypto";',
  'import { Buffer } from "node:buffer"; Buffer.alloc(1);',
  "interface Clock { Date: number; performance(): number; }",
  "enum Kind { Date }",
  "new TextEncoder().encode(text);",
  "structuredClone(value);",
];

for (const file of PURE_FILES) {
  Deno.test(`aetherflow/pure reports what brings time, chance or the platform into ${file}`, () => {
    assertEquals(IMPURE.filter((source) => count("pure", file, source) === 0), []);
  });

  Deno.test(`aetherflow/pure lets ${file} be what it should be`, () => {
    assertEquals(PURE.filter((source) => count("pure", file, source) > 0), []);
  });
}

Deno.test("aetherflow/pure leaves tests, benches and the other files alone", () => {
  for (
    const file of [
      "services/kv/service_test.ts",
      "transport/quantum/core/endpoint_bench.ts",
      "services/kv/worker.ts",
      "services/host/supervisor.ts",
      "services/kv/rpc.ts",
    ]
  ) {
    assertEquals(IMPURE.filter((source) => count("pure", file, source) > 0), [], file);
  }
});

Deno.test("aetherflow/platform reports Deno.* outside the places that touch the platform", () => {
  for (
    const file of [
      "services/kv/rpc.ts",
      "services/kv/mod.ts",
      "services/kv/stores/log.ts",
      "services/gateway/routes.ts",
      "transport/rpc/client.ts",
      "transport/channels/memory.ts",
    ]
  ) {
    assertEquals(count("platform", file, "Deno.cwd();"), 1, file);
  }
  for (
    const file of [
      "main.ts",
      "services/kv/worker.ts",
      "services/gateway/edges/http.ts",
      "services/host/supervisor.ts",
      "services/runtime/log.ts",
      "storage/log/fs.ts",
      "transport/quantum/driver/node.ts",
      "transport/channels/quantum.ts",
      "services/kv/rpc_test.ts",
      "tests/sim/world.ts",
      "deploy/compile.ts",
    ]
  ) {
    assertEquals(count("platform", file, "Deno.cwd();"), 0, file);
  }
});

Deno.test("aetherflow/imports reads every form of import", () => {
  const wrong = [
    'import { a } from "../gateway/routes.ts";',
    'import type { A } from "../gateway/routes.ts";',
    'import "../gateway/routes.ts";',
    'export { a } from "../gateway/routes.ts";',
    'export * from "../gateway/routes.ts";',
    'const a = await import("../gateway/routes.ts");',
    'import { a } from "@std/assert";',
    'import { a } from "../../storage/log/mod.ts";',
    'import { a } from "./worker.ts";',
  ];
  assertEquals(wrong.filter((source) => count("imports", "services/kv/rpc.ts", source) !== 1), []);
  const right = [
    'import { a } from "./service.ts";',
    'import { KV } from "$proto/etcdserverpb/rpc_pb.ts";',
    'import { Code } from "@connectrpc/connect";',
    'import { Buffer } from "node:buffer";',
    'import { systemClock } from "../runtime/clock.ts";',
    "export { a };",
    "export const a = 1;",
    "const a = await import(name);",
  ];
  assertEquals(right.filter((source) => count("imports", "services/kv/rpc.ts", source) !== 0), []);
});

Deno.test("aetherflow/imports knows a package by its name, however it is written", () => {
  for (const specifier of ["hono", "hono/cors", "npm:hono@4.13.19", "npm:hono@4.13.19/cors", "npm:/hono@4"]) {
    assertEquals(count("imports", "transport/rpc/client.ts", `import "${specifier}";`), 1, specifier);
  }
  for (
    const specifier of [
      "@connectrpc/connect",
      "@connectrpc/connect/protocol",
      "npm:@connectrpc/connect@2.2.0",
    ]
  ) {
    assertEquals(count("imports", "transport/rpc/client.ts", `import "${specifier}";`), 0, specifier);
  }
});

Deno.test("the rules know a file by its absolute path and leave files elsewhere alone", () => {
  assertEquals(count("pure", `${ROOT}/services/kv/state.ts`, "Date.now();"), 1);
  assertEquals(count("pure", "/elsewhere/services/kv/state.ts", "Date.now();"), 0);
});

/** How often a rule reports something of a source text. */
function count(rule: string, file: string, source: string): number {
  return Deno.lint.runPlugin(plugin, file, source).filter((found) => found.id === `aetherflow/${rule}`)
    .length;
}
