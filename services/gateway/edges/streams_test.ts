import { Code, ConnectError } from "@connectrpc/connect";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";

/** Reads a body piece by piece, as far as asked. */
class Reader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  #text = "";
  #done = false;

  constructor(response: Response) {
    this.#reader = response.body!.getReader();
  }

  /** Everything up to and with the next `separator`. */
  async upTo(separator: string): Promise<string> {
    while (!this.#text.includes(separator)) {
      if (this.#done) throw new Error(`the body ended with ${JSON.stringify(this.#text)}`);
      const { done, value } = await this.#reader.read();
      this.#done = done;
      if (value !== undefined) this.#text += this.#decoder.decode(value, { stream: true });
    }
    const end = this.#text.indexOf(separator) + separator.length;
    const piece = this.#text.slice(0, end);
    this.#text = this.#text.slice(end);
    return piece;
  }

  /** What is left until the end. */
  async rest(): Promise<string> {
    for (let next = await this.#reader.read(); !next.done; next = await this.#reader.read()) {
      this.#text += this.#decoder.decode(next.value, { stream: true });
    }
    return this.#text;
  }

  close(): Promise<void> {
    return this.#reader.cancel();
  }
}

async function watch(gateway: TestGateway, path: string, lastEventId?: string): Promise<Reader> {
  const headers: Record<string, string> = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
  const response = await fetch(`${gateway.url}${path}`, { headers });
  assertEquals([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
  assertEquals(response.headers.get("cache-control"), "no-store");
  return new Reader(response);
}

function change(
  revision: number,
  key: string,
  value: string,
  createRevision = revision,
  version = 1,
): string {
  const data = {
    revision: String(revision),
    changes: [{
      kind: "KIND_PUT",
      entry: {
        key: btoa(key),
        value: btoa(value),
        createRevision: String(createRevision),
        modRevision: String(revision),
        version: String(version),
      },
    }],
  };
  return `id: ${revision}\nevent: change\ndata: ${JSON.stringify(data)}\n\n`;
}

async function waitFor(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert(turns < 20_000, "the condition never held");
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
  }
}

Deno.test("a watch opens with the place to resume from, then sends each change with its revision", async () => {
  await using gateway = startTestGateway();
  gateway.kv.put("k", "before");
  const events = await watch(gateway, "/api/v1/kv/k?watch=true");
  assertEquals(await events.upTo("\n\n"), "id: 2\nretry: 1000\n: open\n\n");
  gateway.kv.put("other", "x");
  gateway.kv.put("k", "after");
  assertEquals(await events.upTo("\n\n"), change(4, "k", "after", 2, 2));
  await events.close();
  await waitFor(() => gateway.kv.watching.count === 0);
});

Deno.test("a watch of a prefix sends the changes of every key under it", async () => {
  await using gateway = startTestGateway();
  const events = await watch(gateway, "/api/v1/kv?prefix=a%2F&watch=true");
  await events.upTo("\n\n");
  gateway.kv.put("a/1", "1");
  gateway.kv.put("b/1", "2");
  gateway.kv.put("a/2", "3");
  assertEquals(await events.upTo("\n\n"), change(2, "a/1", "1"));
  assertEquals(await events.upTo("\n\n"), change(4, "a/2", "3"));
  await events.close();
});

Deno.test("Last-Event-ID resumes after the change it names, and misses nothing", async () => {
  await using gateway = startTestGateway();
  for (let i = 2; i <= 6; i++) gateway.kv.put("k", `v${i}`);
  const events = await watch(gateway, "/api/v1/kv/k?watch=true", "4");
  // No id here: revisions 5 and 6 are still to come, and a client that breaks off now must resume from 4.
  assertEquals(await events.upTo("\n\n"), "retry: 1000\n: open\n\n");
  assertEquals(await events.upTo("\n\n"), change(5, "k", "v5", 2, 4));
  assertEquals(await events.upTo("\n\n"), change(6, "k", "v6", 2, 5));
  await events.close();
  const named = await watch(gateway, "/api/v1/kv/k?watch=true&startRevision=6");
  assertEquals(await named.upTo("\n\n"), "retry: 1000\n: open\n\n");
  assertEquals(await named.upTo("\n\n"), change(6, "k", "v6", 2, 5));
  await named.close();
  const bad = await fetch(`${gateway.url}/api/v1/kv/k?watch=true`, { headers: { "last-event-id": "x" } });
  assertEquals([bad.status, (await bad.json()).code], [400, "invalid_argument"]);
});

Deno.test("a revision that is compacted away is an error event, and the end", async () => {
  await using gateway = startTestGateway();
  gateway.kv.compactedBelow = 10n;
  const events = await watch(gateway, "/api/v1/kv/k?watch=true", "4");
  const text = await events.rest();
  assertMatch(text, /^event: error\ndata: .*\n\n$/);
  const problem = JSON.parse(text.slice(text.indexOf("{")));
  assertEquals([problem.code, problem.status], ["out_of_range", 400]);
  // Its slot is free again.
  assertEquals(gateway.timer.waiting, []);
});

Deno.test("a watch that cannot be opened is an error answer", async () => {
  await using gateway = startTestGateway({ config: { readRetryMs: 0 } });
  gateway.kv.failure = new ConnectError("the kv worker is down", Code.Unavailable);
  const { status, headers, body } = await fetch(`${gateway.url}/api/v1/kv/k?watch=true`);
  assertEquals([status, headers.get("retry-after")], [503, "1"]);
  await body?.cancel();
});

Deno.test("an idle watch has a heartbeat", async () => {
  await using gateway = startTestGateway({ config: { heartbeatMs: 15_000 } });
  const events = await watch(gateway, "/api/v1/kv/k?watch=true");
  await events.upTo("\n\n");
  for (let i = 0; i < 3; i++) {
    assertEquals(gateway.timer.fire(15_000), 1);
    assertEquals(await events.upTo("\n\n"), ": heartbeat\n\n");
  }
  await events.close();
  await waitFor(() => gateway.timer.waiting.length === 0);
});

Deno.test("drain ends watches with a farewell and refuses new ones", async () => {
  const gateway = startTestGateway();
  const events = await watch(gateway, "/api/v1/kv/k?watch=true");
  await events.upTo("\n\n");
  const lines = await fetch(`${gateway.url}/v3/watch`, {
    method: "POST",
    body: '{"create_request":{"key":"aw=="}}',
  });
  const reader = new Reader(lines);
  await reader.upTo("\n");
  const drained = gateway.module.drain(60_000);
  assertEquals(await events.rest(), ": draining, come back\n\n");
  assertEquals(
    await reader.rest(),
    '{"error":{"code":14,"message":"the gateway is draining","details":[]}}\n',
  );
  await drained;
  await waitFor(() => gateway.kv.watching.count === 0);
});

Deno.test("a slow reader stops the service's stream instead of filling memory", async () => {
  await using gateway = startTestGateway();
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(gateway.url).port) });
  const request = "GET /api/v1/kv/k?watch=true HTTP/1.1\r\nHost: localhost\r\n\r\n";
  await connection.write(new TextEncoder().encode(request));
  await connection.read(new Uint8Array(1000)); // the head; from here on nothing is read
  await waitFor(() => gateway.kv.watching.count === 1);
  const value = "x".repeat(1_000_000);
  const written = 60;
  for (let i = 0; i < written; i++) gateway.kv.put("k", value);
  // Whatever socket buffers take is taken; then nothing moves any more.
  let taken = -1;
  for (let quiet = 0; quiet < 200;) {
    quiet = taken === gateway.kv.delivered.count ? quiet + 1 : 0;
    taken = gateway.kv.delivered.count;
    await new Promise<void>((resolve) => setTimeout(resolve, 1));
  }
  assert(taken < written / 2, `${taken} of ${written} changes were taken`);
  assertEquals(gateway.timer.fire(15_000), 1, "a heartbeat is due");
  connection.close();
  await waitFor(() => gateway.timer.waiting.length === 0); // the stream is let go of
});

