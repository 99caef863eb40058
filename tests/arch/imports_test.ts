import { assert, assertEquals, assertRejects } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { ROOT } from "../support/paths.ts";
import { cycleIn, type Edge, importsOf, sourceFiles } from "./graph.ts";
import lintPlugin, { MAPPED } from "./lint_plugin.ts";
import { importProblem, isPure, matchesAny, partOf, PARTS, roomOf, TEST_FILES } from "./rules.ts";

/** What the build of the console bundles, with all that it imports. */
const PAGE = "console/main.ts";

let files: string[] = [];
let edges: Edge[] = [];
let productEdges: Edge[] = [];

Deno.test.beforeAll(async () => {
  files = await sourceFiles();
  edges = await importsOf(files);
  productEdges = edges.filter((edge) => edge.kind === "file" && isProduct(edge.from));
});

Deno.test("every file has a place in the picture", () => {
  assertEquals(files.filter((file) => partOf(file) === undefined), []);
});

Deno.test("every import goes in the direction of the picture", () => {
  assert(edges.length > 0);
  const problems = edges.flatMap((edge) => {
    const problem = importProblem(edge.from, edge.to, edge.kind);
    return problem === undefined ? [] : [`${edge.from}: ${problem}`];
  });
  assertEquals(problems, []);
});

Deno.test("services, engines and layers import one another without a cycle", () => {
  assertEquals(cycleIn(roomEdges(productEdges)), undefined);
});

Deno.test("files import one another's values without a cycle", () => {
  const values = productEdges.filter((edge) => edge.value);
  assertEquals(cycleIn(values.map((edge) => [edge.from, edge.to] as const)), undefined);
});

Deno.test("what a pure file imports is pure as well", async () => {
  const reached = closure(files.filter(isPure), productEdges.filter((edge) => edge.value));
  const problems: string[] = [];
  for (const file of reached) {
    if (!isPure(file)) problems.push(...impurities(file, await Deno.readTextFile(`${ROOT}/${file}`)));
  }
  assertEquals(problems, []);
});

Deno.test("the command line, a worker, a tool or a test reaches every file", () => {
  const entries = files.filter((file) =>
    file === "main.ts" || /^services\/[^/]+\/worker\.ts$/.test(file) || !isProduct(file) || file === PAGE
  );
  const reached = closure(entries, edges.filter((edge) => edge.kind === "file"));
  assertEquals(files.filter((file) => !reached.has(file) && !file.startsWith("proto/gen/")), []);
});

Deno.test("the lint plugin maps the same names as deno.json", () => {
  const mapped = Object.entries(config.imports).filter(([, to]) => to.startsWith("./"));
  assertEquals(MAPPED.map(([name, path]) => [name, `./${path}`]), mapped);
});

// The checks above pass on a right tree only if they can fail on a wrong one.

