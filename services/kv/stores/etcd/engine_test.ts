/** The adapter on real etcd processes: what it answers, and what it does when they die, stop or change their leader. */
import type { DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, type DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextValues, type HandlerContext } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  Auth,
  KV,
  Lease,
  type LeaseKeepAliveRequest,
  LeaseKeepAliveRequestSchema,
  type LeaseKeepAliveResponse,
  Maintenance,
  Watch,
  type WatchRequest,
  WatchRequestSchema,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { BINARIES, requireBinary, startEtcd } from "../../../../tests/support/server.ts";
import { createSeededRandom, randomFraction } from "../../../runtime/random.ts";
import { type EtcdTlsTexts, kvConfigSchema } from "../../config.ts";
import { KvError, type KvErrorKind } from "../../errors.ts";
import { prefixRange } from "../../key.ts";
import type { PutOp } from "../../txn.ts";
import { type EtcdEngine, openEtcdEngine } from "./mod.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);
const NOBODY = { user: undefined };

function open(
  endpoints: readonly string[],
  settings: Record<string, unknown> = {},
  tlsTexts?: EtcdTlsTexts,
): EtcdEngine & Disposable {
  const random = createSeededRandom(1);
  const engine = openEtcdEngine({
    config: kvConfigSchema.parse({ engine: "etcd", etcd: { endpoints, ...settings } }),
    ...(tlsTexts === undefined ? {} : { tlsTexts }),
    clock: { now: () => performance.now() },
    fraction: () => randomFraction(random),
    log: { info() {}, warn() {} },
  });
  return { ...engine, [Symbol.dispose]: () => engine.close() };
}

function putOf(key: string, value: string, options: Partial<PutOp> = {}): PutOp {
  return {
    kind: "put",
    key: bytes(key),
    value: bytes(value),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
    ...options,
  };
}

function handlerOf(engine: EtcdEngine, method: DescMethod) {
  const [, impl] = engine.services.find(([service]) => service === method.parent as DescService)!;
  return (impl as unknown as Record<string, (request: unknown, context: HandlerContext) => unknown>)[
    method.localName
  ]!;
}

function contextOf(
  method: DescMethod,
  signal: AbortSignal,
  headers: Record<string, string> = {},
): HandlerContext {
  return {
    service: method.parent,
    method,
    protocolName: "test",
    requestMethod: "POST",
    url: "",
    signal,
    timeoutMs: () => undefined,
    requestHeader: new Headers(headers),
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    values: createContextValues(),
  };
}

/** Calls a forwarded unary method. */
async function call<M extends DescMethod>(
  engine: EtcdEngine,
  method: M,
  request: MessageInitShape<M["input"]>,
  headers: Record<string, string> = {},
): Promise<MessageShape<M["output"]>> {
  const context = contextOf(method, new AbortController().signal, headers);
  return await handlerOf(engine, method)(create(method.input, request), context) as MessageShape<M["output"]>;
}

