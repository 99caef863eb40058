import { Code, ConnectError } from "@connectrpc/connect";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { firePause, startTestGateway } from "../testing/harness.ts";

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** Sends bytes as they are, which fetch would not, and returns the answer's status and the rest. */
async function raw(url: string, request: string): Promise<{ status: number; head: string; body: string }> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  try {
    const bytes = encoder.encode(request);
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
    let answer = "";
    const chunk = new Uint8Array(65_536);
    for (let n = await connection.read(chunk); n !== null; n = await connection.read(chunk)) {
      answer += decoder.decode(chunk.subarray(0, n));
      const length = /\r\ncontent-length: (\d+)\r\n/i.exec(answer)?.[1];
      if (length !== undefined && answer.length >= answer.indexOf("\r\n\r\n") + 4 + Number(length)) break;
    }
    const split = answer.indexOf("\r\n\r\n");
    return {
      status: Number(answer.slice(9, 12)),
      head: answer.slice(0, split),
      body: answer.slice(split + 4),
    };
  } finally {
    connection.close();
  }
}

function get(target: string, headers = ""): string {
  return `GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${headers}\r\n`;
}

function put(target: string, body: string): string {
  return `PUT ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${
    encoder.encode(body).length
  }\r\n\r\n${body}`;
}

async function problem(response: Response): Promise<Record<string, unknown>> {
  assertEquals(response.headers.get("content-type"), "application/problem+json");
  const body = await response.json();
  assertEquals(body.status, response.status);
  assertEquals(body.requestId, response.headers.get("x-request-id"));
  assertEquals(Object.keys(body).sort(), ["code", "detail", "requestId", "status", "title", "type"]);
  assert(!String(body.detail).includes("    at "), "no stack trace");
  return body;
}

async function get400(url: string): Promise<Record<string, unknown>> {
  const response = await fetch(url);
  assertEquals(response.status, 400);
  return await problem(response);
}

Deno.test("PUT, GET, HEAD and DELETE of a key carry the raw value and its revision", async () => {
  await using gateway = startTestGateway();
  const url = `${gateway.url}/api/v1/kv/greeting`;

  const written = await fetch(url, { method: "PUT", body: "hello" });
  assertEquals([written.status, written.headers.get("etag")], [200, '"2"']);
  assertEquals(await written.json(), { modRevision: "2", version: "1" });

  const read = await fetch(url);
  assertEquals([read.status, read.headers.get("etag"), await read.text()], [200, '"2"', "hello"]);
  assertEquals(read.headers.get("content-type"), "application/octet-stream");
  assertEquals(read.headers.get("x-content-type-options"), "nosniff");

  const head = await fetch(url, { method: "HEAD" });
  assertEquals([head.status, head.headers.get("etag"), head.headers.get("content-length")], [
    200,
    '"2"',
    "5",
  ]);
  assertEquals(await head.text(), "");

  const deleted = await fetch(url, { method: "DELETE" });
  assertEquals(await deleted.json(), { deleted: true, revision: "3" });
  assertEquals((await problem(await fetch(url))).code, "not_found");
  assertEquals(await (await fetch(url, { method: "DELETE" })).json(), { deleted: false, revision: "3" });
});

Deno.test("values of any octets come back as they went in", async () => {
  await using gateway = startTestGateway();
  const value = Uint8Array.from({ length: 70_000 }, (_, i) => i & 0xff);
  for (const body of [new Uint8Array(0), value]) {
    await (await fetch(`${gateway.url}/api/v1/kv/bin`, { method: "PUT", body })).body?.cancel();
    assertEquals(await (await fetch(`${gateway.url}/api/v1/kv/bin`)).bytes(), body);
  }
});

Deno.test("a chunked body is a value too", async () => {
  await using gateway = startTestGateway();
  const body = ReadableStream.from([encoder.encode("one "), encoder.encode("two")]);
  await (await fetch(`${gateway.url}/api/v1/kv/k`, { method: "PUT", body })).body?.cancel();
  assertEquals(await (await fetch(`${gateway.url}/api/v1/kv/k`)).text(), "one two");
});

