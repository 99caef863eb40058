import { assertEquals, assertThrows } from "@std/assert";
import { loadConfig } from "./config.ts";
import { createPlan, hostAndPort, listWorkers } from "./plan.ts";

/** Two services, so that a plan is short. */
const TWO = { path: "services", value: "[kv, gateway]", flag: "--set" };

Deno.test("createPlan() gives each worker its port, its part of the configuration and exactly its permissions", () => {
  const config = loadConfig({ flags: [TWO] });
  assertEquals(
    createPlan(
      config,
      { quantum: [7400, 7401, 7402], tcp: { http: 8080, grpc: 2379, resp: 6380 } },
      "/srv/data",
    ),
    {
      host: {
        listen: { hostname: "127.0.0.1", port: 7400 },
        address: { hostname: "127.0.0.1", port: 7400 },
      },
      workers: [
        {
          name: "kv",
          service: "kv",
          instance: 1,
          stage: 0,
          isLate: false,
          listen: { hostname: "127.0.0.1", port: 7401 },
          address: { hostname: "127.0.0.1", port: 7401 },
          tcp: [],
          config: { ...config.kv, member: { name: "default", clientUrls: ["http://127.0.0.1:2379"] } },
          dataDirectory: "/srv/data/kv",
          permissions: {
            env: false,
            ffi: false,
            import: false,
            net: ["127.0.0.1:7401", "127.0.0.1:7400", "127.0.0.1:7402"],
            read: ["/srv/data/kv"],
            run: false,
            sys: false,
            write: ["/srv/data/kv"],
          },
        },
        {
          name: "gateway",
          service: "gateway",
          instance: 1,
          stage: 1,
          isLate: false,
          listen: { hostname: "127.0.0.1", port: 7402 },
          address: { hostname: "127.0.0.1", port: 7402 },
          tcp: [
            { hostname: "127.0.0.1", port: 8080, shared: false },
            { hostname: "127.0.0.1", port: 2379, shared: false },
            { hostname: "127.0.0.1", port: 6380, shared: false },
          ],
          config: config.gateway,
          dataDirectory: undefined,
          permissions: {
            env: false,
            ffi: false,
            import: false,
            net: [
              "127.0.0.1:8080",
              "127.0.0.1:2379",
              "127.0.0.1:6380",
              "127.0.0.1:7402",
              "127.0.0.1:7400",
              "127.0.0.1:7401",
            ],
            read: false,
            run: false,
            sys: false,
            write: false,
          },
        },
      ],
    },
  );
});

Deno.test("createPlan() numbers several gateways, which share their ports", () => {
  const config = loadConfig({
    flags: [
      TWO,
      { path: "gateway.workers", value: "2", flag: "--set" },
      { path: "gateway.http.host", value: "::1", flag: "--set" },
    ],
  });
  const plan = createPlan(config, { quantum: [1, 2, 3, 4], tcp: { http: 80, grpc: 81, resp: 82 } }, "/d");
  const tcp = [
    { hostname: "::1", port: 80, shared: true },
    { hostname: "127.0.0.1", port: 81, shared: true },
    { hostname: "127.0.0.1", port: 82, shared: true },
  ];
  assertEquals(plan.workers.map(({ name, instance, stage, tcp }) => ({ name, instance, stage, tcp })), [
    { name: "kv", instance: 1, stage: 0, tcp: [] },
    { name: "gateway-1", instance: 1, stage: 1, tcp },
    { name: "gateway-2", instance: 2, stage: 1, tcp },
  ]);
  assertEquals(plan.workers[2]!.permissions.net, [
    "[::1]:80",
    "127.0.0.1:81",
    "127.0.0.1:82",
    "127.0.0.1:4",
    "127.0.0.1:1",
    "127.0.0.1:2",
    "127.0.0.1:3",
  ]);
});

Deno.test("createPlan() tells the gateway the port that was found for 0", () => {
  const config = loadConfig({ flags: [TWO, { path: "gateway.http.port", value: "0", flag: "--set" }] });
  const plan = createPlan(
    config,
    { quantum: [1, 2, 3], tcp: { http: 40_001, grpc: 40_002, resp: 40_003 } },
    "/d",
  );
  const { http, grpc, resp } = plan.workers[1]!.config as typeof config.gateway;
  assertEquals([http.port, grpc.port, resp.port], [40_001, 40_002, 40_003]);
});

Deno.test("createPlan() hands the texts of the certificate files to the gateway alone", () => {
  const ports = { quantum: [1, 2, 3], tcp: { http: 4, grpc: 5, resp: 6 } };
  const texts = { cert: "c", key: "k", clientCa: undefined };
  const [kv, gateway] = createPlan(loadConfig({ flags: [TWO] }), ports, "/d", texts).workers;
  assertEquals((gateway!.config as { tlsTexts?: unknown }).tlsTexts, texts);
  assertEquals(JSON.stringify(kv).includes("tlsTexts"), false);
});

