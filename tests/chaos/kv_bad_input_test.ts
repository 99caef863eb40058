/** Clients that mean no good, or know no better, on every edge of the whole product: each gets the right error, memory stays
 *  bounded, and a client that behaves is answered on every edge in the middle of it. */
import { Auth, KV, Lease } from "$proto/etcdserverpb/rpc_pb.ts";
import { assert, assertEquals, assertLess } from "@std/assert";
import { createGrpcClient, type Outcome } from "../conformance/client.ts";
import { type Product, startProduct } from "../support/product.ts";

const MIB = 1_024 * 1_024;
/** Silent connections wanted, over all ports; fewer where the limit of open files is lower. */
const SILENT = 10_000;
/** Below it the test means nothing. */
const SILENT_MIN = 3_000;
/** Files that the test, or the product, has open besides, generously. */
const OTHER_FILES = 500;
/** Connections opened at once: below the length of a listener's queue. */
const DIALS = 100;
/** What a silent connection may take, in bytes, and what the allocator may hold back on top. */
const SILENT_BYTES = 40_000;
const NOISE_BYTES = 128 * MIB;
/** What 170,000 commands on their way, and as many answers, may take, in bytes. */
const PIPELINE_BYTES = 16 * MIB;
/** How long a client that behaves may wait while others do not, in ms: far above what it takes. */
const ANSWER_MS = 30_000;

/** On a machine that has more to do, a worker under attack may take longer for a sign of life than it does otherwise; here
 *  it must answer, not be replaced. */
const quiet = { args: ["--set", "log.level=error"] };