Deno.test("hostile and unusual paths name exactly the key they spell", async () => {
  await using gateway = startTestGateway();
  // Each pair of spellings is one key.
  const pairs = [
    ["/api/v1/kv/a%00b", "/api/v1/kv/%61%00b"],
    ["/api/v1/kv/a%2Fb", "/api/v1/kv/a/b"],
    ["/api/v1/kv/../../etc/passwd", "/api/v1/kv/%2e%2e/%2e%2e/etc/passwd"],
    ["/api/v1/kv//double//", "/api/v1/kv/%2Fdouble%2f%2f"],
    ["/api/v1/kv/%FF%fe", "/api/v1/kv/%ff%FE"],
    ["/api/v1/kv/ключ", "/api/v1/kv/%D0%BA%D0%BB%D1%8E%D1%87"],
    ["/api/v1/kv/a+b", "/api/v1/kv/a%2Bb"],
    ["/api/v1/kv/%25", "/api/v1/kv/%25"],
  ] as const;
  for (const [first, second] of pairs) {
    assertEquals((await raw(gateway.url, put(first, first))).status, 200, first);
    assertEquals((await raw(gateway.url, get(second))).body, first, second);
  }
  const cases = [
    ["/api/v1/kv/%zz", 400, "broken percent escape"],
    ["/api/v1/kv/abc%2", 400, "broken percent escape"],
    ["/api/v1/kv/%", 400, "broken percent escape"],
    ["/api/v1/kv/", 400, "key is empty"],
    ["/api/v1/kv/a?revision=x", 400, "expected a 64-bit integer"],
    ["/api/v1/kv/a?what=1", 400, 'unknown query parameter \\"what'],
    ["/api/v1/kv/a?key=b", 400, 'unknown query parameter \\"key'],
    ["/api/v1/kv/a?watch=maybe", 400, "expected true or false"],
    ["/api/v1/kv/a?revision=0&revision=0", 400, "more than once"],
    ["/api/v1/kv/a?%zz=1", 400, "query parameter name"],
    ["/api/v1/../livez", 404, "nothing is served"],
    ["/api/v1/kvx", 404, "nothing is served"],
    ["//livez", 404, "nothing is served"],
  ] as const;
  for (const [target, status, words] of cases) {
    const answer = await raw(gateway.url, get(target));
    assertEquals(answer.status, status, `${target}: ${answer.body}`);
    assertStringIncludes(answer.body, words);
  }
});

Deno.test("If-Match and If-None-Match are compare-and-set on writes", async () => {
  await using gateway = startTestGateway();
  const url = `${gateway.url}/api/v1/kv/cas`;
  const cases: [method: string, headers: Record<string, string>, status: number, code?: string][] = [
    ["PUT", { "if-match": '"2"' }, 412, "precondition_failed"], // no key yet
    ["PUT", { "if-none-match": "*" }, 200], // revision 2
    ["PUT", { "if-none-match": "*" }, 412, "precondition_failed"],
    ["PUT", { "if-match": '"2"' }, 200], // revision 3
    ["PUT", { "if-match": '"2"' }, 412, "precondition_failed"],
    ["PUT", { "if-match": 'W/"3"' }, 412, "precondition_failed"],
    ["PUT", { "if-match": '"0"' }, 412, "precondition_failed"],
    ["PUT", { "if-match": '"abc"' }, 412, "precondition_failed"],
    ["PUT", { "if-match": "*" }, 400, "invalid_argument"],
    ["PUT", { "if-match": '"3", "4"' }, 400, "invalid_argument"],
    ["PUT", { "if-none-match": '"3"' }, 400, "invalid_argument"],
    ["PUT", { "if-match": '"3"', "if-none-match": "*" }, 400, "invalid_argument"],
    ["DELETE", { "if-match": '"2"' }, 412, "precondition_failed"],
    ["DELETE", { "if-match": '"3"' }, 200],
  ];
  for (const [method, headers, status, code] of cases) {
    const response = await fetch(url, { method, headers, ...(method === "PUT" ? { body: "v" } : {}) });
    assertEquals(response.status, status, `${method} ${JSON.stringify(headers)}`);
    if (code !== undefined) assertEquals((await problem(response)).code, code);
    else await response.body?.cancel();
  }
});