/** A stream of requests that stays open, as a client's half does. */
function openRequests<T>() {
  const waiting: T[] = [];
  let wake = () => {};
  async function* all(): AsyncGenerator<T> {
    for (;;) {
      const next = waiting.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  }
  return {
    requests: all(),
    send(request: T) {
      waiting.push(request);
      wake();
    },
  };
}

function watchOn(engine: EtcdEngine) {
  const abort = new AbortController();
  const { requests, send } = openRequests<WatchRequest>();
  const answers = handlerOf(engine, Watch.method.watch)(
    requests,
    contextOf(Watch.method.watch, abort.signal),
  ) as AsyncGenerator<WatchResponse>;
  return {
    send: (request: MessageInitShape<typeof WatchRequestSchema>) => send(create(WatchRequestSchema, request)),
    async next(): Promise<WatchResponse> {
      const { value, done } = await answers.next();
      assert(done !== true, "the watch ended");
      return value;
    },
    close: () => abort.abort(),
  };
}

/** Puts until it is done, as a client does whose put failed without an answer. */
async function putForSure(engine: EtcdEngine, op: PutOp): Promise<number> {
  const api = engine.backend.as(NOBODY);
  for (;;) {
    try {
      return (await api.put(op)).revision;
    } catch (error) {
      const kinds: KvErrorKind[] = ["clusterUnavailable", "clusterTimeout", "clusterFailed"];
      if (!(error instanceof KvError) || !kinds.includes(error.kind)) throw error;
    }
  }
}

async function kindOf(action: unknown): Promise<KvErrorKind> {
  const error = await assertRejects(() => Promise.resolve(action));
  assertInstanceOf(error, KvError);
  return error.kind;
}

Deno.test("EtcdBackend does what KvApi says", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  using engine = open([etcd.address]);
  const api = engine.backend.as(NOBODY);

  await t.step("put, range and delete, with and without a condition", async () => {
    const put = await api.put(putOf("a", "1"), 0);
    assertEquals([put.version, put.prevKv], [1, undefined]);
    assertEquals(await kindOf(api.put(putOf("a", "2"), 0)), "revisionMismatch");
    const second = await api.put(putOf("a", "2", { prevKv: true }), put.revision);
    assertEquals([second.version, text(second.prevKv?.value)], [2, "1"]);
    const { kvs, count, revision } = await api.range({ key: bytes("a"), range: "single" });
    assertEquals([text(kvs[0]?.value), kvs[0]?.modRevision, count, revision], [
      "2",
      second.revision,
      1,
      second.revision,
    ]);
    const older = await api.range({ key: bytes("a"), range: "single", revision: put.revision });
    assertEquals(text(older.kvs[0]?.value), "1");
    assertEquals(
      await kindOf(api.range({ key: bytes("a"), range: "single", revision: 1_000_000 })),
      "futureRevision",
    );
    const op = { kind: "delete", key: bytes("a"), range: "single", prevKv: true } as const;
    assertEquals(await kindOf(api.delete(op, put.revision)), "revisionMismatch");
    const deleted = await api.delete(op, second.revision);
    assertEquals([deleted.deleted, text(deleted.prevKvs[0]?.value)], [1, "2"]);
    assertEquals((await api.delete(op)).deleted, 0);
    assertEquals(engine.backend.revision, deleted.revision);
    assertEquals(await kindOf(api.put(putOf("", "1"))), "emptyKey");
    assertEquals(await kindOf(api.put(putOf("a", "1", { lease: 99n }))), "leaseNotFound");
  });

  await t.step("list in pages of one revision", async () => {
    for (let i = 0; i < 5; i++) await api.put(putOf(`p/${i}`, "x".repeat(i)));
    const query = { prefix: bytes("p/"), pageSize: 2, keysOnly: false };
    const first = await api.list({ ...query, pageToken: "" });
    await api.put(putOf("p/9", "later"));
    const second = await api.list({ ...query, pageToken: first.nextPageToken });
    const third = await api.list({ ...query, pageToken: second.nextPageToken });
    const keys = [first, second, third].map((page) => page.entries.map((kv) => text(kv.key)));
    assertEquals(keys, [["p/0", "p/1"], ["p/2", "p/3"], ["p/4"]]);
    assertEquals([first.count, second.count, third.count], [5, 5, 5]);
    assertEquals(third.nextPageToken, "");
  });

  await t.step("history of the key since it was created", async () => {
    for (const value of ["1", "2", "3"]) await api.put(putOf("h", value));
    const page = await api.history(bytes("h"), Infinity, 2);
    assertEquals([page.changes.map(({ kv }) => text(kv.value)), page.more], [["3", "2"], true]);
    const rest = await api.history(bytes("h"), page.changes[1]!.kv.modRevision, 2);
    assertEquals([rest.changes.map(({ kv }) => text(kv.value)), rest.more], [["1"], false]);
  });

  await t.step("transactions with everything in them", async () => {
    const result = await api.txn({
      compares: [{ key: bytes("t"), range: "single", target: "version", result: "equal", operand: 0 }],
      success: [
        putOf("t", "1"),
        {
          kind: "txn",
          txn: { compares: [], success: [putOf("u", "2", { ttlMs: 90_000 })], failure: [putOf("v", "3")] },
        },
        { kind: "range", query: { key: bytes("t"), range: prefixRange(bytes("t")) }, hasValidSort: true },
      ],
      failure: [],
    });
    assertEquals([result.succeeded, result.results.map(({ kind }) => kind)], [true, ["put", "txn", "range"]]);
    const { kvs } = await api.range({ key: bytes("u"), range: "single" });
    const leftMs = await api.leaseTtlMs(kvs[0]!.lease);
    assert(leftMs !== undefined && leftMs > 80_000 && leftMs <= 90_000, `${leftMs}`);
    assertEquals(
      await kindOf(api.txn({ compares: [], success: [putOf("a", "1"), putOf("a", "2")], failure: [] })),
      "duplicateKey",
    );
    assertEquals(await api.leaseTtlMs(12_345n), undefined);
  });

  await t.step("transact loses no increment of writers who overtake one another", async () => {
    const increment = () =>
      api.transact([bytes("n")], ([found]) => {
        const next = Number(text(found?.value) ?? 0) + 1;
        return { writes: [putOf("n", String(next), { ttlMs: 60_000 })], result: next };
      });
    const results = await Promise.all(Array.from({ length: 10 }, increment));
    assertEquals(results.sort((a, b) => a - b), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const error = await assertRejects(() =>
      api.transact([bytes("n")], () => {
        throw new TypeError("no");
      })
    );
    assertInstanceOf(error, TypeError);
  });

  await t.step("leases of puts that were not done are given up", async () => {
    const before = (await call(engine, Lease.method.leaseLeases, {})).leases.length;
    assertEquals(await kindOf(api.put(putOf("n", "x", { ttlMs: 60_000 }), 1)), "revisionMismatch");
    for (;;) {
      const { leases } = await call(engine, Lease.method.leaseLeases, {});
      if (leases.length <= before) break;
    }
  });

  await t.step("a watch tells of changes and of its end", async () => {
    let wake = () => {};
    const watch = api.openWatch(() => wake());
    const take = async () => {
      for (;;) {
        const answer = watch.take();
        if (answer !== undefined && answer !== "again") return answer;
        await new Promise<void>((resolve) => wake = resolve);
      }
    };
    watch.create({
      key: bytes("w/"),
      range: prefixRange(bytes("w/")),
      startRevision: 0,
      watchId: 0n,
      prevKv: true,
      progressNotify: false,
      fragmentBytes: 0,
      noPut: false,
      noDelete: false,
    });
    assertEquals((await take()).created, true);
    const { revision } = await api.put(putOf("w/1", "x"));
    const { events, revision: seen } = await take();
    assertEquals([events.map(({ kind, kv }) => `${kind} ${text(kv.key)}`), seen], [["put w/1"], revision]);
    await api.delete({ kind: "delete", key: bytes("w/1"), range: "single", prevKv: false });
    const gone = await take();
    assertEquals([gone.events[0]?.kind, text(gone.events[0]?.prevKv?.value)], ["delete", "x"]);
    watch.cancel(0n);
    assertEquals((await take()).canceled, true);
    watch.close();
    assertEquals(watch.isClosed, true);
  });

  await t.step("closed, it refuses, and streams end", async () => {
    const watch = watchOn(engine);
    watch.send({ requestUnion: { case: "createRequest", value: { key: bytes("a") } } });
    assertEquals((await watch.next()).created, true);
    const end = assertRejects(() => watch.next());
    engine.close();
    const error = await end;
    assertInstanceOf(error, ConnectError);
    assertEquals(error.code, Code.Unavailable);
    assertEquals(await kindOf(api.put(putOf("a", "1"))), "stopped");
  });
});

Deno.test("a forwarded watch and a keepalive outlive kill and restart of etcd", async (t) => {
  await using etcd = await startEtcd(t); // with fsync: what was acknowledged is there after the kill
  if (etcd === undefined) return;
  using engine = open([etcd.address], { requestTimeoutMs: 2_000 });
  const api = engine.backend.as(NOBODY);
  const watch = watchOn(engine);
  const range = { key: bytes("w/"), rangeEnd: prefixRange(bytes("w/")).end! };
  watch.send({ requestUnion: { case: "createRequest", value: { ...range, watchId: 9n } } });
  watch.send({ requestUnion: { case: "createRequest", value: { ...range, fragment: true } } });
  assertEquals([(await watch.next()).watchId, (await watch.next()).watchId], [9n, 0n]);

  const abort = new AbortController();
  const keepalives = openRequests<LeaseKeepAliveRequest>();
  const renewals = handlerOf(engine, Lease.method.leaseKeepAlive)(
    keepalives.requests,
    contextOf(Lease.method.leaseKeepAlive, abort.signal),
  ) as AsyncGenerator<LeaseKeepAliveResponse>;
  const { ID } = await call(engine, Lease.method.leaseGrant, { TTL: 600n });
  const renew = async (id: bigint) => {
    keepalives.send(create(LeaseKeepAliveRequestSchema, { ID: id }));
    return (await renewals.next()).value as LeaseKeepAliveResponse;
  };
  assertEquals((await renew(ID)).TTL, 600n);
  assertEquals((await renew(77n)).TTL, 0n);

  const written: string[] = [];
  const put = async (i: number) => written.push(`w/${i}@${(await api.put(putOf(`w/${i}`, "x"))).revision}`);
  for (let i = 0; i < 20; i++) await put(i);
  await etcd.kill();
  assertEquals(await kindOf(api.put(putOf("w/lost", "x"))), "clusterUnavailable");
  assertEquals(engine.health().ok, false);
  const waiting = renew(ID);
  await etcd.restart();
  assertEquals((await waiting).TTL, 600n);
  for (let i = 20; i < 40; i++) await put(i);
  assertEquals(engine.health(), { ok: true, detail: "" });

  const seen = new Map<bigint, string[]>([[0n, []], [9n, []]]);
  while ([...seen.values()].some((each) => each.length < written.length)) {
    const { watchId, events, created, canceled } = await watch.next();
    assertEquals([created, canceled], [false, false], "the client notices nothing");
    for (const { kv } of events) seen.get(watchId)!.push(`${text(kv?.key)}@${kv?.modRevision}`);
  }
  assertEquals(seen, new Map([[0n, written], [9n, written]]));
  watch.close();
  abort.abort();
  await renewals.return(undefined);
});

Deno.test("a stopped etcd meets deadlines, and is used again when it goes on", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  using engine = open([etcd.address], { requestTimeoutMs: 200, connectTimeoutMs: 100 });
  const api = engine.backend.as(NOBODY);
  await api.put(putOf("a", "1"));
  Deno.kill(etcd.pid, "SIGSTOP");
  try {
    const startedMs = performance.now();
    assertEquals(await kindOf(api.put(putOf("a", "2"))), "clusterTimeout");
    const kind = await kindOf(api.range({ key: bytes("a"), range: "single" }));
    assert(kind === "clusterTimeout" || kind === "clusterUnavailable", kind);
    assert(performance.now() - startedMs < 2_000, "far from any keepalive");
    assertEquals(engine.health().ok, false);
  } finally {
    Deno.kill(etcd.pid, "SIGCONT");
  }
  const revision = await putForSure(engine, putOf("a", "3"));
  assertEquals((await api.range({ key: bytes("a"), range: "single" })).kvs[0]?.modRevision, revision);
});

