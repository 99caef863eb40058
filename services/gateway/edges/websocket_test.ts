import { assert, assertEquals, assertMatch } from "@std/assert";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";

/** A client's socket, its frames one by one. `await using` closes it. */
class Client implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #frames: string[] = [];
  readonly closed: Promise<CloseEvent>;
  #wake = () => {};
  #isClosed = false;

  constructor(gateway: TestGateway, path: string) {
    this.#socket = new WebSocket(`${gateway.url.replace("http", "ws")}${path}`);
    this.#socket.addEventListener("message", ({ data }) => {
      this.#frames.push(data as string);
      this.#wake();
    });
    this.closed = new Promise((resolve) =>
      this.#socket.addEventListener("close", (event) => {
        this.#isClosed = true;
        this.#wake();
        resolve(event);
      })
    );
    this.#socket.addEventListener("error", () => {});
  }

  opened(): Promise<void> {
    return new Promise((resolve) => this.#socket.addEventListener("open", () => resolve()));
  }

  send(value: unknown): void {
    this.#socket.send(typeof value === "string" ? value : JSON.stringify(value));
  }

  // deno-lint-ignore no-explicit-any -- JSON
  async next(): Promise<any> {
    while (this.#frames.length === 0) {
      assert(!this.#isClosed, "the socket closed before the next frame");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return JSON.parse(this.#frames.shift()!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.closed;
  }
}

async function put(gateway: TestGateway, key: string, body: string): Promise<void> {
  const response = await fetch(`${gateway.url}/api/v1/kv/${key}`, { method: "PUT", body });
  await response.body?.cancel();
}

Deno.test("a watch over WebSocket has one frame a revision", async () => {
  await using gateway = startTestGateway();
  await using client = new Client(gateway, "/api/v1/kv?watch=true&prefix=a/");
  assertEquals((await client.next()).changes, []);
  await put(gateway, "a/1", "one");
  const { revision, changes } = await client.next();
  assertEquals([revision, changes[0].kind, atob(changes[0].entry.value)], ["2", "KIND_PUT", "one"]);
});

Deno.test("etcd's watch over WebSocket takes requests and gives results", async () => {
  await using gateway = startTestGateway();
  await using client = new Client(gateway, "/v3/watch");
  await client.opened();
  client.send({ create_request: { key: btoa("k") } });
  assertEquals((await client.next()).result.created, true);
  await put(gateway, "k", "v");
  const { result } = await client.next();
  assertEquals(atob(result.events[0].kv.value), "v");
});

Deno.test("a WebSocket whose request is not JSON is told so and closed", async () => {
  await using gateway = startTestGateway();
  await using client = new Client(gateway, "/v3/watch");
  await client.opened();
  client.send("nonsense");
  assertMatch((await client.next()).error.message, /not JSON/);
  assertEquals((await client.closed).code, 1008);
});

Deno.test("a WebSocket whose frame is larger than a body may be is told so and closed", async () => {
  await using gateway = startTestGateway({ config: { limits: { bodyBytes: 100 } } });
  await using client = new Client(gateway, "/v3/watch");
  await client.opened();
  client.send(JSON.stringify({ create_request: { key: "a".repeat(100) } }));
  assertMatch((await client.next()).error.message, /up to 100 characters/);
  assertEquals((await client.closed).code, 1008);
});

Deno.test("a refused stream is an HTTP answer, not a socket", async () => {
  await using gateway = startTestGateway({ config: { limits: { concurrentStreams: 1 } } });
  await using first = new Client(gateway, "/api/v1/kv?watch=true");
  await first.next();
  const { hostname, port } = new URL(gateway.url);
  using raw = await Deno.connect({ hostname, port: Number(port) });
  const handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  const head = `GET /api/v1/kv?watch=true HTTP/1.1\r\nHost: ${hostname}:${port}\r\n${handshake}\r\n`;
  await raw.write(new TextEncoder().encode(head));
  const answer = new Uint8Array(1_024);
  const length = await raw.read(answer);
  assertMatch(new TextDecoder().decode(answer.subarray(0, length!)), /^HTTP\/1\.1 503 /);
});

Deno.test("WebSockets are counted: those that were opened, those that were refused, and their frames", async () => {
  await using gateway = startTestGateway();
  const figures = async () => {
    const page = await (await fetch(`${gateway.url}/metrics`)).text();
    const of = (sample: string) =>
      Number(
        new RegExp(`^aetherflow_gateway_websocket_${sample.replace(":", "\\{.*")}.*\\} (\\d+)$`, "m")
          .exec(page)![1],
      );
    return [
      'connections_total:result="opened"',
      'connections_total:result="refused"',
      "active_connections",
      'message_size_chars_count:direction="in"',
      'message_size_chars_count:direction="out"',
    ].map(of);
  };
  assertEquals(await figures(), [0, 0, 0, 0, 0]);
  {
    await using client = new Client(gateway, "/v3/watch");
    await client.opened();
    client.send({ create_request: { key: "YQ==" } });
    await client.next();
    assertEquals(await figures(), [1, 0, 1, 1, 1]);
    client.send("nonsense");
    await client.closed;
  }
  // With a key that is no base64 in its query the call is refused before the handshake.
  await using refused = new Client(gateway, "/api/v1/kv?watch=true&startRevision=x");
  await refused.closed;
  const [opened, refusals, active] = await figures();
  assertEquals([opened, refusals, active], [1, 1, 0]);
});

Deno.test("draining closes sockets with 1001", async () => {
  const gateway = startTestGateway();
  const client = new Client(gateway, "/api/v1/kv?watch=true");
  await client.next();
  await gateway[Symbol.asyncDispose]();
  assertEquals((await client.closed).code, 1001);
});