Deno.test("importProblem() reports each wrong direction", () => {
  const wrong: [from: string, to: string][] = [
    ["transport/rpc/client.ts", "services/kv/rpc.ts"],
    ["transport/rpc/client.ts", "transport/quantum/core/endpoint.ts"],
    ["transport/channels/memory.ts", "services/runtime/clock.ts"],
    ["transport/testing/channel_suite.ts", "services/runtime/clock.ts"],
    ["storage/log/log.ts", "services/runtime/clock.ts"],
    ["storage/log/log.ts", "transport/channels/channel.ts"],
    ["services/kv/rpc.ts", "services/gateway/routes.ts"],
    ["services/kv/worker.ts", "services/gateway/routes.ts"],
    ["services/kv/config.ts", "services/host/config.ts"],
    ["services/gateway/edges/http.ts", "services/kv/service.ts"],
    ["services/runtime/peers.ts", "services/host/plan.ts"],
    ["services/runtime/peers.ts", "services/kv/config.ts"],
    ["services/host/host.ts", "services/kv/service.ts"],
    ["services/host/spawn.ts", "services/kv/worker.ts"],
    ["services/host/plan.ts", "services/kv/worker.ts"],
    ["services/kv/worker_test.ts", "services/kv/worker.ts"],
    ["main.ts", "services/kv/mod.ts"],
    ["main.ts", "storage/log/mod.ts"],
    ["services/kv/service.ts", "services/kv/rpc.ts"],
    ["services/kv/service.ts", "services/kv/mod.ts"],
    ["services/kv/service.ts", "services/kv/worker.ts"],
    ["services/kv/service.ts", "services/kv/stores/log.ts"],
    ["services/kv/service.ts", "storage/log/mod.ts"],
    ["services/kv/state.ts", "transport/rpc/mod.ts"],
    ["services/kv/rpc.ts", "storage/log/mod.ts"],
    ["services/kv/rpc.ts", "transport/channels/quantum.ts"],
    ["services/kv/stores/log.ts", "services/kv/rpc.ts"],
    ["services/kv/stores/log.ts", "transport/rpc/mod.ts"],
    ["services/kv/service.ts", "services/kv/service_test.ts"],
    ["services/kv/service.ts", "tests/support/assert.ts"],
    ["transport/quantum/wire/header.ts", "transport/quantum/core/endpoint.ts"],
    ["transport/quantum/wire/header.ts", "transport/channels/channel.ts"],
    ["transport/quantum/core/endpoint.ts", "transport/quantum/driver/node.ts"],
    ["transport/quantum/params.ts", "transport/quantum/wire/header.ts"],
    ["transport/quantum/driver/node.ts", "transport/channels/channel.ts"],
    ["proto/gen/mvccpb/kv_pb.ts", "services/kv/rpc.ts"],
    ["deploy/compile.ts", "services/host/host.ts"],
  ];
  const missed = wrong.filter(([from, to]) => importProblem(from, to, "file") === undefined);
  assertEquals(missed, []);
});

Deno.test("importProblem() lets each right direction pass", () => {
  const right: [from: string, to: string][] = [
    ["main.ts", "services/host/host.ts"],
    ["services/host/config.ts", "services/kv/config.ts"],
    ["services/host/host.ts", "services/runtime/log.ts"],
    ["services/host/host.ts", "transport/channels/quantum.ts"],
    ["services/runtime/run_worker.ts", "transport/channels/quantum.ts"],
    ["services/kv/worker.ts", "services/kv/stores/log.ts"],
    ["services/kv/worker.ts", "storage/log/mod.ts"],
    ["services/kv/mod.ts", "services/kv/rpc.ts"],
    ["services/kv/rpc.ts", "services/kv/service.ts"],
    ["services/kv/rpc.ts", "proto/gen/etcdserverpb/rpc_pb.ts"],
    ["services/kv/service.ts", "services/kv/store.ts"],
    ["services/kv/stores/log.ts", "services/kv/store.ts"],
    ["services/kv/stores/log.ts", "storage/log/mod.ts"],
    ["transport/channels/quantum.ts", "transport/quantum/driver/node.ts"],
    ["transport/quantum/driver/node.ts", "transport/quantum/core/endpoint.ts"],
    ["transport/quantum/core/endpoint.ts", "transport/quantum/wire/header.ts"],
    ["transport/quantum/wire/header.ts", "transport/quantum/params.ts"],
    ["transport/rpc/client.ts", "transport/channels/channel.ts"],
    ["services/kv/service_test.ts", "services/gateway/routes.ts"],
    ["tests/sim/world.ts", "transport/quantum/core/endpoint.ts"],
    ["tests/support/slow_kv_worker.ts", "services/kv/worker.ts"],
  ];
  assertEquals(right.map(([from, to]) => importProblem(from, to, "file")), right.map(() => undefined));
});

Deno.test("importProblem() reports packages that a pure layer may not have, and files without a place", () => {
  assert(importProblem("transport/quantum/wire/header.ts", "zod", "package") !== undefined);
  assert(importProblem("transport/quantum/core/keys.ts", "node:fs", "package") !== undefined);
  assert(importProblem("transport/rpc/client.ts", "hono", "package") !== undefined);
  assertEquals(importProblem("transport/quantum/core/keys.ts", "node:crypto", "package"), undefined);
  assert(importProblem("scratch/try.ts", "services/host/host.ts", "file") !== undefined);
});

