import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { assert, assertEquals } from "@std/assert";
import type { Exchange } from "../exchange.ts";
import { parseList } from "../inbound/structured_fields.ts";
import { GatewayError } from "../problem.ts";
import { DEVELOPER } from "../../runtime/principal.ts";
import { rateLimitConfigSchema } from "./config.ts";
import { createRateLimits } from "./rate_limits.ts";

/** Limits at a time that stands still until it is moved. */
function limitsOf(config: Record<string, unknown>) {
  let nowMs = 1_000;
  const off = { rate: 0 };
  const limits = createRateLimits({
    config: rateLimitConfigSchema.parse({ global: off, address: off, principal: off, routes: [], ...config }),
    clock: { now: () => nowMs },
    seed: 7,
  });
  const request = (facts: Partial<Facts> = {}): Exchange => {
    const { ip, path, method, template, rpcName, principal } = { ...FACTS, ...facts };
    return {
      startedAtMs: nowMs,
      method,
      path,
      client: { ip, port: 1, isSecure: false },
      match: template === "" ? undefined : { route: { template, rpcName }, variables: [] },
      caller: principal && { principal, encoded: "", credential: "api_key" },
      limit: undefined,
      limitLeft: 0,
    } as unknown as Exchange;
  };
  /** `ok`, or the code and the seconds to wait. */
  const ask = (facts: Partial<Facts> = {}): string => {
    const exchange = request(facts);
    try {
      limits.admit(exchange);
      limits.admitCaller(exchange);
      return "ok";
    } catch (error) {
      assert(error instanceof GatewayError);
      return `${error.code} ${error.retryAfterS}`;
    }
  };
  return { limits, request, ask, pass: (ms: number) => nowMs += ms };
}

interface Facts {
  ip: string;
  path: string;
  method: string;
  template: string;
  rpcName: string;
  principal: Principal | undefined;
}
const FACTS: Facts = {
  ip: "203.0.113.1",
  path: "/api/v1/kv/a",
  method: "GET",
  template: "/api/v1/kv/{key=**}",
  rpcName: "aetherflow.kv.v1.KeyValueService/Get",
  principal: undefined,
};

const user = (userId: string) =>
  create(PrincipalSchema, { kind: Principal_Kind.USER, userId, username: "x" });
const asked = (ask: (facts: Partial<Facts>) => string, ...facts: Partial<Facts>[]) =>
  facts.map((each) => ask(each));

Deno.test("RateLimits refuses by address, of IPv6 by its /64, and says when to come again", () => {
  const { ask, pass } = limitsOf({ address: { rate: 0.5, burst: 1 } });
  assertEquals(asked(ask, {}, {}, { ip: "203.0.113.2" }), ["ok", "rate_limited 2", "ok"]);
  assertEquals(
    asked(ask, { ip: "2001:db8:0:1::1" }, { ip: "2001:db8:0:1:ffff::2" }, { ip: "2001:db8:0:2::1" }),
    [
      "ok",
      "rate_limited 2",
      "ok",
    ],
  );
  const mapped = { ip: "::ffff:198.51.100.1" };
  assertEquals(asked(ask, mapped, { ip: "::ffff:198.51.100.2" }, { ip: "198.51.100.1" }), [
    "ok",
    "ok",
    "rate_limited 2",
  ]);
  pass(1_001);
  assertEquals(ask(), "rate_limited 1");
  pass(999);
  assertEquals(ask(), "ok");
});

Deno.test("RateLimits refuses all together, but never /livez, and probes only by address", () => {
  const { ask } = limitsOf({ global: { rate: 1, burst: 2 }, address: { rate: 1, burst: 3 } });
  const system = { template: "" };
  assertEquals(asked(ask, {}, { ip: "203.0.113.2" }, { ip: "203.0.113.3" }), ["ok", "ok", "rate_limited 1"]);
  const probes = ["/readyz", "/healthz", "/readyz", "/livez", "/livez"];
  assertEquals(asked(ask, ...probes.map((path) => ({ ...system, path }))), [
    "ok",
    "ok",
    "rate_limited 1",
    "ok",
    "ok",
  ]);
});