Deno.test("accounts: the adapter's own, one's own by token and by login; a token that ran out is renewed", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  {
    using engine = open([etcd.address]);
    await call(engine, Auth.method.userAdd, { name: "root", password: "secret" });
    await call(engine, Auth.method.userGrantRole, { user: "root", role: "root" });
    await call(engine, Auth.method.userAdd, { name: "joe", password: "pass" });
    await call(engine, Auth.method.roleAdd, { name: "readers" });
    await call(engine, Auth.method.roleGrantPermission, { name: "readers", perm: { key: bytes("a") } });
    await call(engine, Auth.method.userGrantRole, { user: "joe", role: "readers" });
    await call(engine, Auth.method.authEnable, {});
    assertEquals(await kindOf(engine.backend.as(NOBODY).put(putOf("a", "1"))), "userEmpty");
  }
  using engine = open([etcd.address], { username: "root", password: "secret" });
  await engine.backend.as(NOBODY).put(putOf("a", "1"));

  const joe = engine.backend.as(await engine.backend.login("joe", "pass"));
  assertEquals(text((await joe.range({ key: bytes("a"), range: "single" })).kvs[0]?.value), "1");
  assertEquals(await kindOf(joe.put(putOf("a", "2"))), "permissionDenied");
  assertEquals(await kindOf(engine.backend.login("joe", "wrong")), "authFailed");

  const { token } = await call(engine, Auth.method.authenticate, { name: "joe", password: "pass" });
  for (const name of ["token", "authorization"]) {
    const { kvs } = await call(engine, KV.method.range, { key: bytes("a") }, { [name]: token });
    assertEquals(kvs.length, 1);
    const error = await assertRejects(() =>
      call(engine, KV.method.put, { key: bytes("a") }, { [name]: token })
    );
    assertInstanceOf(error, ConnectError);
    assertEquals([error.code, error.rawMessage], [Code.PermissionDenied, "etcdserver: permission denied"]);
  }

  // All tokens are gone when authentication is turned off.
  await call(engine, Auth.method.authDisable, {});
  assertEquals((await engine.backend.as(NOBODY).range({ key: bytes("a"), range: "single" })).count, 1);
  await call(engine, Auth.method.authEnable, {});
  assertEquals((await engine.backend.as(NOBODY).range({ key: bytes("a"), range: "single" })).count, 1);
  assertEquals((await joe.range({ key: bytes("a"), range: "single" })).count, 1);
  const error = await assertRejects(() => call(engine, KV.method.range, { key: bytes("a") }, { token }));
  assertInstanceOf(error, ConnectError);
  assertEquals(error.code, Code.Unauthenticated, "a token of one's own is one's own to renew");
});