Deno.test("a GET with the current entity tag is 304, with another If-Match 412", async () => {
  await using gateway = startTestGateway();
  gateway.kv.put("k", "v");
  const url = `${gateway.url}/api/v1/kv/k`;
  const cases: [headers: Record<string, string>, status: number][] = [
    [{ "if-none-match": '"2"' }, 304],
    [{ "if-none-match": 'W/"2"' }, 304],
    [{ "if-none-match": '"1", "2"' }, 304],
    [{ "if-none-match": "*" }, 304],
    [{ "if-none-match": '"1"' }, 200],
    [{ "if-match": '"2"' }, 200],
    [{ "if-match": '"1"' }, 412],
  ];
  for (const [headers, status] of cases) {
    const response = await fetch(url, { headers });
    assertEquals(response.status, status, JSON.stringify(headers));
    if (status !== 412) assertEquals(response.headers.get("etag"), '"2"');
    await response.body?.cancel();
  }
});

Deno.test("the list takes its parameters in both spellings and gives pages", async () => {
  await using gateway = startTestGateway();
  for (const key of ["a/1", "a/2", "a/3", "b/1"]) gateway.kv.put(key, "v");
  const first = await (await fetch(`${gateway.url}/api/v1/kv?prefix=a/&pageSize=2&keysOnly=true`)).json();
  assertEquals(first.entries.map((entry: { key: string }) => atob(entry.key)), ["a/1", "a/2"]);
  assertEquals([first.nextPageToken, first.revision, first.count], ["2", "5", "3"]);
  const rest =
    await (await fetch(`${gateway.url}/api/v1/kv?prefix=a%2F&page_size=2&page_token=2&watch=false`)).json();
  assertEquals(rest.entries.map((entry: { key: string }) => atob(entry.key)), ["a/3"]);
  assertEquals(rest.nextPageToken, "");
  assertStringIncludes((await get400(`${gateway.url}/api/v1/kv?keysOnly=yes`)).detail as string, "keysOnly");
});

Deno.test("every limit refuses with its own error", async () => {
  await using gateway = startTestGateway({
    config: {
      limits: {
        bodyBytes: 100,
        headerBytes: 1000,
        urlBytes: 200,
        concurrentRequests: 1,
        concurrentStreams: 1,
      },
    },
  });
  const url = `${gateway.url}/api/v1/kv/k`;
  const announced = await fetch(url, { method: "PUT", body: "x".repeat(101) });
  assertEquals([announced.status, (await problem(announced)).code], [413, "body_too_large"]);
  const chunked = await fetch(url, {
    method: "PUT",
    body: ReadableStream.from([new Uint8Array(60), new Uint8Array(60)]),
  });
  assertEquals([chunked.status, (await problem(chunked)).code], [413, "body_too_large"]);
  const headers = await fetch(url, { headers: { "x-long": "y".repeat(1000) } });
  assertEquals([headers.status, (await problem(headers)).code], [431, "headers_too_large"]);
  const long = await fetch(`${url}${"k".repeat(200)}`);
  assertEquals([long.status, (await problem(long)).code], [414, "url_too_long"]);
  const fits = await fetch(url, { method: "PUT", body: "x".repeat(100) });
  assertEquals([fits.status, (await fits.json()).version], [200, "1"]);

  const gate = Promise.withResolvers<void>();
  gateway.kv.gate = gate.promise;
  const entered = waitFor(() => gateway.kv.seen.has("Get"));
  const held = fetch(url);
  await entered;
  const crowded = await fetch(url);
  assertEquals([crowded.status, crowded.headers.get("retry-after")], [503, "1"]);
  assertEquals((await problem(crowded)).code, "too_many_requests");
  assertEquals(
    await (await fetch(`${gateway.url}/livez`)).text(),
    "ok\n",
    "health is told when slots are taken",
  );
  gateway.kv.gate = undefined;
  gate.resolve();
  assertEquals((await (await held).text()).length, 100);

  const stream = await fetch(`${url}?watch=true`);
  const second = await fetch(`${url}?watch=true`);
  assertEquals([second.status, (await problem(second)).code], [503, "too_many_streams"]);
  await stream.body!.cancel();
});