Deno.test("createPlan() refuses ports that do not fit the workers", () => {
  const config = loadConfig({ flags: [TWO] });
  assertEquals(listWorkers(config).length, 2);
  assertThrows(
    () => createPlan(config, { quantum: [1], tcp: { http: 1, grpc: 2, resp: 3 } }, "/d"),
    RangeError,
    "3 Quantum ports are needed",
  );
});

Deno.test("hostAndPort() puts IPv6 addresses in brackets", () => {
  assertEquals(hostAndPort({ hostname: "::1", port: 1 }), "[::1]:1");
  assertEquals(hostAndPort({ hostname: "localhost", port: 1 }), "localhost:1");
});

Deno.test("createPlan() lets a kv worker on etcd reach exactly the endpoints, and no folder", () => {
  const config = loadConfig({
    flags: [TWO],
    file: {
      name: "aetherflow.yaml",
      text: 'kv: { engine: etcd, etcd: { endpoints: ["https://etcd.example:2379", "https://[::1]:2380"] } }',
    },
  });
  const texts = { ca: "ca", cert: undefined, key: undefined };
  const ports = { quantum: [7400, 7401, 7402], tcp: { http: 8080, grpc: 2379, resp: 6380 } };
  const kv = createPlan(config, ports, "/srv/data", undefined, texts).workers[0]!;
  assertEquals(kv.dataDirectory, undefined);
  assertEquals(kv.config, { ...config.kv, etcdTlsTexts: texts });
  assertEquals(kv.permissions.net, [
    "127.0.0.1:7401",
    "127.0.0.1:7400",
    "127.0.0.1:7402",
    "etcd.example:2379",
    "[::1]:2380",
  ]);
  assertEquals([kv.permissions.read, kv.permissions.write], [false, false]);
});

const PORTS = { quantum: [7400, 7401, 7402, 7403, 7404, 7405], tcp: { http: 8080, grpc: 2379, resp: 6380 } };
const yaml = (text: string) => loadConfig({ file: { name: "aetherflow.yaml", text } });

Deno.test("createPlan() runs the services that are asked for, and tells no address of a gateway that is not here", () => {
  const config = yaml("services: [password, session, kv]");
  assertEquals(listWorkers(config).map(({ name }) => name), ["kv", "session", "password"]);
  const { workers } = createPlan(config, { ...PORTS, quantum: [1, 2, 3, 4] }, "/d");
  assertEquals((workers[0]!.config as typeof config.kv).member.clientUrls, []);
});

Deno.test("createPlan() lets workers talk to other hosts of the cluster, except the one that sees passwords", () => {
  const cluster = "secretFile: s, host: 0.0.0.0, advertise: 10.0.0.1, networks: [10.0.0.0/8]";
  const { workers } = createPlan(yaml(`cluster: { ${cluster} }`), PORTS, "/d");
  const [kv, , password] = workers;
  assertEquals([kv!.listen, kv!.address], [
    { hostname: "0.0.0.0", port: 7401 },
    { hostname: "127.0.0.1", port: 7401 },
  ]);
  const [host, kvNode, session, passwordNode, , gateway] = [0, 1, 2, 3, 4, 5].map((i) =>
    `127.0.0.1:${7400 + i}`
  );
  assertEquals(kv!.permissions.net.toSorted(), [
    "0.0.0.0:7401",
    "10.0.0.0/8",
    host,
    kvNode,
    session,
    gateway,
  ]);
  assertEquals(password!.permissions.net.toSorted(), ["0.0.0.0:7403", host, session, passwordNode, gateway]);
});

Deno.test("createPlan() gives documents a folder of their own, or the way to their PostgreSQL", () => {
  const documents = (config: string) =>
    createPlan(yaml(config), PORTS, "/d").workers.find(({ name }) => name === "statesync")!;
  const [host, session, own, gateway] = [0, 2, 4, 5].map((i) => `127.0.0.1:${7400 + i}`);
  const embedded = documents("{}");
  assertEquals([embedded.stage, embedded.isLate, embedded.dataDirectory], [0, true, "/d/statesync"]);
  assertEquals(embedded.permissions.net, [own, host, session, gateway]);
  assertEquals([embedded.permissions.read, embedded.permissions.write], [["/d/statesync"], ["/d/statesync"]]);
  const shared = documents("statesync: { engine: postgres, postgres: { host: db.example } }");
  assertEquals(shared.dataDirectory, undefined);
  assertEquals(shared.permissions.net, [own, host, session, gateway, "db.example:5432"]);
  assertEquals([shared.permissions.read, shared.permissions.write], [false, false]);
  assertEquals(documents("statesync: { engine: memory }").permissions.read, false);
});