Deno.test({
  name: "a cluster of three: its leader is killed under writes and a watch, and nothing is lost or doubled",
  async fn(t) {
    if (!await requireBinary(t, BINARIES.etcd.name, BINARIES.etcd.debianPackage)) return;
    await using cluster = await startCluster();
    using engine = open(cluster.addresses, { requestTimeoutMs: 1_000 });
    const watch = watchOn(engine);
    const range = { key: bytes("w/"), rangeEnd: prefixRange(bytes("w/")).end! };
    watch.send({ requestUnion: { case: "createRequest", value: range } });
    assertEquals((await watch.next()).created, true);

    const lastRevision = new Map<string, number>();
    const write = async (from: number, to: number) => {
      for (let i = from; i < to; i++) {
        lastRevision.set(`w/${i}`, await putForSure(engine, putOf(`w/${i}`, "x")));
      }
    };
    await write(0, 30);
    const status = await call(engine, Maintenance.method.status, {});
    const killed = await cluster.kill(status.leader);
    await write(30, 60);
    const { ok, detail } = engine.health();
    assertEquals([ok, detail.includes(killed)], [true, true], detail);

    await write(60, 70);

    const seen = new Map<string, number>();
    let revision = 0;
    while (seen.size < lastRevision.size || [...seen].some(([key, at]) => lastRevision.get(key)! > at)) {
      const { events, canceled } = await watch.next();
      assertEquals(canceled, false);
      for (const { kv } of events) {
        assert(Number(kv!.modRevision) > revision, "in order, each once");
        revision = Number(kv!.modRevision);
        seen.set(text(kv!.key)!, revision);
      }
    }
    assertEquals(seen, lastRevision);
    watch.close();
  },
});