Deno.test("cycleIn() names the way round", () => {
  assertEquals(cycleIn([["a", "b"], ["b", "c"], ["c", "b"], ["d", "a"]]), ["b", "c", "b"]);
  assertEquals(cycleIn([["a", "a"]]), ["a", "a"]);
  assertEquals(cycleIn([["a", "b"], ["a", "c"], ["b", "d"], ["c", "d"]]), undefined);
});

Deno.test("roomOf() is a service, an engine or a layer", () => {
  assertEquals(
    [
      "services/kv/stores/log.ts",
      "services/kv/worker.ts",
      "storage/log/fs.ts",
      "transport/quantum/wire/header.ts",
      "transport/quantum/params.ts",
      "transport/rpc/client.ts",
      "main.ts",
    ].map(roomOf),
    [
      "services/kv",
      "services/kv",
      "storage/log",
      "transport/quantum/wire",
      "transport/quantum",
      "transport/rpc",
      "main",
    ],
  );
});

Deno.test("an impure file in a pure file's reach is reported", () => {
  const reach: Edge[] = [{
    from: "services/kv/state.ts",
    to: "services/kv/now.ts",
    kind: "file",
    value: true,
  }];
  assertEquals([...closure(["services/kv/state.ts"], reach)], ["services/kv/state.ts", "services/kv/now.ts"]);
  assertEquals(impurities("services/kv/now.ts", "export const now = () => Date.now();"), [
    "services/kv/now.ts: is in the reach of a pure file and uses Date",
  ]);
});

Deno.test("importsOf() sees values, types and packages, and refuses a missing module", async () => {
  const seen = await importsOf(["tests/arch/imports_test.ts"]);
  const from = "tests/arch/imports_test.ts";
  assert(seen.some((edge) => edge.from === from && edge.to === "tests/arch/rules.ts" && edge.value));
  assert(seen.some((edge) => edge.from === from && edge.to === "tests/support/assert.ts"));
  await assertRejects(() => importsOf(["tests/arch/no_such_file.ts"]), Error, "no_such_file.ts");
});

Deno.test("matchesAny() understands exceptions, and every part says why it is as it is", () => {
  for (const part of PARTS) assert(part.why !== "" && part.files.length > 0, part.name);
  assert(matchesAny(["services/*/!(a.ts|b/**)"], "services/kv/c.ts"));
  assert(!matchesAny(["services/*/!(a.ts|b/**)"], "services/kv/b/c.ts"));
  assert(!matchesAny(["services/*/!(a.ts|b/**)"], "services/kv/a.ts"));
});

/** Whether a file is part of the product: no test, suite or tool. */
function isProduct(path: string): boolean {
  return !matchesAny([
    ...TEST_FILES,
    "**/testing/**",
    "deploy/**",
    "proto/*.ts",
    "services/gateway/console/build.ts",
  ], path);
}

function roomEdges(edges: readonly Edge[]): [string, string][] {
  return edges
    .map(({ from, to }): [string, string] => [roomOf(from), roomOf(to)])
    .filter(([from, to]) => from !== to);
}

/** The given files and all they import, directly or not. */
function closure(from: readonly string[], edges: readonly Edge[]): Set<string> {
  const next = Map.groupBy(edges, (edge) => edge.from);
  const reached = new Set(from);
  for (const file of reached) for (const edge of next.get(file) ?? []) reached.add(edge.to);
  return reached;
}

/** What the purity rule says of a file's text when it is held as pure. */
function impurities(file: string, text: string): string[] {
  const pretended = "services/pretended/state.ts";
  return Deno.lint.runPlugin(lintPlugin, pretended, text)
    .filter((found) => found.id === "aetherflow/pure")
    .map((found) =>
      `${file}: ${
        found.message.replace(
          `${pretended} is pure and may not use`,
          "is in the reach of a pure file and uses",
        )
      }`
    );
}