Deno.test("/v3/watch answers lines as etcd's gateway does, and listens on after the body has ended", async () => {
  await using gateway = startTestGateway();
  const body = `{"create_request":{"key":"${btoa("foo")}"}}`;
  const response = await fetch(`${gateway.url}/v3/watch`, { method: "POST", body });
  assertEquals([response.status, response.headers.get("content-type")], [200, "application/json"]);
  const lines = new Reader(response);
  assertEquals(
    await lines.upTo("\n"),
    '{"result":{"header":{"cluster_id":"7","member_id":"9","revision":"1","raft_term":"2"},"created":true}}\n',
  );
  gateway.kv.put("foo", "bar");
  assertEquals(
    await lines.upTo("\n"),
    '{"result":{"header":{"cluster_id":"7","member_id":"9","revision":"2","raft_term":"2"},"events":[{"kv":' +
      '{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}}]}}\n',
  );
  await lines.close();
  await waitFor(() => gateway.kv.watching.count === 0);
});

Deno.test("/v3/watch takes requests as they come, and ends with an error line on a bad one", async () => {
  await using gateway = startTestGateway();
  const upload = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const writer = upload.writable.getWriter();
  const encoder = new TextEncoder();
  const asked = fetch(`${gateway.url}/v3/watch`, { method: "POST", body: upload.readable });
  await writer.write(encoder.encode('{"create_req'));
  await writer.write(encoder.encode('uest":{"key":"aw=="}}'));
  const lines = new Reader(await asked);
  assertStringIncludes(await lines.upTo("\n"), '"created":true');
  await writer.write(encoder.encode("[]"));
  const last = JSON.parse(await lines.rest());
  assertEquals([last.error.code, last.error.message], [3, "the body is not a sequence of JSON objects"]);
  await writer.close().catch(() => {});
});

