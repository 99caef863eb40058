import { Code, ConnectError, createRouterTransport, type Transport } from "@connectrpc/connect";
import { create } from "@bufbuild/protobuf";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createManualClock } from "../../runtime/clock.ts";
import { principalOf } from "../../runtime/principal.ts";
import type { Exchange } from "../exchange.ts";
import { GatewayError } from "../problem.ts";
import type { Idempotency } from "../stages.ts";
import { createManualTimer } from "../testing/harness.ts";
import { TimeoutQueue } from "../timer.ts";
import { idempotencyConfigSchema } from "./config.ts";
import { createIdempotency } from "./idempotency.ts";

/** A store with times to live, by a clock that is turned by hand. */
function createStore() {
  const entries = new Map<string, { value: Uint8Array; revision: bigint; endsAtMs: number }>();
  let revision = 0n;
  let failure: ConnectError | undefined;
  const clock = createManualClock();
  const text = (key: Uint8Array) => new TextDecoder().decode(key);
  const find = (key: Uint8Array) => {
    if (failure !== undefined) throw failure;
    const entry = entries.get(text(key));
    return entry !== undefined && entry.endsAtMs > clock.now() ? entry : undefined;
  };
  const check = (key: Uint8Array, wanted: bigint | undefined) => {
    const actual = find(key)?.revision ?? 0n;
    if (wanted !== undefined && wanted !== actual) {
      throw new ConnectError("revision", Code.FailedPrecondition);
    }
  };
  const isSystem = (headers: Headers) => assertEquals(principalOf(headers)?.kind, Principal_Kind.SYSTEM);
  const transport = createRouterTransport((router) =>
    router.service(KeyValueService, {
      put({ key, value, ifModRevision, ttlMs }, { requestHeader }) {
        isSystem(requestHeader);
        check(key, ifModRevision);
        entries.set(text(key), {
          value: value.slice(),
          revision: ++revision,
          endsAtMs: clock.now() + Number(ttlMs),
        });
        return { modRevision: revision };
      },
      get({ key }, { requestHeader }) {
        isSystem(requestHeader);
        const entry = find(key);
        if (entry === undefined) throw new ConnectError("absent", Code.NotFound);
        return { entry: { key, value: entry.value } };
      },
      delete({ key, ifModRevision }, { requestHeader }) {
        isSystem(requestHeader);
        check(key, ifModRevision);
        return { deleted: entries.delete(text(key)) };
      },
    })
  );
  return { transport, clock, entries, fail: (error: ConnectError | undefined) => failure = error };
}

const TIMEOUT_MS = 1_000;

function gateway(kv: Transport, config: Record<string, unknown> = {}, logged: string[] = []): Idempotency {
  return createIdempotency({
    config: idempotencyConfigSchema.parse(config),
    kv: () => kv,
    bodyLimits: {
      bytesMax: 1_000,
      timeouts: new TimeoutQueue(TIMEOUT_MS, { now: () => 0 }, createManualTimer()),
    },
    requestTimeoutMs: TIMEOUT_MS,
    log: { error: (message) => logged.push(message) },
  });
}

interface Asked {
  body?: string;
  key?: string;
  method?: string;
  path?: string;
  query?: string;
  user?: string;
  ip?: string;
  kind?: "unary" | "server_streaming";
}

const ann = (userId: string): Principal => create(PrincipalSchema, { kind: Principal_Kind.USER, userId });
const nobody = create(PrincipalSchema, { kind: Principal_Kind.ANONYMOUS });

/** Sends a request through the stage. Returns status, body and whether it was a repetition; of an error its code. */
async function send(
  stage: Idempotency,
  asked: Asked,
  answer: (body: string) => Promise<Response> | Response,
) {
  const { body = "{}", key = '"k"', method = "POST", path = "/p", query = "", user, ip = "1.2.3.4" } = asked;
  const request = new Request(
    `http://localhost${path}?${query}`,
    method === "GET" ? { method } : { method, body },
  );
  const exchange = {
    method,
    path,
    query,
    idempotencyKey: key,
    contentLength: undefined,
    requestId: "id-of-this",
    headers: request.headers,
    client: { ip, port: 1, isSecure: false },
    caller: {
      principal: user === undefined ? nobody : ann(user),
      encoded: "",
      credential: user === undefined ? "none" : "access_token",
    },
    match: {
      route: { template: path, dialect: "aetherflow", rpc: { methodKind: asked.kind ?? "unary" } },
      variables: [],
    },
  } as unknown as Exchange;
  try {
    const response = await stage.run(request, exchange, async (whole) => await answer(await whole.text()));
    const { status, headers } = response;
    const replayed = headers.get("idempotency-replayed");
    return `${status} ${await response.text()}${replayed === "true" ? " again" : ""}`;
  } catch (error) {
    assert(error instanceof GatewayError, String(error));
    return error.code;
  }
}

