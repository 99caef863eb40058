import { assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { configSchema, loadConfig } from "./config.ts";
import {
  ConfigError,
  documentKeys,
  loadFromSources,
  nearest,
  type Sources,
  withoutSecrets,
} from "./config_sources.ts";

const file = (text: string): Sources => ({ file: { name: "aetherflow.yaml", text } });
const flags = (...settings: [string, string][]): Sources => ({
  flags: settings.map(([path, value]) => ({ path, value, flag: `--set ${path}` })),
});

Deno.test("loadConfig() has a default for every key", () => {
  const { data, quantum, log, host, kv, gateway } = loadConfig({});
  assertEquals([data, quantum, log], ["./data", { basePort: 7400 }, { level: "info", format: "auto" }]);
  assertEquals(host, {
    restart: { maxInWindow: 10, windowMs: 60_000, backoffMinMs: 100, backoffMaxMs: 10_000 },
    heartbeat: { intervalMs: 250, timeoutMs: 1_000 },
    startTimeoutMs: 60_000,
    drain: { stageDeadlineMs: 10_000 },
    reload: { watch: true, intervalMs: 1_000 },
  });
  const { host: address, port } = gateway.http;
  assertEquals([kv.durability, address, port], ["always", "127.0.0.1", 8080]);
});

Deno.test("loadConfig() lets flags win over the environment, over the file, over defaults", () => {
  const sources: Sources = {
    ...file("gateway:\n  http: {port: 1}\n  workers: 2\nlog:\n  level: warn\ndata: from-file\n"),
    env: {
      AETHERFLOW_GATEWAY__HTTP__PORT: "2",
      AETHERFLOW_LOG__LEVEL: "error",
      AETHERFLOW_DATA: "5",
      HOME: "/",
    },
    ...flags(["gateway.http.port", "3"]),
  };
  const { data, gateway, log } = loadConfig(sources);
  assertEquals([data, gateway.http.port, gateway.workers, log], ["5", 3, 2, {
    level: "error",
    format: "auto",
  }]);
});

Deno.test("loadConfig() takes variables with and without underscores inside a name, and leaves others alone", () => {
  const env = {
    AETHERFLOW_KV__MAX_VALUE_BYTES: "10",
    AETHERFLOW_KV__MAXKEYBYTES: "11",
    AETHERFLOW_GATEWAY__ALLOWED_HOSTS: "[a.example, b.example]",
    AETHERFLOW_ENDPOINT: "http://127.0.0.1:1",
    AETHERFLOW_SIM_SEED: "7",
  };
  const { kv, gateway } = loadConfig({ env });
  assertEquals([kv.maxValueBytes, kv.maxKeyBytes, gateway.allowedHosts], [10, 11, [
    "a.example",
    "b.example",
  ]]);
});

const FAULTS: [Sources, string][] = [
  [
    file("# sizes\nkv:\n  maxValueBytes: -1\n"),
    "config: kv.maxValueBytes is -1, expected 1..1945600 (file aetherflow.yaml, line 3)",
  ],
  [
    flags(["kv.durability", "sometimes"]),
    "config: kv.durability is sometimes, expected one of always, interval, none (flag --set kv.durability)",
  ],
  [
    { env: { AETHERFLOW_GATEWAY__HTTP__PORT: "eighty" } },
    "config: gateway.http.port is eighty, expected 0..65535 (environment AETHERFLOW_GATEWAY__HTTP__PORT)",
  ],
  [
    file("gateway:\n  http:\n    prot: 1\n"),
    "config: gateway.http.prot is no key, did you mean gateway.http.port? (file aetherflow.yaml, line 3)",
  ],
  [
    { env: { AETHERFLOW_GATEWAY__HTPP__PORT: "1" } },
    "config: gateway.htpp is no key, did you mean gateway.http? (environment AETHERFLOW_GATEWAY__HTPP__PORT)",
  ],
  [
    flags(["zebra", "1"]),
    `config: zebra is no key, expected one of ${
      Object.keys(configSchema.shape).join(", ")
    } (flag --set zebra)`,
  ],
  [
    flags(["data.x", "1"]),
    "config: data.x is no key, data has no keys below it (flag --set data.x)",
  ],
  [
    file("log: loud\n"),
    "config: log is loud, expected keys level, format (file aetherflow.yaml, line 1)",
  ],
  [
    file("- a\n- b\n"),
    'config: aetherflow.yaml is ["a","b"], expected keys and values (file aetherflow.yaml)',
  ],
  [
    file("kv: {}\nkv: {}\n"),
    "config: cannot read aetherflow.yaml: Map keys must be unique (file aetherflow.yaml, line 2, column 1)",
  ],
  [
    flags(["host.heartbeat.timeoutMs", "200"]),
    "config: host.heartbeat.intervalMs is 250, expected less than host.heartbeat.timeoutMs (default)",
  ],
  [
    flags(["gateway.http.host", "0.0.0.0"]),
    "config: gateway.http.host is 0.0.0.0, expected a loopback address (127.0.0.1, ::1 or localhost): no " +
    "authentication is configured, and without it AetherFlow is not opened to a network; set session.auth.mode to " +
    "required to open it (flag --set gateway.http.host)",
  ],
];

for (const [sources, message] of FAULTS) {
  Deno.test(`loadConfig() says: ${message.slice(8, 80)}`, () => {
    const error = assertThrows(() => loadConfig(sources), ConfigError);
    assertEquals(error.problems, [message]);
  });
}

Deno.test("loadConfig() opens edges to a network only where everybody must show who they are", () => {
  const files = [["gateway.grpc.tls.certFile", "c"], ["gateway.grpc.tls.keyFile", "k"]] as const;
  const isTaken = (...settings: (readonly [string, string])[]) => {
    try {
      loadConfig(flags(...settings.map(([key, value]) => [key, value] as [string, string])));
      return true;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      assertEquals(
        error.problems.every((problem) => problem.includes("no authentication is configured")),
        true,
      );
      return false;
    }
  };
  for (const edge of ["http", "grpc", "resp"]) {
    for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) {
      assertEquals(isTaken([`gateway.${edge}.host`, host]), true, `${edge} ${host}`);
    }
    for (
      const host of ["0.0.0.0", "::", "192.168.1.1", "example.com", "127.0.0.1.example.com", "127.0.0.999"]
    ) {
      const open = [`gateway.${edge}.host`, host] as const;
      assertEquals(isTaken(open), false, `${edge} ${host}`);
      assertEquals(isTaken(open, ["session.auth.mode", "required"]), true, `${edge} ${host}`);
    }
  }
  const open = ["gateway.grpc.host", "0.0.0.0"] as const;
  assertEquals([isTaken(open, ...files), isTaken(open, ...files, ["gateway.grpc.tls.clientCaFile", "a"])], [
    false,
    true,
  ]);
});