Deno.test("a body that does not arrive in time is 408", async () => {
  await using gateway = startTestGateway({ config: { requestTimeoutMs: 40 }, realTimers: true });
  const answer = await raw(
    gateway.url,
    "PUT /api/v1/kv/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n\r\nabc",
  );
  assertEquals(answer.status, 408);
  assertStringIncludes(answer.body, "request_timeout");
});

Deno.test("protected mode answers loopback names only", async () => {
  await using gateway = startTestGateway({ config: { allowedHosts: ["Dev.Example"] } });
  const port = new URL(gateway.url).port;
  const cases: [hostAndOrigin: string, status: number, code?: string][] = [
    ["Host: localhost", 200],
    [`Host: LOCALHOST:${port}`, 200],
    ["Host: app.localhost", 200],
    ["Host: 127.0.0.1", 200],
    ["Host: 127.200.3.4:80", 200],
    ["Host: [::1]:8080", 200],
    ["Host: dev.example", 200],
    ["Host: example.com", 403, "foreign_host"],
    ["Host: 127.0.0.1.example.com", 403, "foreign_host"],
    ["Host: localhost.example.com", 403, "foreign_host"],
    ["Host: 10.0.0.1", 403, "foreign_host"],
    ["Host: [::2]", 403, "foreign_host"],
    ["Host: 127.0.0.256", 403, "foreign_host"],
    ["Host: localhost/x@y?z", 400, "malformed_host"],
    ["Host: ", 400, "malformed_host"],
    ["Host: localhost\r\nOrigin: http://localhost:3000", 200],
    ["Host: localhost\r\nOrigin: https://127.0.0.1", 200],
    ["Host: localhost\r\nOrigin: http://dev.example", 200],
    ["Host: localhost\r\nOrigin: https://evil.example", 403, "foreign_origin"],
    ["Host: localhost\r\nOrigin: null", 403, "foreign_origin"],
    ["Host: localhost\r\nOrigin: http://localhost@evil.example", 403, "foreign_origin"],
  ];
  for (const [lines, status, code] of cases) {
    const answer = await raw(gateway.url, `GET /livez HTTP/1.1\r\n${lines}\r\nConnection: close\r\n\r\n`);
    assertEquals(answer.status, status, `${lines}: ${answer.body}`);
    if (code !== undefined) assertEquals(JSON.parse(answer.body).code, code, lines);
  }
  const absolute = await raw(
    gateway.url,
    "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
  );
  assertEquals([absolute.status, JSON.parse(absolute.body).code], [403, "foreign_host"]);
});