Deno.test("RateLimits takes no token of any limit when one refuses", () => {
  const { ask } = limitsOf({ global: { rate: 1, burst: 3 }, address: { rate: 1, burst: 1 } });
  assertEquals(ask(), "ok");
  for (let i = 0; i < 10; i++) assertEquals(ask(), "rate_limited 1");
  assertEquals(asked(ask, { ip: "203.0.113.2" }, { ip: "203.0.113.3" }), ["ok", "ok"]);
});

Deno.test("RateLimits refuses by principal, wherever he comes from, and nobody's by address only", () => {
  const { ask } = limitsOf({ principal: { rate: 1, burst: 1 } });
  assertEquals(
    asked(ask, { principal: user("u1") }, { principal: user("u1"), ip: "203.0.113.2" }, {
      principal: user("u2"),
    }),
    ["ok", "rate_limited 1", "ok"],
  );
  const nobody = create(PrincipalSchema, { kind: Principal_Kind.ANONYMOUS });
  assertEquals(asked(ask, { principal: nobody }, { principal: nobody }), ["ok", "ok"]);
  assertEquals(asked(ask, { principal: DEVELOPER }, { principal: DEVELOPER }), ["ok", "rate_limited 1"]);
});

Deno.test("RateLimits limits routes by template, path, beginning of paths and RPC", () => {
  const of = (match: string, more: Record<string, unknown> = {}) =>
    limitsOf({ routes: [{ match, rate: 1, burst: 1, ...more }] }).ask;
  const get = {};
  const put = { method: "PUT", rpcName: "aetherflow.kv.v1.KeyValueService/Put" };
  const list = {
    path: "/api/v1/kv",
    template: "/api/v1/kv",
    rpcName: "aetherflow.kv.v1.KeyValueService/List",
  };
  const metrics = { path: "/metrics", template: "" };
  const cases: [ask: (facts: Partial<Facts>) => string, limited: Partial<Facts>, free: Partial<Facts>[]][] = [
    [of("/api/v1/kv/{key=**}"), get, [list, metrics]],
    [of("/api/v1/kv/{key=**}", { methods: ["PUT", "POST"] }), put, [get, list]],
    [of("/api/v1/kv/a"), get, [{ path: "/api/v1/kv/b" }, list]],
    [of("/api/v1/kv*"), list, [metrics]],
    [of("/metrics"), metrics, [get]],
    [of("aetherflow.kv.v1.KeyValueService/Put"), put, [get, {
      rpcName: "aetherflow.kv.v1.KeyValueService/PutText",
    }]],
    [of("aetherflow.kv.v1.KeyValueService/*"), get, [metrics, {
      rpcName: "aetherflow.kv.v1.KeyValueServiceX/Get",
    }]],
  ];
  for (const [ask, limited, free] of cases) {
    assertEquals(asked(ask, limited, limited), ["ok", "rate_limited 1"]);
    for (const facts of free) assertEquals(asked(ask, facts, facts), ["ok", "ok"], JSON.stringify(facts));
  }
  const all = of("/api/v1/kv*", { by: "all" });
  assertEquals(asked(all, {}, { ip: "203.0.113.2" }), ["ok", "rate_limited 1"]);
  const principal = of("/api/v1/kv*", { by: "principal" });
  const ann = { principal: user("ann") };
  assertEquals(asked(principal, {}, {}, ann, ann, { principal: user("bob") }), [
    "ok",
    "ok",
    "ok",
    "rate_limited 1",
    "ok",
  ]);
});

Deno.test("RateLimits lets clients on this machine pass, but for the global limit, unless told otherwise", () => {
  const strict = {
    address: { rate: 1, burst: 1 },
    principal: { rate: 1, burst: 1 },
    global: { rate: 1, burst: 3 },
  };
  for (const ip of ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]) {
    const { ask } = limitsOf(strict);
    assertEquals(asked(ask, { ip }, { ip }, { ip }, { ip }), ["ok", "ok", "ok", "rate_limited 1"], ip);
    const told = limitsOf({ ...strict, exemptLoopback: false });
    assertEquals(asked(told.ask, { ip }, { ip }), ["ok", "rate_limited 1"], ip);
  }
  const off = limitsOf({ ...strict, enabled: false });
  for (let i = 0; i < 10; i++) assertEquals(off.ask(), "ok");
});

