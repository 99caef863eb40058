/** etcd's JSON gateway: the same HTTP requests to a real etcd, to our port for gRPC and to our port for HTTP are answered
 *  alike: statuses, bodies, lines of streams. */
import { assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";
import { neutral, startPair, type Target, targetOf } from "./etcdctl.ts";

/** How long the lines of a stream may take until they count as lost, in ms. */
const LINES_DEADLINE_MS = 20_000;

/** One request, and what of the answer is compared. */
interface Request {
  readonly path: string;
  /** Text as it is, all else as JSON; left out, it is a GET. */
  readonly body?: unknown;
  /** Lines of a stream to wait for; the request is cancelled then. */
  readonly lines?: number;
  /** For answers whose words are each server's own: `status`, or the status and the `code` of the body. */
  readonly only?: "status" | "code";
  /** Name and password; the request then has their token. */
  readonly user?: readonly [string, string];
  /** Made equal. */
  readonly leaveOut?: readonly RegExp[];
}

/** Differences that are meant; services/gateway/README.md says why. */
const INTENDED: readonly [RegExp, string][] = [
  // Errors are google.rpc.Status, as of etcd 3.6; before, they said their message twice.
  [/"error":"[^"]*",/g, ""],
  [/,"details":\[\]/g, ""],
  [/\{"code":(\d+),"message":("[^"]*")\}/g, '{"message":$2,"code":$1}'],
  // FAILED_PRECONDITION is 400, as in newer versions of the gateway: 412 is for headers with conditions.
  [/^412(?=.*"code":9)/g, "400"],
  // There are no peers to reach.
  [/"peerURLs":\[[^\]]*\],/g, ""],
];

const b64 = btoa;
const all = { key: b64("\0"), range_end: b64("\0") };

const STORE: readonly Request[] = [
  { path: "kv/put", body: { key: b64("a"), value: b64("1") } },
  { path: "kv/put", body: { key: b64("a"), value: b64("2"), prev_kv: true } },
  { path: "kv/put", body: { key: b64("a"), value: b64("3"), prevKv: true } },
  { path: "kv/put", body: { key: b64("b"), value: b64("1"), unknown: { field: 1 } } },
  { path: "kv/put", body: { key: "w4QA", value: "/w==" } },
  { path: "kv/put", body: {} },
  { path: "kv/put", body: { key: b64("a"), lease: "123" } },
  { path: "kv/put", body: { key: b64("a"), lease: 123 } },
  { path: "kv/put", body: { key: b64("ghost"), ignore_value: true } },
  { path: "kv/put", body: { key: 1 }, only: "code" },
  { path: "kv/put", body: { key: "%" }, only: "code" },
  { path: "kv/put", body: { key: b64("a"), lease: "x" }, only: "code" },
  { path: "kv/put", body: "{", only: "code" },
  { path: "kv/put", body: "[]", only: "code" },
  { path: "kv/put", only: "status" },
  { path: "kv/no-such-method", body: {}, only: "status" },
  { path: "no-such-service/put", body: {}, only: "status" },
  { path: "kv/range", body: all },
  { path: "kv/range", body: { ...all, limit: "2" } },
  { path: "kv/range", body: { ...all, limit: 1, sort_order: "DESCEND", sort_target: "MOD" } },
  { path: "kv/range", body: { ...all, sort_order: 1, sort_target: 4 } },
  { path: "kv/range", body: { ...all, count_only: true } },
  { path: "kv/range", body: { ...all, keys_only: true, serializable: true } },
  { path: "kv/range", body: { key: b64("a"), revision: "2" } },
  { path: "kv/range", body: { key: b64("a"), revision: "1000" } },
  { path: "kv/range", body: { key: b64("nothing") } },
  {
    path: "kv/txn",
    body: {
      compare: [{ key: b64("a"), target: "VALUE", result: "EQUAL", value: b64("3") }],
      success: [
        { request_put: { key: b64("a"), value: b64("4"), prev_kv: true } },
        { requestRange: { key: b64("a") } },
        { request_delete_range: { key: b64("b"), prev_kv: true } },
        { request_txn: { failure: [{ request_range: { key: b64("b") } }] } },
      ],
      failure: [{ request_range: { key: b64("a") } }],
    },
  },
  {
    path: "kv/txn",
    body: {
      compare: [{ key: b64("a"), target: "VERSION", result: "GREATER", version: "100" }],
      failure: [{ request_range: { key: b64("a") } }, { request_txn: { success: [] } }],
    },
  },
  { path: "kv/txn", body: {} },
  {
    path: "kv/txn",
    body: { success: [{ request_put: { key: b64("a") } }, { request_put: { key: b64("a") } }] },
  },
  { path: "kv/deleterange", body: { key: b64("a"), prev_kv: true } },
  { path: "kv/deleterange", body: { key: b64("a") } },
  { path: "kv/compaction", body: { revision: "3", physical: true } },
  { path: "kv/compaction", body: { revision: "3" } },
  { path: "kv/compaction", body: { revision: "1000" } },
  { path: "kv/range", body: { key: b64("a"), revision: "2" } },

  { path: "lease/grant", body: { ID: "77", TTL: "600" } },
  { path: "lease/grant", body: { ID: 77, TTL: 600 } },
  { path: "lease/grant", body: { ID: "78", TTL: "9000000001" } },
  { path: "kv/put", body: { key: b64("leased"), lease: "77" } },
  { path: "lease/timetolive", body: { ID: "77", keys: true }, leaveOut: [/"TTL":"\d+"/g] },
  { path: "kv/lease/timetolive", body: { ID: "79" } },
  { path: "lease/leases", body: {} },
  { path: "kv/lease/leases", body: {} },
  { path: "lease/keepalive", body: { ID: "77" } },
  { path: "lease/keepalive", body: { ID: "79" } },
  { path: "lease/keepalive", body: '{"ID":"77"}{"ID":"79"}\n{"ID":"77"}' },
  { path: "lease/revoke", body: { ID: "79" } },
  { path: "kv/lease/revoke", body: { ID: "77" } },

  { path: "watch", body: { create_request: { ...all, start_revision: "4" } }, lines: 2 },
  {
    path: "watch",
    body: { create_request: { key: b64("a"), start_revision: "4", prev_kv: true } },
    lines: 2,
  },
  { path: "watch", body: { create_request: { ...all, start_revision: "4", filters: ["NOPUT"] } }, lines: 2 },
  { path: "watch", body: { createRequest: { key: b64("a"), startRevision: 2 } }, lines: 2 },
  { path: "watch", body: { create_request: { key: b64("zz"), watch_id: "7" } }, lines: 1 },
  { path: "watch", body: '{"create_request":{"key":"enp6"}}{"cancel_request":{"watch_id":0}}', lines: 2 },

  { path: "cluster/member/list", body: {} },
  { path: "cluster/member/remove", body: { ID: "1" } },
  { path: "cluster/member/promote", body: { ID: "1" } },
  { path: "maintenance/alarm", body: { action: "GET" } },
  { path: "maintenance/defragment", body: {} },
  { path: "maintenance/transfer-leadership", body: { targetID: "1" } },
  { path: "election/leader", body: { name: b64("chair") } },
  { path: "lock/lock", body: { name: b64("mutex"), lease: "1" } },
  { path: "election/campaign", body: { name: b64("chair"), lease: "1" } },
];

const root = ["root", "secret"] as const;
const ann = ["ann", "secret"] as const;

const AUTH: readonly Request[] = [
  { path: "auth/enable", body: {} },
  { path: "auth/authenticate", body: { name: "root", password: "secret" } },
  { path: "auth/user/add", body: { name: "root", password: "secret" } },
  { path: "auth/user/add", body: { name: "root", password: "secret" } },
  { path: "auth/user/add", body: { name: "ann", password: "secret" } },
  { path: "auth/user/add", body: {} },
  { path: "auth/role/add", body: { name: "root" } },
  { path: "auth/role/add", body: { name: "reader" } },
  { path: "auth/role/grant", body: { name: "reader", perm: { key: b64("a"), permType: "READ" } } },
  { path: "auth/role/get", body: { role: "reader" } },
  { path: "auth/user/grant", body: { user: "root", role: "root" } },
  { path: "auth/user/grant", body: { user: "ann", role: "reader" } },
  { path: "auth/user/get", body: { name: "ann" } },
  { path: "auth/user/list", body: {} },
  { path: "auth/role/list", body: {} },
  { path: "auth/enable", body: {} },
  { path: "auth/authenticate", body: { name: "root", password: "wrong" } },
  { path: "kv/range", body: { key: b64("a") } },
  { path: "kv/range", body: { key: b64("a") }, user: ann },
  { path: "kv/range", body: { key: b64("b") }, user: ann },
  { path: "kv/put", body: { key: b64("a") }, user: ann },
  { path: "kv/put", body: { key: b64("a") }, user: root },
  { path: "auth/user/list", body: {}, user: ann },
  { path: "watch", body: { create_request: { key: b64("b") } }, user: ann, lines: 1 },
  { path: "auth/disable", body: {}, user: root },
];

Deno.test("etcd's JSON gateway: our ports answer as a real etcd", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await using product = await startProduct({ args: ["--set", "kv.durability=none"] });
  const http = await targetOf("ours", new URL(product.url).host);
  http.names.set(product.grpc, "<address>");
  const script = [...STORE, ...AUTH];
  const [etcd, grpcPort, httpPort] = await Promise.all(
    [pair.etcd, pair.ours, http].map(async (target) => {
      const said: string[] = [];
      for (const request of script) said.push(await ask(target, request));
      return said;
    }),
  );
  assertEquals(grpcPort, etcd);
  assertEquals(httpPort, etcd);
});

/** What the server says to one request, without what is its own. */
async function ask(target: Target, request: Request): Promise<string> {
  const { path, body, lines, only, user, leaveOut } = request;
  const headers = new Headers();
  if (user !== undefined) headers.set("authorization", await tokenOf(target, user));
  const cancel = new AbortController();
  const timer = setTimeout(
    () => cancel.abort(new Error(`${target.name} ${path}: no answer`)),
    LINES_DEADLINE_MS,
  );
  try {
    const response = await fetch(`http://${target.address}/v3/${path}`, {
      headers,
      signal: cancel.signal,
      ...(body === undefined
        ? {}
        : { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await read(response, lines);
    const type = response.headers.get("content-type");
    const asked = `${path} ${typeof body === "string" ? body : JSON.stringify(body)}`;
    if (only === "status") return `${asked}: ${response.status}`;
    if (only === "code") return `${asked}: ${response.status} ${type} ${JSON.parse(text).code}`;
    let said = neutral(target, `${response.status} ${type} ${text}`, leaveOut);
    for (const [pattern, replacement] of INTENDED) said = said.replaceAll(pattern, replacement);
    return `${asked}: ${said}`;
  } finally {
    clearTimeout(timer);
  }
}

/** The whole body, or its first lines. */
async function read(response: Response, lines: number | undefined): Promise<string> {
  if (lines === undefined) return await response.text();
  let text = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.split("\n").length > lines) break;
  }
  return text;
}

async function tokenOf({ address }: Target, [name, password]: readonly [string, string]): Promise<string> {
  const body = JSON.stringify({ name, password });
  const response = await fetch(`http://${address}/v3/auth/authenticate`, { method: "POST", body });
  return (await response.json()).token;
}
