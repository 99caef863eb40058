/** What /metrics serves after some of everything was used, against services/METRICS.md: nothing unnamed, nothing missing, and no
 *  label with more values than its bound. */
import { create, toBinary } from "@bufbuild/protobuf";
import { assert, assertEquals } from "@std/assert";
import { PutRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { GrpcChannel } from "../../transport/grpc/mod.ts";
import { projectFile } from "../support/paths.ts";
import { type Product, startProduct } from "../support/product.ts";

const PASSWORD = "correct horse battery";

/** A documented series. */
interface Documented {
  readonly type: string;
  /** Absent until the first event. */
  readonly isLate: boolean;
  /** Most values of each label. */
  readonly labels: ReadonlyMap<string, number>;
}

/** A served family. */
interface Served {
  readonly type: string;
  readonly labels: Map<string, Set<string>>;
}

/** Most workers of one host. */
const WORKERS_MAX = 64;

Deno.test("/metrics serves what services/METRICS.md documents, and labels keep their bounds", async () => {
  await using product = await startProduct({ args: ["--set", "log.level=error"] });
  const token = await useEverything(product);
  const served = parsePage(await textOf(product, "/metrics", { headers: bearer(token) }));
  const documented = parseDocument(await Deno.readTextFile(projectFile("services/METRICS.md")));
  assert(documented.size > 60, `only ${documented.size} series were read`);

  assertEquals([...served.keys()].filter((name) => !documented.has(name)), [], "served and not documented");
  const missing = [...documented].filter(([name, { isLate }]) => !isLate && !served.has(name));
  assertEquals(missing.map(([name]) => name), [], "documented and not served");

  const wrong: string[] = [];
  for (const [name, { type, labels }] of served) {
    const words = documented.get(name)!;
    if (type !== words.type) wrong.push(`${name} is a ${type}, not a ${words.type}`);
    for (const [label, values] of labels) {
      const most = label === "worker" ? WORKERS_MAX : words.labels.get(label);
      if (most === undefined) wrong.push(`${name}: the label ${label} is not documented`);
      else if (values.size > most) wrong.push(`${name}: ${label} has ${values.size} values, at most ${most}`);
    }
  }
  assertEquals(wrong, []);
  assertEquals(await product.stop(), 0);
});

Deno.test("the readers of this test find what is wrong", () => {
  const page = parsePage(
    '# TYPE a_seconds histogram\na_seconds_bucket{le="1",x="{y=\\"z\\"}"} 1\na_seconds_count{x="2"} 1\n# TYPE b gauge\nb 1\n',
  );
  assertEquals([...page.keys()], ["a_seconds", "b"]);
  assertEquals([...page.get("a_seconds")!.labels.get("x")!].length, 2);
  const documented = parseDocument(
    "| `a_seconds` † | histogram | `x` ≤ 1,000 · `y` ≤ 2 | words |\n| `b` | gauge | | w |",
  );
  assertEquals([...documented.get("a_seconds")!.labels], [["x", 1_000], ["y", 2]]);
  assertEquals([...documented].map(([name, { isLate }]) => [name, isLate]), [["a_seconds", true], [
    "b",
    false,
  ]]);
});

/** Leaves a mark in as many figures as it can; gives an administrator's token. */
async function useEverything(product: Product): Promise<string> {
  await textOf(product, "/api/v1/kv/a", { method: "PUT", body: "1" });
  await textOf(product, "/api/v1/kv/a");
  await textOf(product, "/api/v1/kv/none"); // 404
  // Names that clients make up are no labels.
  for (let i = 0; i < 40; i++) {
    await textOf(product, `/no/such/path/${i}`, { method: i % 2 === 0 ? "GET" : "PROPFIND" });
  }
  const { session } = await jsonOf(product, "/api/v1/sessions", { userId: "ann" });
  await jsonOf(product, `/api/v1/sessions/${session.sessionId}:heartbeat`, {});
  await watchOverSocket(product);
  await editDocuments(product);
  await putOverGrpc(product);
  await pingOverResp(product);

  const created = await jsonOf(product, "/api/v1/users", {
    username: "root",
    password: PASSWORD,
  });
  assertEquals(created.user.username, "root");
  await jsonOf(product, "/api/v1/auth/login", { username: "root", password: "not this one" });
  const login = await jsonOf(product, "/api/v1/auth/login", { username: "root", password: PASSWORD });
  await jsonOf(product, "/api/v1/auth/refresh", { refreshToken: login.refreshToken });
  for (let i = 0; i < 2; i++) {
    await textOf(product, "/api/v1/auth/me", { headers: bearer(login.accessToken) });
  }
  return login.accessToken;
}

async function textOf({ url }: Product, path: string, init?: RequestInit): Promise<string> {
  return await (await fetch(url + path, init)).text();
}

// deno-lint-ignore no-explicit-any -- answers whose fields the callers name
async function jsonOf(product: Product, path: string, body: unknown): Promise<any> {
  return JSON.parse(await textOf(product, path, { method: "POST", body: JSON.stringify(body) }));
}

function bearer(token: string): HeadersInit {
  return { authorization: `Bearer ${token}` };
}

/** Opens a watch as a WebSocket, has one event, and closes it. */
async function watchOverSocket(product: Product): Promise<void> {
  const socket = new WebSocket(`${product.url.replace("http", "ws")}/api/v1/kv/a?watch=true`);
  const seen = Promise.withResolvers<void>();
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  socket.addEventListener("message", () => seen.resolve());
  await new Promise((resolve) => socket.addEventListener("open", resolve));
  await textOf(product, "/api/v1/kv/a", { method: "PUT", body: "2" });
  await seen.promise;
  socket.close();
  await closed;
}

/** Makes a document, edits it, synchronises it with two clients, and greets the hub. */
async function editDocuments(product: Product): Promise<void> {
  await jsonOf(product, "/api/v1/documents", { docId: "m", type: "text" });
  const text = { edits: [{ index: 0, insert: "hello" }] };
  await jsonOf(product, "/api/v1/documents/m/operations", { type: "text", text });
  for (const path of ["/api/v1/documents/m/sync", "/api/v1/documents/m/sync", "/ws"]) {
    const socket = new WebSocket(product.url.replace("http", "ws") + path);
    const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    if (path === "/ws") socket.send(JSON.stringify({ id: "1", type: "ping" }));
    socket.close();
    await closed;
  }
}

async function putOverGrpc({ grpc }: Product): Promise<void> {
  using channel = new GrpcChannel({
    address: grpc,
    clock: { now: () => performance.now() },
    fraction: () => 0.5,
  });
  const key = new TextEncoder().encode("b");
  await channel.unary("/etcdserverpb.KV/Put", toBinary(PutRequestSchema, create(PutRequestSchema, { key })));
}

async function pingOverResp({ resp }: Product): Promise<void> {
  const [hostname, port] = resp.split(":") as [string, string];
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(new TextEncoder().encode("PING\r\n"));
  assert(await connection.read(new Uint8Array(64)) !== null);
}

/** Rows of the document's tables that begin with a series' name. */
function parseDocument(text: string): Map<string, Documented> {
  const series = new Map<string, Documented>();
  const rows = text.matchAll(
    /^\| `([a-z_]+)`( †)? +\| (counter|gauge|histogram) +\|([^|]*)\|/gm,
  );
  for (const [, name, late, type, labels] of rows) {
    const bounds = [...labels!.matchAll(/`(\w+)` ≤ ([\d,]+)/g)]
      .map(([, label, most]): [string, number] => [label!, Number(most!.replaceAll(",", ""))]);
    assert(!series.has(name!), `${name} is documented twice`);
    series.set(name!, { type: type!, isLate: late !== undefined, labels: new Map(bounds) });
  }
  return series;
}

/** The families of a page, with the values that each label has; `le` of histograms is no label of ours. */
function parsePage(page: string): Map<string, Served> {
  const families = new Map<string, Served>();
  for (const [, name, type] of page.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    families.set(name!, { type: type!, labels: new Map() });
  }
  for (const [, sample, labels = ""] of page.matchAll(/^([a-z_]+)(?:\{(.*)\})? \S+$/gm)) {
    const family = families.get(sample!) ?? families.get(sample!.replace(/_(?:bucket|sum|count)$/, ""));
    assert(family !== undefined, `${sample} has no TYPE`);
    for (const [, label, value] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      if (label === "le") continue;
      const values = family.labels.get(label!) ?? new Set();
      family.labels.set(label!, values.add(value!));
    }
  }
  return families;
}