Deno.test("paths and methods that are not there are 404 and 405 with Allow", async () => {
  await using gateway = startTestGateway();
  const cases: [method: string, path: string, status: number, allow: string | null][] = [
    ["GET", "/nothing", 404, null],
    ["POST", "/api/v1/kv/k", 405, "DELETE, GET, HEAD, PUT"],
    ["PUT", "/api/v1/kv", 405, "DELETE, GET, HEAD, POST"],
    ["GET", "/v3/kv/range", 405, "POST"],
    ["POST", "/livez", 405, "GET, HEAD"],
    ["OPTIONS", "/api/v1/kv/k", 204, "DELETE, GET, HEAD, PUT, OPTIONS"],
    ["OPTIONS", "/metrics", 204, "GET, HEAD, OPTIONS"],
    ["HEAD", "/api/v1/kv/k?watch=true", 405, "GET"],
  ];
  for (const [method, path, status, allow] of cases) {
    const response = await fetch(`${gateway.url}${path}`, { method });
    assertEquals([response.status, response.headers.get("allow")], [status, allow], `${method} ${path}`);
    await response.body?.cancel();
  }
});

Deno.test("what services say is mapped by the table, without their insides", async () => {
  await using gateway = startTestGateway({ config: { readRetryMs: 0 } });
  const cases: [Code, number, string, string | null][] = [
    [Code.InvalidArgument, 400, "invalid_argument", null],
    [Code.OutOfRange, 400, "out_of_range", null],
    [Code.Unauthenticated, 401, "unauthenticated", null],
    [Code.PermissionDenied, 403, "permission_denied", null],
    [Code.NotFound, 404, "not_found", null],
    [Code.FailedPrecondition, 409, "failed_precondition", null],
    [Code.AlreadyExists, 409, "already_exists", null],
    [Code.Aborted, 409, "aborted", null],
    [Code.ResourceExhausted, 429, "resource_exhausted", "1"],
    [Code.Internal, 500, "internal", null],
    [Code.Unknown, 500, "unknown", null],
    [Code.DataLoss, 500, "data_loss", null],
    [Code.Unimplemented, 501, "unimplemented", null],
    [Code.Unavailable, 503, "unavailable", "1"],
    [Code.DeadlineExceeded, 504, "deadline_exceeded", null],
  ];
  for (const [code, status, name, retryAfter] of cases) {
    gateway.kv.failure = new ConnectError("because SECRET", code);
    const response = await fetch(`${gateway.url}/api/v1/kv/k`, { method: "PUT", body: "v" });
    assertEquals([response.status, response.headers.get("retry-after")], [status, retryAfter], name);
    assertEquals(response.headers.get("www-authenticate"), status === 401 ? "Bearer" : null, name);
    const body = await problem(response);
    assertEquals(body.code, name);
    assertEquals(body.detail === "because SECRET", code !== Code.Internal, name);
  }
  assert(gateway.logged.some(({ level, message }) => level === "error" && message === "request failed"));
});

Deno.test("what shows who the client is goes to the service, and nothing else of the headers", async () => {
  await using gateway = startTestGateway();
  const url = `${gateway.url}/api/v1/kv/k`;
  const headers = { authorization: "Bearer abc.1", token: "abc.2", cookie: "c=1", "x-client-cn": "root" };
  await (await fetch(url, { headers })).body?.cancel();
  const seen = gateway.kv.seen.get("Get")!;
  assertEquals([seen.get("authorization"), seen.get("token")], ["Bearer abc.1", "abc.2"]);
  assertEquals([seen.get("cookie"), seen.get("x-client-cn")], [null, null]);
  await (await fetch(url)).body?.cancel();
  const anonymous = gateway.kv.seen.get("Get")!;
  assertEquals([anonymous.get("authorization"), anonymous.get("token")], [null, null]);
});

Deno.test("the request id goes to the service, the answer and the log", async () => {
  await using gateway = startTestGateway();
  const url = `${gateway.url}/api/v1/kv/k`;
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const given = await fetch(url, { headers: { "x-request-id": "mine.1", traceparent } });
  assertEquals(given.headers.get("x-request-id"), "mine.1");
  assertEquals((await problem(given)).requestId, "mine.1");
  assertEquals(gateway.kv.seen.get("Get")!.get("x-request-id"), "mine.1");
  assertEquals(gateway.kv.seen.get("Get")!.get("traceparent"), traceparent);
  assert(gateway.logged.some(({ fields }) => fields?.requestId === "mine.1" && fields.status === 404));

  for (const bad of ["a b", "x".repeat(129), "<script>", ""]) {
    const response = await fetch(url, { headers: { "x-request-id": bad, traceparent: "00-nonsense" } });
    assertMatch(response.headers.get("x-request-id")!, /^id-\d+$/);
    assertEquals(gateway.kv.seen.get("Get")!.get("traceparent"), null);
    await response.body?.cancel();
  }
});

