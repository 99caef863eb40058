/** HTTP requests → messages of RPCs and back, by `google.api.http` and the protobuf JSON mapping, without a service. */
import { create, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { assertEquals, assertRejects } from "@std/assert";
import { Registry } from "prom-client";
import {
  CountSessionsResponseSchema,
  ListSessionsResponseSchema,
  SessionSchema,
  SessionState,
  WatchSessionsResponseSchema,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import type { Calls } from "../calls.ts";
import { type Exchange, readExchange } from "../exchange.ts";
import { Slots } from "../limits/slots.ts";
import { createGatewayMetrics } from "../metrics.ts";
import { EXPOSED } from "../mod.ts";
import { GatewayError } from "../problem.ts";
import { buildRouteTable } from "../routes.ts";
import { parseMask } from "../transcode.ts";
import { createManualTimer } from "../testing/harness.ts";
import { TimeoutQueue } from "../timer.ts";
import { Departures } from "./departures.ts";
import { createRpcEdge, type RpcEdge } from "./rpc.ts";

const routes = buildRouteTable(EXPOSED);
const clock = { now: () => 0 };

interface World {
  /** Sends a request, `GET /path`, and returns the answer. */
  send(line: string, body?: string, headers?: Record<string, string>): Promise<Response>;
  /** The RPC and its message as JSON that the last request became. */
  readonly called: { rpc: string; message: JsonValue } | undefined;
  readonly edge: RpcEdge;
}

interface Answers {
  readonly unary?: Message;
  readonly stream?: AsyncIterable<Message>;
  readonly onCall?: (exchange: Exchange) => void;
}

function open(answers: Answers = {}): World {
  let called: World["called"];
  const calls: Calls = {
    unary(route, exchange, message) {
      answers.onCall?.(exchange);
      called = { rpc: route.rpc.name, message: toJson(route.rpc.input, message) };
      return Promise.resolve(answers.unary ?? create(route.rpc.output));
    },
    async open(route, _exchange, requests) {
      for await (const message of requests()) {
        called = { rpc: route.rpc.name, message: toJson(route.rpc.input, message) };
      }
      const rest = answers.stream![Symbol.asyncIterator]();
      return { first: await rest.next(), rest };
    },
  };
  const timer = createManualTimer();
  const edge = createRpcEdge({
    calls,
    timer,
    clock,
    metrics: createGatewayMetrics(new Registry(), () => 0),
    bodyLimits: { bytesMax: 1_000_000, timeouts: new TimeoutQueue(1_000, clock, timer) },
    heartbeatMs: 15_000,
    streamSlots: new Slots(10),
    departures: new Departures(new TimeoutQueue(100, clock, timer)),
    follow: () => () => {},
    onFault() {},
  });
  return {
    edge,
    get called() {
      return called;
    },
    send(line, body, headers = {}) {
      const [method, target] = line.split(" ") as [string, string];
      const init = { method, headers, ...(body === undefined ? {} : { body }) };
      const request = new Request(`http://localhost${target}`, init);
      const exchange = readExchange(request, 0, 1_000, () => "id-1");
      exchange.match = routes.match(method, exchange.path, exchange.query);
      return edge.answer(request, exchange);
    },
  };
}

const WHEN = "2026-01-02T03:04:05.678Z";

Deno.test("a request becomes the message that path, query and body say", async (t) => {
  const cases: [line: string, body: string | undefined, rpc: string, message: JsonValue][] = [
    ["GET /api/v1/sessions/a%2Fb", undefined, "GetSession", { sessionId: "a/b" }],
    ["GET /api/v1/session?session_id=x", undefined, "GetSession", { sessionId: "x" }],
    ["GET /api/v1/session?sessionId=x%20y", undefined, "GetSession", { sessionId: "x y" }],
    ["DELETE /api/v1/sessions/x?reason=a+b", undefined, "DeleteSession", { sessionId: "x", reason: "a b" }],
    ["DELETE /api/v1/session?session_id=x", undefined, "DeleteSession", { sessionId: "x" }],
    [
      "GET /api/v1/sessions?user_id=u&state=SESSION_STATE_IDLE&pageSize=7&page_token=t",
      undefined,
      "ListSessions",
      { userId: "u", state: "SESSION_STATE_IDLE", pageSize: 7, pageToken: "t" },
    ],
    ["GET /api/v1/sessions?state=2", undefined, "ListSessions", { state: "SESSION_STATE_ACTIVE" }],
    ["POST /api/v1/sessions/x:heartbeat", "{}", "Heartbeat", { sessionId: "x" }],
    ["POST /api/v1/sessions/x:heartbeat", "", "Heartbeat", { sessionId: "x" }],
    [
      "POST /api/v1/session/heartbeat",
      `{"session_id":"x","clientTimestamp":"${WHEN}"}`,
      "Heartbeat",
      { sessionId: "x", clientTimestamp: WHEN },
    ],
    [
      "POST /api/v1/session",
      '{"clientIp":"1.2.3.4","client_port":99,"metadata":{"a":"b"},"timeoutSeconds":"60"}',
      "CreateSession",
      { clientIp: "1.2.3.4", clientPort: 99, metadata: { a: "b" }, timeoutSeconds: 60 },
    ],
    ["POST /api/v1/sessions:verify", '{"token":"t"}', "VerifySession", { token: "t" }],
    ["POST /api/v1/users/ann:setPassword", '{"password":"p"}', "SetPassword", {
      username: "ann",
      password: "p",
    }],
    // PATCH: what the body has is what is meant, or what the mask says.
    [
      "PATCH /api/v1/sessions/x",
      '{"state":"SESSION_STATE_ACTIVE","metadata":{"a":"b"}}',
      "UpdateSession",
      {
        session: { sessionId: "x", state: "SESSION_STATE_ACTIVE", metadata: { a: "b" } },
        updateMask: "state,metadata",
      },
    ],
    [
      "PATCH /api/v1/sessions/x",
      '{"sessionId":"x","stats":null}',
      "UpdateSession",
      { session: { sessionId: "x" }, updateMask: "stats" },
    ],
    [
      "PATCH /api/v1/sessions/x",
      '{"stats":{"packetsSent":"18446744073709551615","bytesSent":5,"currentRttMs":3}}',
      "UpdateSession",
      {
        session: {
          sessionId: "x",
          stats: { packetsSent: "18446744073709551615", bytesSent: "5", currentRttMs: 3 },
        },
        updateMask: "stats",
      },
    ],
    [
      "PATCH /api/v1/sessions/x?updateMask=state,client_ip,clientPort",
      '{"state":3}',
      "UpdateSession",
      { session: { sessionId: "x", state: "SESSION_STATE_IDLE" }, updateMask: "state,clientIp,clientPort" },
    ],
  ];
  for (const [line, body, rpc, message] of cases) {
    await t.step(`${line} ${body ?? ""}`, async () => {
      const world = open();
      assertEquals((await world.send(line, body)).status, 200);
      assertEquals(world.called, { rpc, message });
    });
  }
});

Deno.test("a field mask may name an entry of a map, whose key is taken as it is", () => {
  const mask = (text: string) => parseMask(SessionSchema, text);
  assertEquals(mask("metadata.fooBar.x,stats.bytesSent"), ["metadata.fooBar.x", "stats.bytes_sent"]);
  assertEquals(mask(""), []);
});

Deno.test("a request that does not fit is 400 and names what", async (t) => {
  const cases: [line: string, body: string | undefined, detail: string][] = [
    ["GET /api/v1/sessions?nothing=1", undefined, 'unknown query parameter "nothing"'],
    [
      "GET /api/v1/sessions?page_size=x",
      undefined,
      'query parameter "page_size" is "x", expected a 32-bit integer',
    ],
    ["GET /api/v1/sessions?pageSize=1&page_size=2", undefined, '"page_size" is given more than once'],
    ["GET /api/v1/sessions?state=busy", undefined, "expected SESSION_STATE_UNSPECIFIED, "],
    ["POST /api/v1/session", '{"unknown":1}', "unknown"],
    ["POST /api/v1/session", '{"metadata":{"a":1}}', "metadata"],
    ["POST /api/v1/session", '{"clientPort":-1}', "client_port"],
    ["POST /api/v1/session/heartbeat", '{"clientTimestamp":"yesterday"}', "Timestamp"],
    [
      "POST /api/v1/session",
      `{"metadata":${"[".repeat(150)}${"]".repeat(150)}}`,
      "nested more than 100 deep",
    ],
    ["PATCH /api/v1/sessions/x", '{"nothing":1}', "nothing"],
    ["PATCH /api/v1/sessions/x", "", "the body is not JSON"],
    [
      "PATCH /api/v1/sessions/x?updateMask=nothing",
      "{}",
      '"nothing", which is no field of aetherflow.session',
    ],
    [
      "PATCH /api/v1/sessions/x?updateMask=state.x",
      "{}",
      '"state.x", which is no field of aetherflow.session',
    ],
    ["PATCH /api/v1/sessions/x?updateMask=stats.nothing", "{}", '"stats.nothing"'],
    ["PATCH /api/v1/sessions/x?updateMask=%ff", "{}", "not UTF-8"],
  ];
  for (const [line, body, detail] of cases) {
    await t.step(`${line} ${body?.slice(0, 40) ?? ""}`, async () => {
      const error = await assertRejects(() => open().send(line, body), GatewayError) as GatewayError;
      assertEquals([error.code, error.message.includes(detail)], ["invalid_argument", true], error.message);
    });
  }
});

Deno.test("an answer is JSON by the protobuf rules, zeros included", async () => {
  const total = await open({
    unary: create(CountSessionsResponseSchema, { total: 9_007_199_254_740_993n, byState: { active: 1n } }),
  }).send("GET /api/v1/sessions:count");
  assertEquals(await total.json(), { total: "9007199254740993", byState: { active: "1" } });
  const list = await open({
    unary: create(ListSessionsResponseSchema, {
      sessions: [{
        sessionId: "x",
        state: SessionState.ACTIVE,
        createdAt: timestampFromDate(new Date(WHEN)),
      }],
      totalSize: 1n,
    }),
  }).send("GET /api/v1/sessions");
  const { sessions, nextPageToken, totalSize } = await list.json();
  assertEquals([nextPageToken, totalSize], ["", "1"]);
  assertEquals([sessions[0].state, sessions[0].createdAt], ["SESSION_STATE_ACTIVE", WHEN]);
});

async function* events(failure?: ConnectError) {
  yield create(WatchSessionsResponseSchema, { offset: 4n });
  yield create(WatchSessionsResponseSchema, { offset: 5n, reason: "over" });
  if (failure !== undefined) throw failure;
}

Deno.test("a call that may wait long ends when its client goes, others are not looked after", async () => {
  const timer = createManualTimer();
  const leave = new AbortController();
  let nowMs = 0;
  const departures = new Departures(new TimeoutQueue(100, { now: () => nowMs }, timer));
  let left = 0;
  const stop = departures.watch(new Request("http://localhost/", { signal: leave.signal }), () => left++);
  nowMs = 100;
  assertEquals(timer.fire(100), 1);
  leave.abort();
  assertEquals(left, 1);
  stop();
  const early = departures.watch(new Request("http://localhost/", { signal: leave.signal }), () => left++);
  early();
  departures.close();
  assertEquals([timer.fire(), left], [0, 1]);
  const signals: (AbortSignal | undefined)[] = [];
  const world = open({ onCall: (exchange) => signals.push(exchange.signal) });
  await world.send("POST /v3/lock/lock", '{"name":"bA=="}');
  await world.send("POST /v3/kv/put", '{"key":"aw=="}');
  assertEquals(signals.map((signal) => signal?.aborted), [false, undefined]);
});

Deno.test("a stream is lines of JSON where Accept asks for them, and events otherwise", async () => {
  const lines: [accept: string, type: string][] = [
    ["application/x-ndjson", "application/x-ndjson"],
    ["application/jsonl", "application/jsonl"],
    ["text/html, application/x-ndjson;q=0.9", "application/x-ndjson"],
  ];
  for (const [accept, type] of lines) {
    const world = open({ stream: events() });
    const response = await world.send("GET /api/v1/sessions?watch=true", undefined, { accept });
    assertEquals(response.headers.get("content-type"), type);
    const texts = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(texts.map(({ offset, reason }) => [offset, reason]), [["4", ""], ["5", "over"]]);
    assertEquals(world.called, { rpc: "WatchSessions", message: {} });
  }
  for (const accept of ["text/event-stream", "*/*", "text/event-stream, application/x-ndjson"]) {
    const response = await open({ stream: events() })
      .send("GET /api/v1/sessions?watch=true", undefined, { accept });
    assertEquals(response.headers.get("content-type"), "text/event-stream");
    await response.body!.cancel();
  }
});

Deno.test("lines resume where the last id says, and end with the error as the last one", async () => {
  const failure = new ConnectError("too slow", Code.ResourceExhausted);
  const world = open({ stream: events(failure) });
  const response = await world.send("GET /api/v1/sessions?watch=true&user_id=u", undefined, {
    accept: "application/x-ndjson",
    "last-event-id": "3",
  });
  const last = (await response.text()).trimEnd().split("\n").at(-1)!;
  assertEquals(JSON.parse(last).error.code, "resource_exhausted");
  assertEquals(world.called?.message, { userId: "u", startOffset: "4" });
});

Deno.test("lines that cannot begin are an error answer, and drain ends them with unavailable", async () => {
  const gone = new ConnectError("gone", Code.OutOfRange);
  const refused = open({
    stream: {
      [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(gone) }),
    },
  });
  const headers = { accept: "application/x-ndjson" };
  const error = await assertRejects(
    () => refused.send("GET /api/v1/sessions?watch=true", undefined, headers),
    GatewayError,
  ) as GatewayError;
  assertEquals(error.code, "out_of_range");
  let offset = 0n;
  const world = open({
    stream: {
      [Symbol.asyncIterator]: () => ({
        next: () =>
          offset++ === 0n
            ? Promise.resolve({ done: false, value: create(WatchSessionsResponseSchema, { offset: 1n }) })
            : new Promise(() => {}),
      }),
    },
  });
  const response = await world.send("GET /api/v1/sessions?watch=true", undefined, headers);
  const text = response.text();
  world.edge.drain();
  assertEquals(JSON.parse((await text).trimEnd().split("\n").at(-1)!).error.code, "unavailable");
  await assertRejects(() => world.send("GET /api/v1/sessions?watch=true", undefined, headers), GatewayError);
});