/** An answer that counts how often it was made. */
function counter(status = 200) {
  const made = { count: 0 };
  return {
    made,
    answer: (body: string) => new Response(`${body} ${++made.count}`, { status, headers: { etag: '"7"' } }),
  };
}

Deno.test("Idempotency.run() answers a repeated request with the first one's answer, whichever gateway gets it", async () => {
  const { transport, clock, entries } = createStore();
  const [one, two] = [gateway(transport, { ttlMs: 60_000 }), gateway(transport, { ttlMs: 60_000 })];
  const { made, answer } = counter(201);
  assertEquals(await send(one, {}, answer), "201 {} 1");
  assertEquals(await send(one, {}, answer), "201 {} 1 again");
  assertEquals(await send(two, {}, answer), "201 {} 1 again");
  assertEquals(made.count, 1);
  assert([...entries.keys()].every((key) => key.startsWith("\u0000aetherflow/idempotency/")));
  clock.advance(60_000);
  assertEquals(await send(two, {}, answer), "201 {} 2");
});

Deno.test("Idempotency.run() repeats status and headers, with the request's own id", async () => {
  const { transport } = createStore();
  const headers = [["x-a", "1"], ["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x-request-id", "first"]] as [
    string,
    string,
  ][];
  const seen: [number, [string, string][]][] = [];
  for (let i = 0; i < 2; i++) {
    const request = new Request("http://localhost/p", { method: "POST" });
    const exchange = {
      method: "POST",
      path: "/p",
      query: "",
      idempotencyKey: '"k"',
      requestId: `id-${i}`,
      client: { ip: "1.2.3.4" },
      match: { route: { template: "/p", rpc: { methodKind: "unary" } } },
    } as unknown as Exchange;
    const response = await gateway(transport).run(
      request,
      exchange,
      () => Promise.resolve(new Response(null, { status: 204, headers })),
    );
    seen.push([response.status, [...response.headers]]);
  }
  assertEquals(seen[0], [204, [["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x-a", "1"], [
    "x-request-id",
    "first",
  ]]]);
  assertEquals(seen[1], [204, [
    ["idempotency-replayed", "true"],
    ["set-cookie", "a=1"],
    ["set-cookie", "b=2"],
    ["x-a", "1"],
    ["x-request-id", "id-1"],
  ]]);
});

Deno.test("Idempotency.run() refuses another request under the same key", async () => {
  const { transport } = createStore();
  const stage = gateway(transport);
  const { answer } = counter();
  await send(stage, { path: "/p", body: "a" }, answer);
  assertEquals(await send(stage, { body: "b" }, answer), "idempotency_mismatch");
  assertEquals(await send(stage, { body: "a", query: "x=1" }, answer), "idempotency_mismatch");
  assertEquals(await send(stage, { body: "a" }, answer), "200 a 1 again");
});

Deno.test("Idempotency.run() keeps clients, routes and methods apart", async () => {
  const { transport } = createStore();
  const stage = gateway(transport);
  const { answer } = counter();
  const asked: Asked[] = [
    { user: "ann" },
    { user: "bob" },
    {},
    { ip: "5.6.7.8" },
    { user: "ann", path: "/q" },
    { user: "ann", method: "PATCH" },
    { user: "ann", key: '"l"' },
  ];
  for (let i = 0; i < asked.length; i++) {
    assertEquals(await send(stage, asked[i]!, answer), `200 {} ${i + 1}`);
  }
  assertEquals(await send(stage, { user: "ann", ip: "9.9.9.9" }, answer), "200 {} 1 again");
});

Deno.test("Idempotency.run() answers one of many at once, and 409 to the others until then", async () => {
  const { transport } = createStore();
  const stages = [gateway(transport), gateway(transport)];
  const { promise, resolve } = Promise.withResolvers<void>();
  const { made, answer } = counter();
  const slow = async (body: string) => {
    await promise;
    return answer(body);
  };
  const sent = Array.from({ length: 20 }, (_, i) => send(stages[i % 2]!, {}, slow));
  let ended = 0;
  const others = Promise.withResolvers<void>();
  for (const each of sent) each.then(() => ++ended === sent.length - 1 && others.resolve());
  await others.promise;
  assertEquals(await send(stages[0]!, { body: "other" }, slow), "idempotency_mismatch");
  resolve();
  const outcomes = await Promise.all(sent);
  assertEquals(outcomes.filter((outcome) => outcome === "200 {} 1").length, 1);
  assertEquals(outcomes.filter((outcome) => outcome === "idempotency_running").length, 19);
  assertEquals(await send(stages[1]!, {}, slow), "200 {} 1 again");
  assertEquals(made.count, 1);
});