Deno.test("a read waits for an unavailable service, a write does not", async () => {
  await using gateway = startTestGateway();
  gateway.kv.put("k", "v");
  gateway.kv.failure = new ConnectError("the kv worker is down", Code.Unavailable);
  const url = `${gateway.url}/api/v1/kv/k`;
  const write = await fetch(url, { method: "PUT", body: "w" });
  assertEquals([write.status, (await problem(write)).detail], [503, "the kv worker is down"]);

  const read = fetch(url);
  await firePause(gateway.timer, 10);
  await waitFor(() => gateway.timer.waiting.some((ms) => ms > 10 && ms <= 20));
  gateway.kv.failure = undefined;
  await firePause(gateway.timer, 20);
  assertEquals(await (await read).text(), "v");
});

Deno.test("a read gives up on an unavailable service after readRetryMs", async () => {
  await using gateway = startTestGateway({ config: { readRetryMs: 30 }, realTimers: true });
  gateway.kv.failure = new ConnectError("the kv worker is down", Code.Unavailable);
  const response = await fetch(`${gateway.url}/api/v1/kv/k`);
  assertEquals([response.status, (await problem(response)).code], [503, "unavailable"]);
});

Deno.test("a request whose service does not answer within requestTimeoutMs is 504", async () => {
  await using gateway = startTestGateway({ config: { requestTimeoutMs: 40 }, realTimers: true });
  const gate = Promise.withResolvers<void>();
  gateway.kv.gate = gate.promise;
  const response = await fetch(`${gateway.url}/api/v1/kv/k`);
  assertEquals([response.status, (await problem(response)).code], [504, "deadline_exceeded"]);
  gate.resolve();
});

Deno.test("/livez, /readyz, /health and /version tell what they say", async () => {
  await using gateway = startTestGateway();
  const ask = async (path: string) => {
    const response = await fetch(`${gateway.url}${path}`);
    return [response.status, await response.text()];
  };
  assertEquals(await ask("/livez"), [200, "ok\n"]);
  assertEquals(await ask("/readyz"), [200, "ok\n"]);
  assertEquals(await ask("/healthz"), [200, "ok\n"]);
  assertEquals(await ask("/health"), [200, '{"health":"true","reason":""}']);
  assertEquals(await ask("/version"), [200, '{"name":"aetherflow","version":"9.9.9"}']);
  const [status, verbose] = await ask("/readyz?verbose");
  assertEquals(status, 200);
  assertEquals(JSON.parse(verbose as string), {
    ready: true,
    workers: [
      { name: "kv", state: "ready", reason: "", restarts: 0, sinceMs: 5 },
      { name: "gateway", state: "ready", reason: "", restarts: 0, sinceMs: 4 },
    ],
    addresses: { ...gateway.module.addresses },
  });
  const index = await (await fetch(gateway.url)).json();
  assertEquals(index.version, "9.9.9");
});

Deno.test("/readyz is 503 and says why when the host does not answer", async () => {
  await using gateway = startTestGateway({
    transport(peer, kv) {
      if (peer === "host") throw new ConnectError("host is down", Code.Unavailable);
      return kv.transport;
    },
  });
  const response = await fetch(`${gateway.url}/readyz`);
  assertEquals(response.status, 503);
  assertStringIncludes(await response.text(), "host: failed");
  assertEquals(await (await fetch(`${gateway.url}/readyz?exclude=host`)).text(), "ok\n");
  assertEquals(await (await fetch(`${gateway.url}/health`)).json().then((body) => body.health), "false");
});