Deno.test("loadConfig() names every fault at once, up to a screenful", () => {
  const many = file(Array.from({ length: 30 }, (_, i) => `zebra${i}: 1`).join("\n"));
  const error = assertThrows(() => loadConfig(many), ConfigError);
  assertEquals([error.problems.length, error.problems.at(-1)], [21, "config: and 10 more"]);
});

Deno.test("loadFromSources() and withoutSecrets() show no secret", () => {
  const schema = z.strictObject({ auth: z.strictObject({ apiSecret: z.string().min(8), name: z.string() }) });
  const sources = flags(["auth.apiSecret", "hunter2"], ["auth.name", "x"]);
  const error = assertThrows(() => loadFromSources(schema, sources), ConfigError);
  assertEquals(error.problems, [
    "config: auth.apiSecret is [redacted], expected text that is not empty (flag --set auth.apiSecret)",
  ]);
  assertEquals(withoutSecrets({ auth: { apiSecret: "hunter2", name: "x" }, list: [{ password: "p" }] }), {
    auth: { apiSecret: "[redacted]", name: "x" },
    list: [{ password: "[redacted]" }],
  });
});

Deno.test("documentKeys() finds a description, an expectation and a default for every key", () => {
  const keys = documentKeys(configSchema);
  const isOptional = (description: string) => description.endsWith("instead of the preset's.");
  assertEquals(
    keys.filter(({ description, default: value }) =>
      description === "" || (value === undefined && !isOptional(description))
    ),
    [],
  );
  assertEquals(keys.find(({ path }) => path === "quantum.basePort")?.expected, "0..65000");
});

Deno.test("nearest() finds what a slip of the fingers meant, and nothing for another word", () => {
  const known = ["port", "host", "maxValueBytes"];
  assertEquals(["prot", "hots", "maxvaluebyte", "banana", "p"].map((word) => nearest(word, known)), [
    "port",
    "host",
    "maxValueBytes",
    undefined,
    undefined,
  ]);
});
