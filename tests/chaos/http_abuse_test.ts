/** Clients that abuse HTTP/1 and HTTP/2 themselves, at the HTTP port and at the gRPC port of the whole product: shapes that two
 *  parsers may read as different requests, floods of frames, slow clients. Each gets the right error or close, memory stays
 *  bounded, and a client that behaves is answered meanwhile. What clients do to keys and values is in kv_bad_input_test.ts. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { type Product, startProduct } from "../support/product.ts";

const MIB = 1_024 * 1_024;
/** What floods may leave behind, in bytes: below what any of them sends or asks to be kept. */
const GROWTH_MAX_BYTES = 192 * MIB;
/** How long a client that behaves may wait meanwhile, in ms: far above what it takes. */
const ANSWER_MS = 10_000;
/** How long a connection may take to be closed, in ms: likewise. */
const CLOSE_MS = 20_000;
/** Deadline of a request in these tests, in ms. */
const REQUEST_MS = 1_500;

const args = ["--set", "log.level=error", "--set", `gateway.requestTimeoutMs=${REQUEST_MS}`];

/** What a connection was answered: the statuses, and whether the server closed it. */
interface Heard {
  readonly statuses: readonly number[];
  readonly closed: boolean;
}

/** The same, and what was read. */
interface Talk extends Heard {
  readonly text: string;
}

const HOST = "Host: 127.0.0.1\r\n";
const PUT = `PUT /api/v1/kv/abuse HTTP/1.1\r\n${HOST}`;
const GET = `GET /livez HTTP/1.1\r\n${HOST}`;
/** A request that must not be taken for part of the one before, nor that for part of this. */
const SMUGGLED = "GET /api/v1/kv/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const CHUNKED = "Transfer-Encoding: chunked\r\n\r\n";