Deno.test("/metrics has every worker's figures once, each with its worker", async () => {
  await using gateway = startTestGateway();
  gateway.kv.put("k", "v");
  await (await fetch(`${gateway.url}/api/v1/kv/k`)).body?.cancel();
  await (await fetch(`${gateway.url}/api/v1/kv/absent`)).body?.cancel();
  await (await fetch(`${gateway.url}/no/such/${crypto.randomUUID()}`)).body?.cancel();
  const response = await fetch(`${gateway.url}/metrics`);
  assertStringIncludes(response.headers.get("content-type")!, "text/plain");
  const page = await response.text();
  const line = (start: string) => page.split("\n").find((each) => each.startsWith(start));
  const requests = (route: string, status: number) =>
    page.split("\n").find((each) =>
      each.startsWith("aetherflow_gateway_http_requests_total{") && each.includes(`route="${route}"`) &&
      each.includes(`status="${status}"`)
    );
  assertStringIncludes(requests("/api/v1/kv/{key=**}", 200)!, 'worker="gateway"');
  assert(requests("/api/v1/kv/{key=**}", 200)!.endsWith(" 1"));
  assert(requests("/api/v1/kv/{key=**}", 404)!.endsWith(" 1"));
  assert(requests("unmatched", 404)!.endsWith(" 1"));
  assertEquals(line("kv_keys"), 'kv_keys{worker="kv"} 3');
  assertEquals(line("host_restarts_total"), 'host_restarts_total{worker="kv"} 2');
  assertEquals(line('aetherflow_worker_up{worker="kv"'), 'aetherflow_worker_up{worker="kv"} 1');
  assertStringIncludes(line("process_resident_memory_bytes")!, " 123456");
  assertEquals(page.split("\n").filter((each) => each.startsWith("# TYPE kv_keys")).length, 1);
  assert(!page.includes("/no/such/"), "paths of clients are no labels");
});

Deno.test("drain answers 503 on /readyz first, then finishes what is under way and refuses the rest", async () => {
  const gateway = startTestGateway({ config: { drain: { readyGraceMs: 700 } } });
  gateway.kv.put("k", "v");
  const gate = Promise.withResolvers<void>();
  gateway.kv.gate = gate.promise;
  const entered = waitFor(() => gateway.kv.seen.has("Get"));
  const held = fetch(`${gateway.url}/api/v1/kv/k`);
  await entered;

  const drained = gateway.module.drain(10_000);
  assertEquals(gateway.module.health(), { ok: false, detail: "draining" });
  const ready = await fetch(`${gateway.url}/readyz`);
  assertEquals(ready.status, 503);
  assertStringIncludes(await ready.text(), "gateway: draining");
  assertEquals(await (await fetch(`${gateway.url}/livez`)).text(), "ok\n");

  gateway.timer.fire(700);
  gateway.kv.gate = undefined;
  gate.resolve();
  assertEquals(await (await held).text(), "v");
  await drained;
  let refused = false;
  await fetch(`${gateway.url}/livez`).catch(() => refused = true);
  assert(refused, "nobody listens any more");
});

Deno.test("drain does not wait for a request longer than its deadline", async () => {
  const gateway = startTestGateway();
  const gate = Promise.withResolvers<void>();
  gateway.kv.gate = gate.promise;
  const entered = waitFor(() => gateway.kv.seen.has("Get"));
  const held = fetch(`${gateway.url}/api/v1/kv/k`);
  await entered;
  const drained = gateway.module.drain(5_000);
  assertEquals(gateway.timer.fire(), 1);
  await drained;
  gate.resolve();
  await (await held).body?.cancel();
});

/** Waits, turn by turn, until `condition` holds. */
async function waitFor(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert(turns < 20_000, "the condition never held");
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
  }
}
