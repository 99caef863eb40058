/** The shape of the project as data: which part a file belongs to, what that part may import, and where the platform
 *  may be touched. The lint plugin reads it while one types; imports_test.ts checks the whole module graph against it.
 *
 *  All paths are relative to the project's root and use "/".
 */

/** One part of the project. */
export interface Part {
  /** The word used in messages. */
  readonly name: string;
  /** The files of the part; `*` stands for one path segment (or the rest of one), `**` for any number of them. */
  readonly files: readonly string[];
  /** Files this part may import besides its own (see `own`). `{service}` is the importing file's service folder. */
  readonly imports: readonly string[];
  /** Names of npm packages and `node:` modules it may import; "any" where the project's list in deno.json is the limit. */
  readonly packages: readonly string[] | "any";
  /** Whether files of one part may import one another: everywhere but where parts stand for several equals. */
  readonly own: boolean;
  /** Whether the part may use `Deno.*`. */
  readonly platform: boolean;
  /** Whether time, chance and the platform must come in as arguments. */
  readonly pure: boolean;
  /** The sentence that says why, shown with every finding. */
  readonly why: string;
}

const QUANTUM_BASE = [
  "transport/quantum/params.ts",
  "transport/quantum/errors.ts",
  "transport/quantum/types.ts",
];

/** Tests and benches; they may import everything but a worker's entry. */
export const TEST_FILES: readonly string[] = ["tests/**", "**/*_test.ts", "**/*_bench.ts"];