/** Shapes of which nobody may say where the request ends: refused, and nothing after them is read. */
const AMBIGUOUS: Readonly<Record<string, string>> = {
  "both lengths": `${PUT}Content-Length: 4\r\n${CHUNKED}0\r\n\r\n${SMUGGLED}`,
  "both lengths, the other way round":
    `${PUT}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  "two lengths": `${PUT}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx${SMUGGLED}`,
  "a list of lengths": `${PUT}Content-Length: 1, 1\r\n\r\nx${SMUGGLED}`,
  "a length with a sign": `${PUT}Content-Length: +1\r\n\r\nx${SMUGGLED}`,
  "a negative length": `${PUT}Content-Length: -1\r\n\r\nx${SMUGGLED}`,
  "a length in hexadecimal": `${PUT}Content-Length: 0x1\r\n\r\nx${SMUGGLED}`,
  "a length beyond 64 bits": `${PUT}Content-Length: 99999999999999999999999\r\n\r\nx${SMUGGLED}`,
  "a space after a name": `${PUT}Content-Length : 1\r\n\r\nx${SMUGGLED}`,
  "chunked, identity": `${PUT}Transfer-Encoding: chunked, identity\r\n\r\n1\r\nx\r\n0\r\n\r\n${SMUGGLED}`,
  identity: `${PUT}Transfer-Encoding: identity\r\n\r\n${SMUGGLED}`,
  xchunked: `${PUT}Transfer-Encoding: xchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n${SMUGGLED}`,
  "chunked twice": `${PUT}Transfer-Encoding: chunked\r\n${CHUNKED}1\r\nx\r\n0\r\n\r\n${SMUGGLED}`,
  "a vertical tab before chunked":
    `${PUT}Transfer-Encoding: \x0bchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n${SMUGGLED}`,
  "chunked in HTTP/1.0": `PUT /api/v1/kv/abuse HTTP/1.0\r\n${HOST}${CHUNKED}1\r\nx\r\n0\r\n\r\n${SMUGGLED}`,
  "a bare CR in a value": `${GET}X-A: a\rb: c\r\n\r\n`,
  "a folded line": `${GET}X-A: a\r\n b\r\n\r\n`,
  "a name after a space": "GET /livez HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
  "a NUL in a value": `${GET}X-A: a\0b\r\n\r\n`,
  "another version": `GET /livez HTTP/3.0\r\n${HOST}\r\n`,
};

/** Bodies whose chunks make no sense: the connection ends, with an answer or without. */
const BAD_CHUNKS: Readonly<Record<string, string>> = {
  "a size beyond 64 bits": "ffffffffffffffff1\r\nx\r\n0\r\n\r\n",
  "a negative size": "-1\r\nx\r\n0\r\n\r\n",
  "lines that end in LF": "1\nx\n0\n\n",
  "a size with 0x": "0x1\r\nx\r\n0\r\n\r\n",
  "more than was said": "1\r\nxx0\r\n\r\n",
};

Deno.test("what two parsers may read differently is refused, and what follows it is not read", async () => {
  await using product = await startProduct({ args });
  for (const [port, address] of ports(product)) {
    for (const [name, shape] of Object.entries(AMBIGUOUS)) {
      const { statuses, closed } = await talk(
        address,
        shape.replace("/api/v1/kv/abuse", port === "grpc" ? "/v3/kv/put" : "$&"),
      );
      assertEquals({ statuses, closed }, { statuses: [400], closed: true }, `${name} at the ${port} port`);
    }
    for (const [name, chunks] of Object.entries(BAD_CHUNKS)) {
      const path = port === "grpc" ? "POST /v3/kv/put" : "PUT /api/v1/kv/abuse";
      const heard = await talk(address, `${path} HTTP/1.1\r\n${HOST}${CHUNKED}${chunks}${SMUGGLED}`);
      assert(
        heard.closed && !heard.statuses.includes(200),
        `${name} at the ${port} port: ${JSON.stringify(heard)}`,
      );
      assert(heard.statuses.length <= 1, `${name} at the ${port} port: ${heard.statuses}`);
    }
  }
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

Deno.test("heads that are too large, for somebody else, or in an unknown coding get their own errors", async () => {
  await using product = await startProduct({ args });
  const http = hostOf(product);
  const big = "a".repeat(2 * MIB);
  const fields = (count: number) => Array.from({ length: count }, (_, i) => `x-${i}: a\r\n`).join("");
  const cases: [name: string, request: string, statuses: number[]][] = [
    ["40 kB in a header", `${GET}x-a: ${"a".repeat(40_000)}\r\n${CLOSE}`, [431]],
    ["2 MiB in a header", `${GET}x-a: ${big}\r\n${CLOSE}`, [400]],
    ["2 MiB in the target", `GET /${big} HTTP/1.1\r\n${HOST}${CLOSE}`, [400]],
    ["99 headers", `${GET}${fields(97)}${CLOSE}`, [200]],
    ["5,000 headers", `${GET}${fields(5_000)}${CLOSE}`, [400]],
    ["two hosts", `${GET}Host: evil.example\r\n${CLOSE}`, [400]],
    ["another host in the target", `GET http://evil.example/api/v1/kv/a HTTP/1.1\r\n${HOST}${CLOSE}`, [403]],
    ["our host in the target", `GET http://127.0.0.1/livez HTTP/1.1\r\n${HOST}${CLOSE}`, [200]],
    ["a tunnel", `CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n${CLOSE}`, [403]],
    ["another protocol", `${GET}Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n${CLOSE}`, [200]],
    ["a compressed body", `${PUT}Content-Encoding: gzip\r\nContent-Length: 1\r\n${CLOSE}x`, [415]],
    [
      "a compressed transfer",
      `${PUT}Connection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
      [415],
    ],
    ["two bodies after one another", `${PUT}Content-Length: 1\r\n\r\nx${PUT}Content-Length: 1\r\n${CLOSE}y`, [
      200,
      200,
    ]],
  ];
  for (const [name, request, statuses] of cases) {
    const heard = await talk(http, request);
    assertEquals([heard.statuses, heard.closed], [statuses, true], name);
  }
  const refused = await fetch(`${product.url}/api/v1/kv/a`, {
    method: "PUT",
    headers: { "content-encoding": "gzip" },
    body: "x",
  });
  assertEquals([refused.headers.get("accept-encoding"), (await refused.json()).code], [
    "identity",
    "unsupported_encoding",
  ]);
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

Deno.test("slow clients are told so and, at the gRPC port, closed; others are answered meanwhile", async () => {
  await using product = await startProduct({ args });
  const http = hostOf(product);
  // The HTTP server has no clock for heads: such a connection costs its memory, and a body's time is bounded.
  const slow = [
    talk(http, `${PUT}Content-Length: 10\r\nConnection: close\r\n\r\nx`, " 408 "),
    talk(product.grpc, `POST /v3/kv/range HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\n{`, " 408 "),
    talk(product.grpc, "GET /livez HTTP/1.1\r\nHost: 127"),
    talk(product.grpc, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /li"),
    talk(product.grpc, PREFACE.slice(0, 10)),
  ];
  await checkWell(product);
  const heard = await Promise.all(slow);
  assertEquals(heard.map(({ statuses }) => statuses), [[408], [408], [408], [200], []]);
  assert(heard.slice(2).every(({ closed }) => closed), JSON.stringify(heard));
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

Deno.test("floods of HTTP/2 frames end their connection, and take neither memory nor others' time", async () => {
  await using product = await startProduct({ args });
  await checkWell(product);
  const before = await rssBytes(product);
  const call = (stream: number) => frame(1, 0x05, stream, BLOCK);
  const floods: Readonly<Record<string, () => Uint8Array>> = {
    // CVE-2023-44487: calls that are reset as soon as they are made.
    "rapid reset": () =>
      repeated(20_000, (i) => joined([call(2 * i + 1), frame(3, 0, 2 * i + 1, new Uint8Array(4))])),
    // A head that never ends.
    continuation: () => joined([frame(1, 0, 1, BLOCK), repeated(20_000, () => frame(9, 0, 1, FIELD))]),
    "empty continuation": () =>
      joined([frame(1, 0, 1, BLOCK), repeated(50_000, () => frame(9, 0, 1, EMPTY))]),
    ping: () => repeated(100_000, () => frame(6, 0, 0, new Uint8Array(8))),
    settings: () => repeated(100_000, () => frame(4, 0, 0, EMPTY)),
    "empty data": () => joined([frame(1, 0x04, 1, BLOCK), repeated(100_000, () => frame(0, 0, 1, EMPTY))]),
    "a frame too large": () => frame(0, 0, 1, new Uint8Array(64 * 1_024)),
  };
  for (const [name, make] of Object.entries(floods)) {
    const flood = joined([PREFACE, frame(4, 0, 0, EMPTY), make()]);
    const attackers = Array.from({ length: 4 }, () => talk(product.grpc, flood));
    await checkWell(product);
    for (const { closed } of await Promise.all(attackers)) assert(closed, `${name} was let go on`);
  }
  // What a client may send for ever: it keeps nothing here, and a ping behind it is answered.
  const harmless: Readonly<Record<string, () => Uint8Array>> = {
    "window updates": () => repeated(100_000, () => frame(8, 0, 0, Uint8Array.of(0, 0, 0, 1))),
    // One entry of the table, named again and again: 100 heads of 16 MB each, in 800 kB. They are counted as they unfold, and
    // refused one by one.
    "heads of references": () => repeated(100, (i) => bomb(2 * i + 1, 4_000)),
  };
  const pong = "\0\0\x08\x06\x01\0\0\0\0all read";
  for (const [name, make] of Object.entries(harmless)) {
    const flood = joined([PREFACE, frame(4, 0, 0, EMPTY), make(), frame(6, 0, 0, bytes("all read"))]);
    const clients = Array.from({ length: 4 }, () => talk(product.grpc, flood, pong));
    await checkWell(product);
    for (const { text } of await Promise.all(clients)) {
      assert(text.includes(pong), `${name} ended the connection`);
    }
  }
  const grown = await rssBytes(product) - before;
  assertLess(grown, GROWTH_MAX_BYTES, `floods took ${grown} bytes`);
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

const CLOSE = "Connection: close\r\n\r\n";

// ---- HTTP/2 ----

const EMPTY = new Uint8Array(0);
const PREFACE = bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** POST, http, /grpc.health.v1.Health/Check of 127.0.0.1 as a gRPC call, in RFC 7541's bytes. */
const BLOCK = Uint8Array.from([
  0x83,
  0x86,
  0x04,
  ...literal("/grpc.health.v1.Health/Check"),
  0x01,
  ...literal("127.0.0.1"),
  0x0f,
  0x10,
  ...literal("application/grpc"),
]);
/** One more field, not to be remembered. */
const FIELD = Uint8Array.from([0x00, ...literal("x-flood"), ...literal("a".repeat(100))]);

/** A head that puts 4 kB into the table once and names it `times` times: 16 MB out of 4 kB. */
function bomb(stream: number, times: number): Uint8Array {
  const large = [0x40, ...literal("x-bomb"), 0x7f, 0xa1, 0x1e, ...bytes("b".repeat(4_000))];
  const references = new Uint8Array(times).fill(0xbe);
  return frame(1, 0x05, stream, joined([BLOCK, Uint8Array.from(large), references]));
}

function literal(value: string): number[] {
  assert(value.length < 127);
  return [value.length, ...bytes(value)];
}

/** A frame: length (3 bytes), type, flags, stream (4 bytes), payload. RFC 9113 §4.1. */
function frame(type: number, flags: number, stream: number, payload: Uint8Array): Uint8Array {
  const whole = new Uint8Array(9 + payload.length);
  const view = new DataView(whole.buffer);
  view.setUint32(0, payload.length << 8);
  whole[3] = type;
  whole[4] = flags;
  view.setUint32(5, stream);
  whole.set(payload, 9);
  return whole;
}

function repeated(times: number, make: (i: number) => Uint8Array): Uint8Array {
  return joined(Array.from({ length: times }, (_, i) => make(i)));
}

// ---- connections ----

function ports(product: Product): [name: "http" | "grpc", address: string][] {
  return [["http", hostOf(product)], ["grpc", product.grpc]];
}

function hostOf(product: Product): string {
  return product.url.slice("http://".length);
}

/** Says everything on a connection of its own and listens until the server closes it or has said `until`. */
async function talk(address: string, said: string | Uint8Array, until?: string): Promise<Talk> {
  const colon = address.lastIndexOf(":");
  const socket = await Deno.connect({
    hostname: address.slice(0, colon),
    port: Number(address.slice(colon + 1)),
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    socket.close();
  }, CLOSE_MS);
  const writing = writeAll(socket, typeof said === "string" ? bytes(said) : said);
  const buffer = new Uint8Array(64 * 1_024);
  let text = "";
  let closed = false;
  while (!closed && (until === undefined || !text.includes(until))) {
    try {
      const count = await socket.read(buffer);
      closed = count === null;
      if (count !== null) text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
    } catch {
      closed = !late; // reset: closed with something of ours unread
      break;
    }
  }
  clearTimeout(timer);
  if (!late) socket.close();
  await writing;
  return {
    statuses: [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status)),
    closed,
    text,
  };
}

/** Writes as much as the other side takes before either closes. */
async function writeAll(socket: Deno.TcpConn, said: Uint8Array): Promise<void> {
  try {
    for (let at = 0; at < said.length;) at += await socket.write(said.subarray(at));
  } catch {
    // Closed by the other side, which has had enough.
  }
}

/** Writes and reads at both ports, as any client would. */
async function checkWell(product: Product): Promise<void> {
  const signal = AbortSignal.timeout(ANSWER_MS);
  const url = `${product.url}/api/v1/kv/well`;
  const written = await fetch(url, { method: "PUT", body: "v", signal });
  await written.body?.cancel();
  const read = await fetch(url, { signal });
  assertEquals([written.status, await read.text()], [200, "v"]);
  const body = JSON.stringify({ key: btoa("well") });
  const found = await fetch(`http://${product.grpc}/v3/kv/range`, { method: "POST", body, signal });
  assertEquals((await found.json()).kvs[0].value, btoa("v"));
  const smuggled = await fetch(`${product.url}/api/v1/kv/smuggled`, { signal });
  await smuggled.body?.cancel();
  assertEquals(smuggled.status, 404);
}

function bytes(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(value);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function rssBytes({ pid }: Product): Promise<number> {
  // By a command, since reading there takes a right that no test has.
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/status`] }).output();
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(new TextDecoder().decode(stdout))![1]) * 1_024;
}