Deno.test({
  name: "a cluster that asks for certificates is reached with them, and with no others",
  async fn(t) {
    if (!await requireBinary(t, BINARIES.etcd.name, BINARIES.etcd.debianPackage)) return;
    if (!await requireBinary(t, "openssl", "openssl")) return;
    const folder = await Deno.makeTempDir({ prefix: "aetherflow-etcd-tls-" });
    const [port, peerPort] = freePorts(2);
    let child: Deno.ChildProcess | undefined;
    try {
      await makeCertificates(folder);
      const read = (name: string) => Deno.readTextFile(`${folder}/${name}.pem`);
      child = new Deno.Command("etcd", {
        args: [
          `--data-dir=${folder}/data`,
          `--listen-client-urls=https://127.0.0.1:${port}`,
          `--advertise-client-urls=https://127.0.0.1:${port}`,
          `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
          `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
          `--initial-cluster=default=http://127.0.0.1:${peerPort}`,
          `--cert-file=${folder}/server.pem`,
          `--key-file=${folder}/server.key.pem`,
          `--trusted-ca-file=${folder}/ca.pem`,
          "--client-cert-auth",
          "--unsafe-no-fsync",
          "--logger=zap",
        ],
        clearEnv: true,
        env: { PATH: Deno.env.get("PATH") ?? "" },
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      const texts = { ca: await read("ca"), cert: await read("client"), key: await read("client.key") };
      const endpoint = `https://127.0.0.1:${port}`;
      {
        using engine = open([endpoint], { connectTimeoutMs: 20_000, requestTimeoutMs: 20_000 }, texts);
        const { revision } = await engine.backend.as(NOBODY).put(putOf("a", "1"));
        assertEquals(
          (await engine.backend.as(NOBODY).range({ key: bytes("a"), range: "single" })).revision,
          revision,
        );
      }
      const short = { connectTimeoutMs: 300, requestTimeoutMs: 1_000 };
      for (const wrong of [{ ...texts, cert: undefined, key: undefined }, { ...texts, ca: undefined }]) {
        using engine = open([endpoint], short, wrong);
        assertEquals(await kindOf(engine.backend.as(NOBODY).put(putOf("a", "2"))), "clusterUnavailable");
      }
    } finally {
      child?.kill("SIGKILL");
      await child?.status;
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** Makes ca.pem, and server and client certificates of it with their keys. */
async function makeCertificates(folder: string): Promise<void> {
  const openssl = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command("openssl", { args, cwd: folder }).output();
    assert(success, new TextDecoder().decode(stderr));
  };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...key,
    "-keyout",
    "ca.key.pem",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=ca",
  );
  await Deno.writeTextFile(
    `${folder}/extensions`,
    "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
  );
  for (const name of ["server", "client"]) {
    await openssl("req", ...key, "-keyout", `${name}.key.pem`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    const issuer = ["-CA", "ca.pem", "-CAkey", "ca.key.pem", "-CAcreateserial"];
    const about = ["-days", "2", "-extfile", "extensions"];
    await openssl("x509", "-req", "-in", `${name}.csr`, ...issuer, ...about, "-out", `${name}.pem`);
  }
}

/** Three etcd processes that are one cluster, with a fast election. */
async function startCluster() {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-etcd-cluster-" });
  const ports = freePorts(6);
  const peers = [0, 1, 2].map((i) => `n${i}=http://127.0.0.1:${ports[i + 3]}`).join(",");
  const members = [0, 1, 2].map((i) => ({
    address: `127.0.0.1:${ports[i]}`,
    child: new Deno.Command("etcd", {
      args: [
        `--name=n${i}`,
        `--data-dir=${folder}/n${i}`,
        `--listen-client-urls=http://127.0.0.1:${ports[i]}`,
        `--advertise-client-urls=http://127.0.0.1:${ports[i]}`,
        `--listen-peer-urls=http://127.0.0.1:${ports[i + 3]}`,
        `--initial-advertise-peer-urls=http://127.0.0.1:${ports[i + 3]}`,
        `--initial-cluster=${peers}`,
        "--heartbeat-interval=30",
        "--election-timeout=300",
        "--unsafe-no-fsync",
        "--logger=zap",
      ],
      clearEnv: true,
      env: { PATH: Deno.env.get("PATH") ?? "" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn(),
    isKilled: false,
  }));
  const addresses = members.map(({ address }) => address);
  for (const address of addresses) {
    for (;;) {
      try {
        const health = await fetch(`http://${address}/health`);
        if ((await health.text()).includes('"health":"true"')) break;
      } catch {
        // Nobody listens yet.
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  async function end(member: typeof members[number]): Promise<void> {
    if (member.isKilled) return;
    member.isKilled = true;
    member.child.kill("SIGKILL");
    await member.child.status;
  }
  return {
    addresses,
    /** Kills the member with this id and says where it was. */
    async kill(id: bigint): Promise<string> {
      for (const member of members) {
        using engine = open([member.address]);
        const { header } = await call(engine, Maintenance.method.status, {});
        if (header?.memberId !== id) continue;
        await end(member);
        return member.address;
      }
      throw new Error(`no member has the id ${id}`);
    },
    async [Symbol.asyncDispose]() {
      for (const member of members) await end(member);
      await Deno.remove(folder, { recursive: true });
    },
  };
}

function freePorts(count: number): number[] {
  const listeners = Array.from({ length: count }, () => Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const ports = listeners.map((listener) => listener.addr.port);
  for (const listener of listeners) listener.close();
  return ports;
}