Deno.test("/v3 errors are google.rpc.Status with the statuses of etcd's gateway", async () => {
  await using gateway = startTestGateway({ config: { limits: { bodyBytes: 100 } } });
  const cases: [path: string, body: string, status: number, code: number, words: string][] = [
    ["/v3/kv/range", "{}", 400, 3, "etcdserver: key is not provided"],
    ["/v3/kv/range", "", 400, 3, "etcdserver: key is not provided"],
    ["/v3/kv/range", "{bad", 400, 3, "not JSON"],
    ["/v3/kv/compaction", '{"revision":"99"}', 400, 11, "required revision is a future revision"],
    ["/v3/kv/deleterange", "{}", 501, 12, "not implemented"],
    ["/v3/kv/put", "x".repeat(101), 413, 8, "larger than 100 bytes"],
    ["/v3/watch", "", 400, 3, "no JSON request"],
    ["/v3/watch", "{bad", 400, 3, "ends inside"],
    ["/v3/watch", '{"create_request":7}', 400, 3, "WatchCreateRequest"],
  ];
  for (const [path, body, status, code, words] of cases) {
    const response = await fetch(`${gateway.url}${path}`, { method: "POST", body });
    const answer = await response.json();
    assertEquals(response.status, status, `${path} ${body}`);
    assertEquals(Object.keys(answer), ["code", "message", "details"]);
    assertEquals([answer.code, answer.details], [code, []], `${path} ${body}`);
    assertStringIncludes(answer.message, words);
  }
});

Deno.test("/v3/kv/put and range work as with curl, with any content type and query", async () => {
  await using gateway = startTestGateway();
  const post = async (path: string, body: string) =>
    await (await fetch(`${gateway.url}${path}`, { method: "POST", body })).text();
  const header = '"header":{"cluster_id":"7","member_id":"9","revision":"2","raft_term":"2"}';
  assertEquals(await post("/v3/kv/put?x=y", '{"key":"Zm9v","value":"YmFy"}'), `{${header}}`);
  assertEquals(
    await post("/v3/kv/range", '{"key":"Zm9v"}'),
    `{${header},"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}],"count":"1"}`,
  );
});