Deno.test("RateLimits describes the limit that is nearest to its end, in structured fields", () => {
  const { limits, request } = limitsOf({
    global: { rate: 10, burst: 100 },
    address: { rate: 2, burst: 5 },
    principal: { rate: 1, burst: 7 },
  });
  const described = (exchange: Exchange) => {
    const headers = new Headers();
    limits.describe(exchange, headers);
    for (const value of headers.values()) assert(parseList(value) !== undefined, value);
    return Object.fromEntries(headers);
  };
  const exchange = request({ principal: user("u") });
  assertEquals(described(exchange), {});
  limits.admit(exchange);
  limits.admitCaller(exchange);
  assertEquals(described(exchange), {
    ratelimit: '"address";r=4;t=1',
    "ratelimit-policy": '"address";q=5;w=3',
  });
  const other = () => request({ ip: `203.0.113.${Math.floor(++at)}`, principal: user("u") });
  let at = 1;
  let last = exchange;
  for (let i = 0; i < 3; i++) {
    last = other();
    limits.admit(last);
    limits.admitCaller(last);
  }
  assertEquals(described(last), {
    ratelimit: '"principal";r=3;t=4',
    "ratelimit-policy": '"principal";q=7;w=7',
  });
});

Deno.test("RateLimits applies to gRPC calls as to requests", () => {
  const { limits, ask, pass } = limitsOf({
    global: { rate: 1, burst: 100 },
    address: { rate: 1, burst: 2 },
    principal: { rate: 1, burst: 1 },
    routes: [{ match: "etcdserverpb.KV/Put", rate: 1, burst: 1 }],
  });
  const put = "/etcdserverpb.KV/Put";
  const admit = (ip: string, rpc: string) => limits.calls.admit(ip, rpc)?.code;
  assertEquals([
    admit("203.0.113.1", put),
    admit("203.0.113.1", put),
    admit("203.0.113.1", "/etcdserverpb.KV/Range"),
  ], [
    undefined,
    Code.ResourceExhausted,
    undefined,
  ]);
  assertEquals(ask(), "rate_limited 1", "requests and calls share an address's bucket");
  const admitCaller = () => limits.calls.admitCaller(user("u"), "203.0.113.1", put)?.code;
  assertEquals([admitCaller(), admitCaller()], [undefined, Code.ResourceExhausted]);
  pass(1_000);
  assertEquals([admit("203.0.113.1", put), admitCaller()], [undefined, undefined]);
  assertEquals(limits.calls.admit("127.0.0.1", put), undefined);
});

Deno.test("rateLimitConfigSchema names what it refuses", () => {
  const cases: [config: unknown, path: string][] = [
    [{ address: { rate: -1 } }, "address.rate"],
    [{ address: { rate: 0.0001 } }, "address.rate"],
    [{ address: { rate: 2_000_000 } }, "address.rate"],
    [{ address: { rate: 1.00005 } }, "address.rate"],
    [{ address: { burst: 0 } }, "address.burst"],
    [{ routes: [{ match: "kv", rate: 1, burst: 1 }] }, "routes.0.match"],
    [{ routes: [{ match: "/", rate: 0, burst: 1 }] }, "routes.0.rate"],
    [{ redis: { nodes: ["localhost"] } }, "redis.nodes.0"],
  ];
  for (const [config, path] of cases) {
    const result = rateLimitConfigSchema.safeParse(config);
    assert(!result.success, JSON.stringify(config));
    assertEquals(result.error.issues[0]!.path.join("."), path);
  }
  assertEquals(rateLimitConfigSchema.safeParse({ address: { rate: 0.29 } }).success, true);
});
