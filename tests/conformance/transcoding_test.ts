/** One key-value store over REST, the Connect protocol, gRPC-Web and etcd's paths: the same answers by each, with the clients
 *  of connect-es, against the whole product. */
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createFetchClient } from "@connectrpc/connect/protocol";
import { createTransport as createConnect } from "@connectrpc/connect/protocol-connect";
import { createTransport as createGrpcWeb } from "@connectrpc/connect/protocol-grpc-web";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { KV, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { startProduct } from "../support/product.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (octets: Uint8Array) => new TextDecoder().decode(octets);

const requests: string[] = [];
const OPTIONS = {
  httpClient: createFetchClient((input, init) => {
    requests.push((input as Request).method);
    return fetch(input, init);
  }),
  interceptors: [],
  acceptCompression: [],
  sendCompression: null,
  compressMinBytes: 1_024,
  readMaxBytes: 0xffff_ffff,
  writeMaxBytes: 0xffff_ffff,
};

const TRANSPORTS: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  "Connect with GET": (baseUrl) =>
    createConnect({ ...OPTIONS, baseUrl, useBinaryFormat: true, useHttpGet: true }),
  "Connect with GET, JSON": (baseUrl) =>
    createConnect({ ...OPTIONS, baseUrl, useBinaryFormat: false, useHttpGet: true }),
  "Connect, JSON": (baseUrl) => createConnect({ ...OPTIONS, baseUrl, useBinaryFormat: false }),
  "gRPC-Web": (baseUrl) => createGrpcWeb({ ...OPTIONS, baseUrl, useBinaryFormat: true }),
};

// Connect's client leaves the body of an answer that it gave up for the runtime to collect.
const LEAVES_A_BODY = { sanitizeResources: false };

Deno.test("one store by REST, Connect, gRPC-Web and etcd's paths", LEAVES_A_BODY, async (t) => {
  await using product = await startProduct();
  const base = `${product.url}/api/v1/kv`;
  for (const [name, connect] of Object.entries(TRANSPORTS)) {
    await t.step(name, async () => {
      const transport = connect(product.url);
      const kv = createClient(KeyValueService, transport);
      const key = bytes(`greeting/${name}`);
      const { modRevision } = await kv.put({ key, value: bytes("hello") });
      requests.length = 0;
      const { entry } = await kv.get({ key });
      assertEquals([text(entry!.value), entry!.modRevision], ["hello", modRevision]);
      assertEquals(requests, [name.includes("GET") ? "GET" : "POST"]);

      const rest = await fetch(`${base}/greeting/${encodeURIComponent(name)}`);
      assertEquals([await rest.text(), rest.headers.get("etag")], ["hello", `"${modRevision}"`]);
      const { kvs } = await createClient(KV, transport).range({ key });
      assertEquals(kvs.map((each) => [text(each.value), each.modRevision]), [["hello", modRevision]]);

      const none = await assertRejects(() => kv.get({ key: bytes("none") }), ConnectError) as ConnectError;
      assertEquals(none.code, Code.NotFound);
      const bad = await assertRejects(() => kv.put({ value: key }), ConnectError) as ConnectError;
      assertEquals(bad.code, Code.InvalidArgument);
    });

    await t.step(`${name}: a watch`, async () => {
      const leave = new AbortController();
      const kv = createClient(KeyValueService, connect(product.url));
      const key = bytes(`watched/${name}`);
      const { modRevision } = await kv.put({ key, value: bytes("1") });
      const changes = kv.watch({ key, startRevision: modRevision }, { signal: leave.signal })[
        Symbol.asyncIterator
      ]();
      const values: string[] = [];
      while (values.length < 2) {
        const next = await changes.next();
        assert(next.done !== true);
        for (const { entry } of next.value.changes) {
          values.push(text(entry!.value));
          if (values.length === 1) await kv.put({ key, value: bytes("2") });
        }
      }
      assertEquals(values, ["1", "2"]);
      leave.abort();
      await assertRejects(() => changes.next(), ConnectError);
    });

    await t.step(`${name}: etcd's watch at half duplex`, async () => {
      const watch = createClient(Watch, connect(product.url));
      const leave = new AbortController();
      async function* one() {
        yield {
          requestUnion: { case: "createRequest" as const, value: { key: bytes("x"), rangeEnd: bytes("y") } },
        };
      }
      const answers = watch.watch(one(), { signal: leave.signal })[Symbol.asyncIterator]();
      assertEquals((await answers.next()).value?.created, true);
      leave.abort();
      await assertRejects(async () => {
        for (let next = await answers.next(); next.done !== true;) next = await answers.next();
      }, ConnectError);
    });
  }

  await t.step("lines of JSON", async () => {
    const key = `${base}/lines`;
    await (await fetch(key, { method: "PUT", body: "1" })).body?.cancel();
    const response = await fetch(`${key}?watch=true&startRevision=1`, {
      headers: { accept: "application/x-ndjson" },
    });
    assertEquals(response.headers.get("content-type"), "application/x-ndjson");
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let lines = "";
    while (!lines.includes("KIND_PUT")) lines += (await reader.read()).value ?? "";
    await reader.cancel();
    const change = lines.split("\n").find((line) => line.includes("KIND_PUT"))!;
    assertEquals(atob(JSON.parse(change).changes[0].entry.value), "1");
  });

  await t.step("figures are told by RPC", async () => {
    const metrics = await (await fetch(`${product.url}/metrics`)).text();
    assert(metrics.includes('route="/aetherflow.kv.v1.KeyValueService/Put"'));
  });
  assertEquals(await product.stop(), 0);
});