Deno.test("Idempotency.run() lets a request pass whose gateway died, after the time it had", async () => {
  const { transport, clock } = createStore();
  send(gateway(transport), {}, () => new Promise(() => {})); // it is killed, and never answers
  const { answer } = counter();
  const other = gateway(transport);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(await send(other, {}, answer), "idempotency_running");
  clock.advance(TIMEOUT_MS);
  assertEquals(await send(other, {}, answer), "idempotency_running");
  clock.advance(2_000);
  assertEquals(await send(other, {}, answer), "200 {} 1");
  assertEquals(await send(other, {}, answer), "200 {} 1 again");
});

Deno.test("Idempotency.run() keeps final answers only, errors of the client's among them", async () => {
  const { transport } = createStore();
  const stage = gateway(transport);
  for (const status of [408, 425, 429, 500, 503]) {
    const { answer } = counter(status);
    assertEquals(await send(stage, { key: `"${status}"` }, answer), `${status} {} 1`);
    assertEquals(await send(stage, { key: `"${status}"` }, answer), `${status} {} 2`);
  }
  const thrown = (code: "unavailable" | "already_exists") => () =>
    Promise.reject(new GatewayError(code, "why"));
  assertEquals(await send(stage, { key: '"a"' }, thrown("unavailable")), "unavailable");
  assertEquals(await send(stage, { key: '"a"' }, thrown("already_exists")), "already_exists");
  const again = await send(stage, { key: '"a"' }, counter().answer);
  assertEquals([again.slice(0, 4), again.includes('"code":"already_exists"'), again.endsWith(" again")], [
    "409 ",
    true,
    true,
  ]);
});

Deno.test("Idempotency.run() never runs a request twice whose answer was too large to be kept", async () => {
  const { transport } = createStore();
  const stage = gateway(transport, { answerBytesMax: 4 });
  const { made, answer } = counter();
  assertEquals(await send(stage, {}, answer), "200 {} 1");
  assertEquals(await send(stage, { key: '"l"', body: "long" }, answer), "200 long 2");
  assertEquals(await send(stage, { key: '"l"', body: "long" }, answer), "failed_precondition");
  assertEquals([await send(stage, {}, answer), made.count], ["200 {} 1 again", 2]);
});

Deno.test("Idempotency.run() refuses malformed keys and streams, and takes no notice of keys of other methods", async () => {
  const { transport, entries } = createStore();
  const stage = gateway(transport);
  const { answer } = counter();
  for (
    const key of [
      "k",
      "",
      '""',
      '"k',
      '"k", "l"',
      "8e03978e-40d5-43dd-bc93-6894a57f9324",
      `"${"k".repeat(256)}"`,
      "1",
      ":aGk=:",
    ]
  ) {
    assertEquals(await send(stage, { key }, answer), "invalid_argument", key);
  }
  assertEquals(await send(stage, { kind: "server_streaming" }, answer), "invalid_argument");
  assertEquals(await send(stage, { body: "x".repeat(1_001) }, answer), "body_too_large");
  assertEquals(entries.size, 0);
  for (let i = 1; i <= 2; i++) assertEquals(await send(stage, { method: "PUT" }, answer), `200 {} ${i}`);
  assertEquals(await send(stage, { key: `"${"k".repeat(255)}";p=1` }, answer), "200 {} 3");
});

Deno.test("Idempotency.run() runs nothing while the store is away, and answers when it goes away in between", async () => {
  const { transport, fail, clock } = createStore();
  const logged: string[] = [];
  const stage = gateway(transport, {}, logged);
  const { made, answer } = counter();
  const away = new ConnectError("away", Code.Unavailable);
  fail(away);
  assertEquals([await send(stage, {}, answer), made.count], ["unavailable", 0]);
  fail(undefined);
  const outcome = await send(stage, {}, (body) => {
    fail(away);
    return answer(body);
  });
  assertEquals([outcome, logged.length], ["200 {} 1", 1]);
  fail(undefined);
  assertEquals(await send(stage, {}, answer), "idempotency_running");
  clock.advance(TIMEOUT_MS + 2_000);
  assertEquals(await send(stage, {}, answer), "200 {} 2");
});

Deno.test("what is kept of a request tells who reads the store neither its body nor its answer", async () => {
  const { transport, entries } = createStore();
  await send(gateway(transport), { body: "password=secret" }, () => new Response("token=secret"));
  const [key, { value }] = [...entries][0]!;
  const text = key + new TextDecoder("latin1").decode(value);
  assert(!text.includes("secret") && !text.includes("token"), text);
  value[value.length - 1]! ^= 1;
  await assertRejects(
    () =>
      send(gateway(transport), { body: "password=secret" }, () => new Response()).then((outcome) => {
        if (outcome === "unavailable") throw new Error("refused");
      }),
    Error,
    "refused",
  );
});