/** Every part. A file belongs to the first one that lists it. */
export const PARTS: readonly Part[] = [
  {
    name: "tests",
    files: TEST_FILES,
    imports: ["**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "a worker is spawned by URL, never imported",
  },
  {
    name: "tools",
    files: ["deploy/**", "proto/*.ts", "services/gateway/console/build.ts"],
    imports: ["deno.json"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "a tool stands beside the product and imports nothing of it",
  },
  {
    name: "generated contract",
    files: ["proto/gen/**"],
    imports: [],
    packages: ["@bufbuild/protobuf"],
    own: true,
    platform: false,
    pure: true,
    why: "generated code knows its runtime library only",
  },
  {
    name: "suites of transport",
    files: ["transport/testing/**"],
    imports: ["transport/**", "proto/gen/**", "tests/support/**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "transport knows no service",
  },
  {
    name: "quantum base",
    files: QUANTUM_BASE,
    imports: [],
    packages: [],
    own: true,
    platform: false,
    pure: true,
    why: "params, errors and types are what the rest of Quantum stands on",
  },
  {
    name: "quantum wire",
    files: ["transport/quantum/wire/**"],
    imports: QUANTUM_BASE,
    packages: [],
    own: true,
    platform: false,
    pure: true,
    why: "wire is bytes only: it knows the params, errors and types of Quantum",
  },
  {
    name: "quantum core",
    files: ["transport/quantum/core/**"],
    imports: [...QUANTUM_BASE, "transport/quantum/wire/**"],
    packages: ["node:crypto", "node:buffer"],
    own: true,
    platform: false,
    pure: true,
    why: "the core is pure state machines over wire; the driver moves its bytes",
  },
  {
    name: "quantum driver",
    files: ["transport/quantum/driver/**"],
    imports: ["transport/quantum/**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "the driver knows the core and nothing above Quantum",
  },
  {
    name: "quantum channel",
    files: ["transport/channels/quantum.ts"],
    imports: ["transport/channels/**", "transport/quantum/**"],
    packages: [],
    own: true,
    platform: true,
    pure: false,
    why: "a channel adapts one way of moving bytes and knows no caller",
  },
  {
    name: "channels",
    files: ["transport/channels/**"],
    imports: ["transport/channels/**"],
    packages: [],
    own: true,
    platform: false,
    pure: false,
    why: "a channel adapts one way of moving bytes and knows no caller",
  },
  {
    name: "rpc",
    files: ["transport/rpc/**"],
    imports: ["transport/channels/channel.ts", "transport/channels/memory.ts", "proto/gen/**"],
    packages: ["@bufbuild/protobuf", "@connectrpc/connect", "node:buffer"],
    own: true,
    platform: false,
    pure: false,
    why: "calls run on any channel, so rpc knows the interface and no Quantum",
  },
  {
    name: "http2",
    files: ["transport/http2/**"],
    imports: ["transport/quantum/core/id_map.ts"],
    packages: [],
    own: true,
    platform: false,
    pure: true,
    why: "the protocol is a pure state machine over bytes; an edge moves them",
  },
  {
    name: "grpc client",
    files: ["transport/grpc/**"],
    imports: ["transport/http2/**"],
    packages: ["@connectrpc/connect", "node:buffer", "node:net", "node:tls"],
    own: true,
    platform: true,
    pure: false,
    why: "calls of foreign servers: it moves the bytes of the protocol and knows no service",
  },
  {
    name: "suites of storage",
    files: ["storage/testing/**"],
    imports: ["storage/**", "tests/support/**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "storage knows no service",
  },
  {
    name: "bolt files",
    files: ["storage/bolt/**"],
    imports: [],
    packages: [],
    own: true,
    platform: false,
    pure: true,
    why: "a file format is a function of bytes: whoever has the file reads and writes them",
  },
  {
    name: "etcd client",
    files: ["storage/etcd/**"],
    imports: ["transport/grpc/**"],
    packages: [],
    own: true,
    platform: false,
    pure: false,
    why: "etcd is reached by gRPC: it knows the client of that and no service",
  },
  {
    name: "storage",
    files: ["storage/**"],
    imports: ["storage/**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "an engine knows no service and no transport",
  },
  {
    name: "console's page",
    files: ["console/**"],
    imports: [],
    packages: [
      "@codemirror/commands",
      "@codemirror/language",
      "@codemirror/search",
      "@codemirror/state",
      "@codemirror/view",
      "lib0",
      "y-codemirror.next",
      "y-protocols",
      "yjs",
    ],
    own: true,
    platform: false,
    pure: false,
    why: "the page runs in a browser and knows the server by its API",
  },
  {
    name: "suites of services",
    files: ["services/*/testing/**"],
    imports: [
      "{service}/!(worker.ts)",
      "services/runtime/**",
      "storage/**",
      "proto/gen/**",
      "tests/support/**",
    ],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "what the tests of one service share knows no other service",
  },
  {
    name: "runtime",
    files: ["services/runtime/**"],
    imports: ["transport/**", "proto/gen/**"],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "the runtime serves every worker, so it knows none of them",
  },
  {
    name: "host's plan",
    files: ["services/host/plan.ts"],
    imports: ["services/host/**", "services/*/config.ts", "services/runtime/**"],
    packages: ["zod"],
    own: true,
    platform: false,
    pure: true,
    why: "the plan is a function of the configuration",
  },
  {
    name: "host",
    files: ["services/host/**"],
    imports: [
      "services/host/plan.ts",
      "services/runtime/**",
      "services/*/config.ts",
      "transport/**",
      "storage/etcd/**",
      "proto/gen/**",
    ],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "the host spawns workers by URL; of a service it may know the config schema only",
  },
  {
    name: "worker entry",
    files: ["services/*/worker.ts"],
    imports: ["{service}/**", "services/runtime/**", "transport/**", "storage/**", "proto/gen/**"],
    packages: "any",
    own: false,
    platform: true,
    pure: false,
    why: "services talk through generated clients, never by import",
  },
  {
    name: "restore",
    files: ["services/kv/restore.ts"],
    imports: ["{service}/!(worker.ts)", "storage/**"],
    packages: ["node:crypto"],
    own: false,
    platform: true,
    pure: false,
    why: "a restore makes a data folder while no worker has it; it belongs to the command line",
  },
  {
    name: "domain logic",
    files: ["services/**/service.ts", "services/**/state.ts", "services/gateway/transcode.ts"],
    imports: [
      "{service}/!(rpc.ts|worker.ts|mod.ts|stores/**|edges/**)",
      "services/runtime/**",
      "proto/gen/**",
    ],
    packages: "any",
    own: false,
    platform: false,
    pure: true,
    why: "domain logic knows neither how it is called nor where its data lies",
  },
  {
    name: "store adapter",
    files: ["services/*/stores/**"],
    imports: ["{service}/!(rpc.ts|worker.ts|mod.ts)", "services/runtime/**", "storage/**", "proto/gen/**"],
    packages: "any",
    own: false,
    platform: false,
    pure: false,
    why: "an adapter maps a service's store interface on an engine",
  },
  {
    name: "network edge",
    files: ["services/gateway/edges/**"],
    imports: [
      "{service}/!(worker.ts)",
      "services/runtime/**",
      "transport/rpc/**",
      "transport/http2/**",
      "transport/grpc/message_reader.ts",
      "proto/gen/**",
    ],
    packages: "any",
    own: false,
    platform: true,
    pure: false,
    why: "services talk through generated clients, never by import",
  },
  {
    name: "redis protocol",
    files: ["services/kv/resp/*.ts", "services/kv/resp/commands/*.ts"],
    imports: ["{service}/!(rpc.ts|worker.ts|mod.ts|stores/**)", "proto/gen/**"],
    packages: ["@connectrpc/connect", "node:buffer"],
    own: true,
    platform: false,
    pure: true,
    why: "it runs on whichever engine, so it knows the store's interface alone, and is told the time",
  },
  {
    name: "empty environment",
    files: ["services/statesync/crdt/no_environment.ts"],
    imports: [],
    packages: ["node:process"],
    own: false,
    platform: false,
    pure: false,
    why: "it makes a library load in a worker without permissions, and nothing else",
  },
  {
    name: "document content",
    files: ["services/statesync/crdt/**"],
    imports: [
      "services/statesync/records.ts",
      "services/statesync/store.ts",
      "services/statesync/errors.ts",
      "services/statesync/config.ts",
      "services/runtime/random.ts",
      "proto/gen/**",
    ],
    packages: ["yjs", "lib0", "@bufbuild/protobuf"],
    own: true,
    platform: false,
    pure: true,
    why: "what an edit means is a function of the content and the edit: it knows neither callers nor stores",
  },
  {
    name: "policies of calls",
    files: [
      "services/gateway/balance/**",
      "services/gateway/resilience/breaker.ts",
      "services/gateway/resilience/retry_budget.ts",
    ],
    imports: [],
    packages: ["cockatiel"],
    own: true,
    platform: false,
    pure: true,
    why:
      "which instance takes a call, and whether it is made again, is a function of time, chance and what was seen",
  },
  {
    name: "hub",
    files: [
      "channel",
      "channel_name",
      "connection",
      "envelope",
      "followed_channel",
      "history",
      "hub",
      "presence",
      "subscription",
    ].map((name) => `services/gateway/hub/${name}.ts`),
    imports: [
      "{service}/!(worker.ts|mod.ts|edges/**)",
      "services/runtime/**",
      "transport/rpc/**",
      "proto/gen/**",
    ],
    packages: "any",
    own: true,
    platform: false,
    pure: true,
    why:
      "what every client sees of a channel is a function of what came: sockets, time and chance are passed in",
  },
  {
    name: "service",
    files: ["services/*/**"],
    imports: ["{service}/!(worker.ts)", "services/runtime/**", "transport/rpc/**", "proto/gen/**"],
    packages: "any",
    own: false,
    platform: false,
    pure: false,
    why:
      "services talk through generated clients, never by import; only a worker's entry picks transport and engines",
  },
  {
    name: "command line",
    files: ["main.ts", "cli/**"],
    imports: [
      "deno.json",
      "services/host/**",
      "services/runtime/**",
      "services/kv/restore.ts",
      "proto/gen/**",
    ],
    packages: "any",
    own: true,
    platform: true,
    pure: false,
    why: "the command line parses and calls the host",
  },
];

/** What no part may import: a worker starts by URL, so that its permissions are its own. */
export const IMPORTED_BY_NOBODY: readonly string[] = ["services/*/worker.ts"];

/** Entries of workers that tests start in a real one's place: they are started by URL as well. */
export const WORKERS_OF_TESTS: readonly string[] = ["tests/support/*_worker.ts"];

/** Globals that a pure file may not name, and what to do instead. */
export const IMPURE_GLOBALS: Readonly<Record<string, string>> = {
  Deno: "let the worker or the driver do it and pass the result in",
  process: "let the worker or the driver do it and pass the result in",
  fetch: "let the worker or the driver do it and pass the result in",
  Worker: "let the host do it",
  WebSocket: "let an edge do it",
  BroadcastChannel: "let the worker do it",
  console: "pass a Logger in",
  navigator: "pass the figure in",
  setTimeout: "return when to wake (nextTimeout) and take `now` as an argument",
  setInterval: "return when to wake (nextTimeout) and take `now` as an argument",
  setImmediate: "return when to wake (nextTimeout) and take `now` as an argument",
  queueMicrotask: "do it now, or let the caller decide when",
  Date: "take `now` as an argument or a Clock as a dependency",
  Temporal: "take `now` as an argument or a Clock as a dependency",
  performance: "take `now` as an argument or a Clock as a dependency",
  crypto: "take a Random as a dependency; deterministic functions are in node:crypto",
  globalThis: "name what you need",
  self: "name what you need",
};

/** Members of pure globals that are impure. */
export const IMPURE_MEMBERS: Readonly<Record<string, readonly string[]>> = { Math: ["random"] };

/** What a pure file may take from node's modules: everything of `node:buffer`, of `node:crypto` what is a function of its
 *  arguments. A module that is not here is impure as a whole. */
export const IMPURE_NODE_NAMES: Readonly<Record<string, readonly string[]>> = {
  "node:buffer": [],
  "node:crypto": [
    "randomBytes",
    "randomFill",
    "randomFillSync",
    "randomInt",
    "randomUUID",
    "pseudoRandomBytes",
    "getRandomValues",
    "webcrypto",
    "subtle",
    "generateKey",
    "generateKeySync",
    "generateKeyPair",
    "generateKeyPairSync",
    "generatePrime",
    "generatePrimeSync",
  ],
};

/** The part a file belongs to, or undefined for a file that the picture does not show. */
export function partOf(path: string): Part | undefined {
  return PARTS.find((part) => matchesAny(part.files, path));
}

/** Whether a file must be pure. */
export function isPure(path: string): boolean {
  return partOf(path)?.pure ?? false;
}

/** Says why `from` may not import `to`, or undefined if it may.
 *  `to` is a project path, a package name (`zod`, `@connectrpc/connect`) or `node:…`. */
export function importProblem(from: string, to: string, kind: "file" | "package"): string | undefined {
  const part = partOf(from);
  if (part === undefined) {
    return `${from} is in no part of the project: give it a place in tests/arch/rules.ts`;
  }
  const problem = `${part.name} may not import ${to}: ${part.why}`;
  if (kind === "package") {
    return part.packages === "any" || part.packages.includes(to) ? undefined : problem;
  }
  if (matchesAny(IMPORTED_BY_NOBODY, to) && !matchesAny(WORKERS_OF_TESTS, from)) {
    return `nobody imports ${to}: a worker is spawned by URL`;
  }
  if (part.own && matchesAny(part.files, to) && partOf(to) === part) return undefined;
  const service = serviceOf(from);
  const allowed = part.imports.map((pattern) => pattern.replace("{service}", `services/${service}`));
  return matchesAny(allowed, to) && !isForeignTest(part, to) ? undefined : problem;
}

/** The room of a file, the grain at which the graph must have no cycles: a service, an engine, a layer of transport. */
export function roomOf(path: string): string {
  const segments = path.split("/");
  if (segments.length === 1) return "main";
  if (segments[0] === "cli") return "cli"; // one program, its commands in folders
  if (segments[0] === "console") return "console"; // one page, its views in folders
  const depth = path.startsWith("transport/quantum/") ? 3 : 2;
  return segments.slice(0, Math.min(depth, segments.length - 1)).join("/");
}

/** Whether `path` matches one of the patterns. */
export function matchesAny(patterns: readonly string[], path: string): boolean {
  return patterns.some((pattern) => compile(pattern).test(path));
}

/** The service folder's name of a file under services/, or "-" elsewhere: no folder has that name. */
function serviceOf(path: string): string {
  return /^services\/([^/]+)\//.exec(path)?.[1] ?? "-";
}

/** Product code imports no test file, even where a pattern of its own folder covers it. */
function isForeignTest(part: Part, to: string): boolean {
  return part.name !== "tests" && !part.name.startsWith("suites") && matchesAny(TEST_FILES, to);
}

const compiled = new Map<string, RegExp>();

/** Turns a pattern into a regular expression: `**` any path, `*` within a segment, `!(a|b)` all but these. */
function compile(pattern: string): RegExp {
  let regexp = compiled.get(pattern);
  if (regexp === undefined) {
    regexp = new RegExp(`^${translate(pattern)}$`);
    compiled.set(pattern, regexp);
  }
  return regexp;
}

function translate(pattern: string): string {
  const except = /^(.*)!\((.*)\)$/.exec(pattern);
  if (except !== null) {
    const [, head, tail] = except as unknown as [string, string, string];
    return `${translate(head)}(?!(?:${tail.split("|").map(translate).join("|")})$).*`;
  }
  return pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replace(/\*\*\/|\*\*|\*/g, (star) => star === "**/" ? "(?:.*/)?" : star === "**" ? ".*" : "[^/]*");
}
