import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { KV, Lease, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { createMemoryChannelPair } from "../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { kvConfigSchema } from "../kv/config.ts";
import { createKvModule } from "../kv/mod.ts";
import { openLogStore } from "../kv/stores/log.ts";
import { systemClock } from "../runtime/clock.ts";
import { silentLogger } from "../runtime/log.ts";
import { createSeededRandom } from "../runtime/random.ts";
import { startTestGateway } from "./testing/harness.ts";

/** The kv service as its worker wires it, behind the RPC code of production on a channel in memory. */
async function openKv(
  directory: string,
): Promise<{ transport: Transport; down: boolean; close(): Promise<void> }> {
  const config = kvConfigSchema.parse({});
  const { durability, intervalMs, segmentBytes } = config;
  const module = await createKvModule({
    openStore: (replay) =>
      openLogStore({ directory, durability, intervalMs, segmentBytes, clock: systemClock }, replay),
    config,
    random: createSeededRandom(1),
    log: silentLogger,
    clock: systemClock,
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const server = createRpcServer({});
  server.service(KV, module.handlers.kv);
  server.service(Watch, module.handlers.watch);
  server.service(Lease, module.handlers.lease);
  server.service(KeyValueService, module.handlers.keyValue);
  const [client, other] = createMemoryChannelPair();
  server.accept(other);
  const kv = {
    down: false,
    transport: createChannelTransport({
      channel() {
        if (kv.down) throw new ConnectError("kv is down", Code.Unavailable);
        return client;
      },
    }),
    async close() {
      await module.close();
      client.close(0, "test ended");
      await other.closed;
    },
  };
  return kv;
}

Deno.test("the gateway on the real key-value service: write, read, compare-and-set, pages, watch, etcd's paths", async () => {
  const directory = await Deno.makeTempDir();
  const kv = await openKv(directory);
  try {
    await using gateway = startTestGateway({ transport: () => kv.transport, realTimers: true });
    const base = `${gateway.url}/api/v1/kv`;
    const put = async (key: string, body: string, headers: Record<string, string> = {}) => {
      const response = await fetch(`${base}/${key}`, { method: "PUT", body, headers });
      await response.body?.cancel();
      return [response.status, response.headers.get("etag")];
    };
    assertEquals(await put("a/1", "one", { "if-none-match": "*" }), [200, '"2"']);
    assertEquals(await put("a/1", "again", { "if-none-match": "*" }), [412, null]);
    assertEquals(await put("a/1", "two", { "if-match": '"2"' }), [200, '"3"']);
    assertEquals(await put("a/1", "three", { "if-match": '"2"' }), [412, null]);
    assertEquals(await put("a/2", "x"), [200, '"4"']);
    const read = await fetch(`${base}/a/1`);
    assertEquals([await read.text(), read.headers.get("etag")], ["two", '"3"']);
    const old = await fetch(`${base}/a/1?revision=2`);
    assertEquals(await old.text(), "one");
    assertEquals((await (await fetch(`${base}/none`)).json()).code, "not_found");

    const page = await (await fetch(`${base}?prefix=a/&pageSize=1`)).json();
    const next =
      await (await fetch(`${base}?prefix=a/&pageSize=1&pageToken=${encodeURIComponent(page.nextPageToken)}`))
        .json();
    assertEquals([page.entries[0].keyText, next.entries[0].keyText, next.nextPageToken], ["a/1", "a/2", ""]);

    const events = await fetch(`${base}?prefix=a/&watch=true`, { headers: { "last-event-id": "3" } });
    const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes("id: 5\n")) {
      text += (await reader.read()).value;
      if (text.includes("id: 4\n") && !text.includes("id: 5\n")) await put("a/3", "y");
    }
    assertEquals(text.includes("id: 3\n"), false);
    await reader.cancel();

    const range = await fetch(`${gateway.url}/v3/kv/range`, { method: "POST", body: '{"key":"YS8x"}' });
    const answer = await range.json();
    assertEquals(answer.kvs, [
      { key: "YS8x", create_revision: "2", mod_revision: "3", version: "2", value: "dHdv" },
    ]);
    assertEquals(typeof answer.header.cluster_id, "string");

    const compacted = await fetch(`${gateway.url}/v3/kv/compaction`, {
      method: "POST",
      body: '{"revision":"4"}',
    });
    assertEquals(compacted.status, 200);
    await compacted.body?.cancel();
    const gone = await fetch(`${base}/a/1?watch=true`, { headers: { "last-event-id": "1" } });
    const last = await gone.text();
    assertStringIncludes(last, "event: error\ndata: ");
    assertStringIncludes(last, '"code":"out_of_range"');

    assertEquals(read.headers.get("ttl"), null);
    assertEquals((await put("t", "x", { ttl: "60.5" }))[0], 200);
    const timed = await fetch(`${base}/t`);
    assertEquals([await timed.text(), timed.headers.get("ttl")], ["x", "61"]);
    assertEquals(await put("t", "x", { ttl: "0" }), [400, null]);

    const post = async (path: string, body: unknown) =>
      await (await fetch(`${gateway.url}/v3/lease/${path}`, { method: "POST", body: JSON.stringify(body) }))
        .json();
    const granted = await post("grant", { ID: 7, TTL: 60 });
    assertEquals([granted.ID, granted.TTL], ["7", "60"]);
    assertEquals((await post("keepalive", { ID: 7 })).result.TTL, "60");
    assertEquals((await post("leases", {})).leases.map(({ ID }: { ID: string }) => ID).slice(0, 1), ["7"]);
    assertEquals((await post("revoke", { ID: 7 })).header.revision, granted.header.revision);
    assertEquals(await post("revoke", { ID: 7 }).then(({ code, message }) => [code, message]), [
      5,
      "etcdserver: requested lease not found",
    ]);

    kv.down = true;
    const refused = await fetch(`${base}/a/1`, { method: "PUT", body: "z" });
    assertEquals([refused.status, (await refused.json()).detail], [503, "kv is down"]);
    const waiting = fetch(`${base}/a/1`);
    kv.down = false;
    assertEquals(await (await waiting).text(), "two");
  } finally {
    await kv.close();
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("the gateway on the real key-value service: batches, transactions, history, text and forms", async () => {
  const directory = await Deno.makeTempDir();
  const kv = await openKv(directory);
  try {
    await using gateway = startTestGateway({ transport: () => kv.transport, realTimers: true });
    const base = `${gateway.url}/api/v1/kv`;
    const post = async (path: string, body: unknown) => {
      const response = await fetch(`${base}${path}`, { method: "POST", body: JSON.stringify(body) });
      return [response.status, await response.json()];
    };
    const [, put] = await post(":batchPut", {
      entries: [{ keyText: "a", valueText: "1" }, { keyText: "b", valueText: "2", ifModRevision: "0" }],
    });
    assertEquals(put, { revision: "2" });
    const [conflict, problem] = await post(":batchPut", {
      entries: [{ keyText: "a", valueText: "9" }, { keyText: "b", valueText: "9", ifModRevision: "0" }],
    });
    assertEquals([conflict, problem.code], [409, "failed_precondition"]);
    const [, got] = await post(":batchGet", { keyTexts: ["b", "none", "a"] });
    assertEquals(got.entries.map((entry: { valueText: string }) => entry.valueText), ["2", "1"]);

    const move = {
      conditions: [{ keyText: "a", modRevision: "2" }, { keyText: "c", exists: false }],
      then: [
        { put: { keyText: "c", valueText: "1" } },
        { delete: { keyText: "a" } },
        { get: { keyText: "", prefix: true } },
      ],
      otherwise: [{ get: { keyText: "a" } }],
    };
    const [, moved] = await post(":txn", move);
    assertEquals([moved.succeeded, moved.revision, moved.results[1].deleted], [true, "3", "1"]);
    assertEquals(moved.results[2].entries.map((entry: { keyText: string }) => entry.keyText), ["b", "c"]);
    const [, refused] = await post(":txn", move);
    assertEquals([refused.succeeded, refused.results[0].entries], [false, []]);
    assertEquals((await post(":txn", { conditions: [{ keyText: "a" }] }))[0], 400);
    assertEquals((await post(":txn", { then: [{}] }))[0], 400);

    const history = await (await fetch(`${base}/a?history=true&limit=1`)).json();
    assertEquals([history.changes[0].kind, history.more], ["KIND_DELETE", true]);
    const older = await (await fetch(`${base}/a?history=true&beforeRevision=3`)).json();
    assertEquals([older.changes[0].entry.valueText, older.more], ["1", false]);

    assertEquals(await post("", { key: "t", value: "json" }), [
      200,
      { message: "success", key: "t", value: "json", success: true },
    ]);
    const form = await fetch(base, {
      method: "POST",
      body: new URLSearchParams({ key: "f+", value: "a b&c" }),
    });
    assertEquals((await form.json()).message, "success");
    assertEquals(await (await fetch(`${base}?key=f%2B`)).json(), {
      key: "f+",
      value: "a b&c",
      found: true,
      shared: false,
    });
    assertEquals(await (await fetch(`${base}?key=none`)).json(), {
      key: "none",
      value: "",
      found: false,
      shared: false,
    });
    const gone = await fetch(`${base}?key=t`, { method: "DELETE" });
    assertEquals(await gone.json(), { message: "deleted", key: "t", success: true });
    assertEquals(
      await fetch(base, { method: "DELETE" }).then(async (r) => [r.status, (await r.json()).detail]),
      [
        400,
        "kv: the request is not valid: key is empty",
      ],
    );
  } finally {
    await kv.close();
    await Deno.remove(directory, { recursive: true });
  }
});