Deno.test("every edge refuses what is too large or makes no sense, each in its own words", async () => {
  await using product = await startProduct(quiet);
  using grpc = createGrpcClient(product.grpc);
  const tooLarge = new Uint8Array(1_600 * 1_024);
  const put = (value: Uint8Array, lease = 0n) =>
    grpc.unary(KV.method.put, { key: bytes("big"), value, lease });
  const gateway = (path: string, body: unknown) => post(`${product.url}/v3/${path}`, body);
  const rest = (path: string, init: RequestInit) => ask(`${product.url}/api/v1/${path}`, init);
  const base64 = (size: number) => btoa("x".repeat(size));

  // Too large: for the store, for an edge.
  assertEquals(refusal(await put(tooLarge)), [3, "etcdserver: request is too large"]);
  assertEquals(refusal(await put(new Uint8Array(3 * MIB)))[0], 8);
  assertEquals(await gateway("kv/put", { key: btoa("big"), value: base64(1_600 * 1_024) }), [
    400,
    "etcdserver: request is too large",
  ]);
  assertEquals((await gateway("kv/put", { key: btoa("big"), value: base64(3 * MIB) }))[0], 413);
  assertEquals((await rest("kv/big", { method: "PUT", body: tooLarge }))[0], 400);
  assertEquals((await rest("kv/big", { method: "PUT", body: new Uint8Array(4 * MIB) }))[0], 413);
  assertEquals((await rest(`kv/${"k".repeat(20_000)}`, {}))[0], 414);
  assertEquals(await resp(product, [command("SET", "big", "x".repeat(1_600 * 1_024))]), [
    "-ERR Protocol error: invalid bulk length",
  ]);

  // Ranges that are none.
  const range = (request: { key?: Uint8Array; rangeEnd?: Uint8Array; revision?: bigint }) =>
    grpc.unary(KV.method.range, request);
  assertEquals(refusal(await range({})), [3, "etcdserver: key is not provided"]);
  assertEquals(refusal(await range({ key: bytes("a"), revision: 99n })), [
    11,
    "etcdserver: mvcc: required revision is a future revision",
  ]);
  const inverted = await range({ key: bytes("b"), rangeEnd: bytes("a") });
  assertEquals(inverted.ok && [inverted.message.count, inverted.message.kvs.length], [0n, 0]);
  assertEquals(await gateway("kv/range", {}), [400, "etcdserver: key is not provided"]);
  assertEquals((await gateway("kv/range", { key: "not base64!" }))[0], 400);
  assertEquals((await rest("kv?pageToken=made-up", {}))[0], 400);
  assertEquals((await rest("kv?pageSize=-1", {}))[0], 400);
  assertEquals(await resp(product, [command("SCAN", "x"), command("SET", "a"), command("PING")]), [
    "-ERR invalid cursor",
    "-ERR wrong number of arguments for 'set' command",
    "+PONG",
  ]);

  // Leases that are none.
  const noLease = "etcdserver: requested lease not found";
  assertEquals(refusal(await put(bytes("1"), 999n)), [5, noLease]);
  assertEquals(refusal(await grpc.unary(Lease.method.leaseRevoke, { ID: 999n })), [5, noLease]);
  assertEquals(await gateway("kv/put", { key: btoa("a"), lease: "999" }), [404, noLease]);
  const time = await grpc.unary(Lease.method.leaseTimeToLive, { ID: 999n });
  assertEquals(time.ok && [time.message.TTL, time.message.grantedTTL], [-1n, 0n]);
  const renewal = grpc.bidi(Lease.method.leaseKeepAlive);
  const renewed = new Promise((resolve) => renewal.onMessage = ({ TTL }) => resolve(TTL));
  renewal.send({ ID: 999n });
  assertEquals(await renewed, 0n);
  renewal.cancel();
  await renewal.ended;
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

Deno.test("every edge refuses who does not say or prove who it is", async () => {
  await using product = await startProduct(quiet);
  using grpc = createGrpcClient(product.grpc);
  const get = { key: bytes("a") };
  for (const name of ["root", "ann"]) {
    await granted(grpc.unary(Auth.method.userAdd, { name, password: `${name}'s` }));
  }
  await granted(grpc.unary(Auth.method.userGrantRole, { user: "root", role: "root" }));
  await granted(grpc.unary(Auth.method.authEnable, {}));
  const login = async (name: string) => {
    const answer = await grpc.unary(Auth.method.authenticate, { name, password: `${name}'s` });
    assert(answer.ok);
    return answer.message.token;
  };
  const [root, ann] = [await login("root"), await login("ann")];

  const range = async (token?: string) => refusal(await grpc.unary(KV.method.range, get, { token }));
  assertEquals(await range(), [3, "etcdserver: user name is empty"]);
  for (const token of ["", "made up", `${root.slice(0, -1)}?`, "x".repeat(10_000)]) {
    assertEquals(await range(token), [16, "etcdserver: invalid auth token"], `token ${token.slice(0, 40)}`);
  }
  assertEquals(await range(ann), [7, "etcdserver: permission denied"]);
  assert((await grpc.unary(KV.method.range, get, { token: root })).ok);
  assertEquals(refusal(await grpc.unary(Auth.method.authenticate, { name: "root", password: "guess" })), [
    3,
    "etcdserver: authentication failed, invalid user ID or password",
  ]);

  const http = async (path: string, token: string | undefined, init: RequestInit = {}) =>
    (await ask(`${product.url}${path}`, {
      ...init,
      headers: token === undefined ? {} : { authorization: token },
    }))[0];
  const statuses = [];
  for (const token of [undefined, "made up", "Bearer made up", ann, root]) {
    const body = JSON.stringify({ key: btoa("a") });
    statuses.push([
      await http("/api/v1/kv/a", token),
      await http("/v3/kv/range", token, { method: "POST", body }),
    ]);
  }
  assertEquals(statuses, [[401, 400], [401, 401], [401, 401], [403, 403], [404, 200]]);

  assertEquals(
    await resp(product, [command("GET", "a"), command("AUTH", "root", "guess"), command("GET", "a")]),
    [
      "-NOAUTH Authentication required.",
      "-WRONGPASS invalid username-password pair or user is disabled.",
      "-NOAUTH Authentication required.",
    ],
  );
  const denied = await resp(product, [command("AUTH", "ann", "ann's"), command("GET", "a")]);
  assertEquals([denied[0], denied[1]?.split(" ")[0]], ["+OK", "-NOPERM"]);
  assertEquals(await product.stop(), 0);
});

Deno.test("bombs and half-open streams take no memory, and others are answered beside them", async () => {
  await using product = await startProduct(quiet);
  await checkWell(product);
  const before = await rssBytes(product);
  await using crowd = new Crowd();

  // Commands that announce much and bring little; then one that is refused and closed.
  const announcements = [
    "*1048576\r\n",
    "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1500000\r\nx",
    "*2\r\n$4\r\nPING\r\n$60000\r\n",
  ];
  for (const announcement of announcements) {
    await crowd.join(product.resp, 300, () => bytes(announcement));
  }
  for (const [bomb, words] of [["*1048577\r\n", "multibulk"], ["*1\r\n$536870913\r\n", "bulk"]]) {
    const [answer] = await resp(product, [bytes(bomb!)]);
    assertEquals(answer, `-ERR Protocol error: invalid ${words} length`);
  }
  // A pipeline without end whose answers nobody reads.
  const pipeline = new Uint8Array(MIB);
  for (let at = 0; at + 6 <= pipeline.length; at += 6) pipeline.set(bytes("PING\r\n"), at);
  await using pipelines = new Crowd();
  await pipelines.join(product.resp, 20, () => pipeline);

  // Calls that begin and never end: the head of one, of two hundred, half a message, half a frame.
  const begun = [PREFACE, settings(), headers(1, "/etcdserverpb.KV/Put")];
  const many = Array.from({ length: 200 }, (_, i) => headers(3 + 2 * i, "/etcdserverpb.Watch/Watch"));
  const halfMessage = frame(0, 0, 1, Uint8Array.of(0, 0, 16, 0, 0, 1, 2, 3));
  await crowd.join(product.grpc, 300, () => joined(begun));
  await crowd.join(product.grpc, 300, () => joined([...begun, halfMessage]));
  await crowd.join(product.grpc, 300, () => joined([...begun, halfMessage]).slice(0, -4));
  await crowd.join(product.grpc, 20, () => joined([...begun, ...many]));
  // Requests of HTTP/1.1 whose head or body stops in the middle.
  await crowd.join(
    product.url.slice("http://".length),
    300,
    () => bytes("GET /api/v1/kv/a HTTP/1.1\r\nhost: 127"),
  );
  await crowd.join(
    product.url.slice("http://".length),
    300,
    () => bytes("PUT /api/v1/kv/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1500000\r\n\r\nx"),
  );
  await checkWell(product);
  const grown = await rssBytes(product) - before;
  const allowed = crowd.size * SILENT_BYTES + pipelines.size * PIPELINE_BYTES + NOISE_BYTES;
  assertLess(grown, allowed, `${crowd.size} and ${pipelines.size} clients took ${grown} bytes`);
  await Promise.all([crowd.leave(), pipelines.leave()]);
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

Deno.test("thousands of connections that say nothing cost little, and others are answered beside them", async () => {
  const silent = Math.min(SILENT, await openFilesMax() - OTHER_FILES);
  assert(silent >= SILENT_MIN, `only ${silent} connections can be open: raise the limit (ulimit -n)`);
  await using product = await startProduct(quiet);
  await checkWell(product);
  const before = await rssBytes(product);
  await using crowd = new Crowd();
  const ports = [product.url.slice("http://".length), product.grpc, product.resp];
  for (const address of ports) {
    await crowd.join(address, Math.floor(silent / ports.length), () => undefined);
    await checkWell(product);
  }
  const grown = await rssBytes(product) - before;
  assertLess(grown, crowd.size * SILENT_BYTES + NOISE_BYTES, `${crowd.size} clients took ${grown} bytes`);
  await crowd.leave();
  await checkWell(product);
  assertEquals(await product.stop(), 0);
});

/** Clients that connect, say something or nothing, and stay. */
class Crowd {
  readonly #sockets: Deno.TcpConn[] = [];
  readonly #writing: Promise<void>[] = [];

  get size(): number {
    return this.#sockets.length;
  }

  /** `count` more, each of which says what `words` gives, as far as it is listened to. */
  async join(address: string, count: number, words: () => Uint8Array | undefined): Promise<void> {
    for (let left = count; left > 0; left -= DIALS) {
      const sockets = await Promise.all(Array.from({ length: Math.min(left, DIALS) }, () => dial(address)));
      this.#sockets.push(...sockets);
      for (const socket of sockets) {
        const said = words();
        if (said !== undefined) this.#writing.push(writeAll(socket, said));
      }
    }
  }

  /** All hang up. Idempotent. */
  async leave(): Promise<void> {
    for (const socket of this.#sockets.splice(0)) socket.close();
    await Promise.all(this.#writing.splice(0));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.leave();
  }
}

/** Writes and reads on every edge, as any client would. */
async function checkWell(product: Product): Promise<void> {
  const late = AbortSignal.timeout(ANSWER_MS);
  const value = String(Math.floor(performance.now() * 1_000));
  const key = "well";
  using grpc = createGrpcClient(product.grpc);
  const options = { timeoutMs: ANSWER_MS };
  await granted(grpc.unary(KV.method.put, { key: bytes(key), value: bytes(value) }, options));
  const read = await grpc.unary(KV.method.range, { key: bytes(key) }, options);
  assertEquals(read.ok && text(read.message.kvs[0]!.value), value);

  const rest = `${product.url}/api/v1/kv/${key}`;
  assertEquals((await ask(rest, { method: "PUT", body: value, signal: late }))[0], 200);
  assertEquals(await ask(rest, { signal: late }), [200, value]);
  const found = await fetch(`${product.url}/v3/kv/range`, {
    method: "POST",
    body: JSON.stringify({ key: btoa(key) }),
    signal: late,
  });
  assertEquals((await found.json()).kvs[0].value, btoa(value));
  assertEquals(await resp(product, [command("SET", key, value), command("GET", key)]), ["+OK", value]);
}

// ---- RESP ----

function command(...words: string[]): Uint8Array {
  return bytes(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`);
}

/** What a connection of its own is answered to the commands: a line each, of a bulk string its content. */
async function resp(product: Product, commands: readonly Uint8Array[]): Promise<string[]> {
  const socket = await dial(product.resp);
  const late = setTimeout(() => socket.close(), ANSWER_MS);
  const writing = writeAll(socket, joined(commands));
  const lines: string[] = [];
  let rest = "";
  const buffer = new Uint8Array(4_096);
  while (lines.length < commands.length) {
    const count = await socket.read(buffer);
    if (count === null) break;
    rest += text(buffer.subarray(0, count));
    const parts = rest.split("\r\n");
    rest = parts.pop() ?? "";
    lines.push(...parts.filter((line) => !line.startsWith("$")));
  }
  clearTimeout(late);
  await writing;
  socket.close();
  return lines;
}

// ---- HTTP ----

/** Status and body of an answer. */
async function ask(url: string, init: RequestInit): Promise<[number, string]> {
  const answer = await fetch(url, init);
  return [answer.status, await answer.text()];
}

/** Status and message of what etcd's JSON gateway answers. */
async function post(url: string, body: unknown): Promise<[number, string]> {
  const [status, answer] = await ask(url, { method: "POST", body: JSON.stringify(body) });
  return [status, JSON.parse(answer).message];
}

// ---- HTTP/2 ----

const PREFACE = bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

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

function settings(): Uint8Array {
  return frame(4, 0, 0, new Uint8Array(0));
}

/** The head of a gRPC call that has more to say: END_HEADERS without END_STREAM. */
function headers(stream: number, path: string): Uint8Array {
  const literal = (value: string) => [value.length, ...bytes(value)];
  // RFC 7541: POST and http from the static table, then names from it (4 :path, 1 :authority, 31 content-type).
  const block = [0x83, 0x86, 0x04, ...literal(path), 0x01, ...literal("127.0.0.1")];
  block.push(0x0f, 0x10, ...literal("application/grpc"), 0x00, ...literal("te"), ...literal("trailers"));
  return frame(1, 0x04, stream, Uint8Array.from(block));
}

// ---- the rest ----

function bytes(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(value);
}

function text(value: Uint8Array): string {
  return new TextDecoder().decode(value);
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

function refusal(outcome: Outcome<unknown>): [number, string] {
  return outcome.ok ? [0, "granted"] : [outcome.code, outcome.text];
}

async function granted(call: Promise<Outcome<unknown>>): Promise<void> {
  assertEquals(refusal(await call), [0, "granted"]);
}

function dial(address: string): Promise<Deno.TcpConn> {
  const colon = address.lastIndexOf(":");
  return Deno.connect({ hostname: address.slice(0, colon), port: Number(address.slice(colon + 1)) });
}

/** Writes as much as the other side takes before either closes. */
async function writeAll(socket: Deno.TcpConn, said: Uint8Array): Promise<void> {
  try {
    for (let at = 0; at < said.length;) at += await socket.write(said.subarray(at));
  } catch {
    // Closed: by the other side, which has had enough, or by us, who were not listened to.
  }
}

async function rssBytes({ pid }: Product): Promise<number> {
  const status = await shell(`cat /proc/${pid}/status`);
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  assert(match !== null, status);
  return Number(match[1]) * 1_024;
}

async function openFilesMax(): Promise<number> {
  const limit = (await shell("ulimit -n")).trim();
  return limit === "unlimited" ? Infinity : Number(limit);
}

async function shell(line: string): Promise<string> {
  const { stdout } = await new Deno.Command("sh", { args: ["-c", line] }).output();
  return text(stdout);
}
