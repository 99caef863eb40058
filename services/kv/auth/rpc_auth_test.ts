import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { Permission_Type } from "$proto/authpb/auth_pb.ts";
import {
  Auth,
  KV,
  Lease,
  Watch,
  type WatchCreateRequest,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchCreateRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { KvError } from "../errors.ts";
import { createKvModule } from "../mod.ts";
import { serveAll } from "../served.ts";
import { permission, plainHasher } from "../testing/auth.ts";
import { type Disk, ManualStore, newDisk } from "../testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) => new TextDecoder().decode(value);
const key = bytes("b");

/** The services behind RPC, with the users root (password "root") and ann ("a"), who has the role "ann's". */
async function open({ disk = newDisk(), enabled = true, users = true, config = {} } = {}) {
  const clock = createManualClock();
  const module = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(disk, replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config: kvConfigSchema.parse(config),
    random: createSeededRandom(11),
    log: { info: () => {}, error: () => {} },
    clock,
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
    passwords: plainHasher(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  serveAll(server, module.handlers);
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const auth = createClient(Auth, transport);
  if (users) {
    await auth.userAdd({ name: "root", password: "root" });
    await auth.userGrantRole({ user: "root", role: "root" });
    await auth.userAdd({ name: "ann", password: "a" });
    await auth.roleAdd({ name: "ann's" });
    await auth.userGrantRole({ user: "ann", role: "ann's" });
    if (enabled) await auth.authEnable({});
  }
  const tokenOf = async (name: string, password: string) => ({
    headers: { token: (await auth.authenticate({ name, password })).token },
  });
  return {
    ...module,
    clock,
    rpcAuth: auth,
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    lease: createClient(Lease, transport),
    keyValue: createClient(KeyValueService, transport),
    tokenOf,
    /** Gives ann's role permissions in words. */
    async grant(...words: string[]) {
      const root = await tokenOf("root", "root");
      for (const each of words) {
        await auth.roleGrantPermission({ name: "ann's", perm: permission(each) }, root);
      }
    },
    async [Symbol.asyncDispose]() {
      await module.close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

async function refusal(action: () => Promise<unknown>): Promise<[Code, string]> {
  const error = await assertRejects(action);
  assertInstanceOf(error, ConnectError);
  return [error.code, error.rawMessage];
}

const EMPTY: [Code, string] = [Code.InvalidArgument, "etcdserver: user name is empty"];
const INVALID: [Code, string] = [Code.Unauthenticated, "etcdserver: invalid auth token"];
const DENIED: [Code, string] = [Code.PermissionDenied, "etcdserver: permission denied"];

type Create = MessageInitShape<typeof WatchCreateRequestSchema>;

/** The first answers of a watch stream, which ends when they are there. */
async function answersTo(
  watch: Client<typeof Watch>,
  creates: readonly Create[],
  headers: HeadersInit,
  wanted: number,
): Promise<WatchResponse[]> {
  const done = new AbortController();
  async function* requests() {
    for (const value of creates) {
      yield { requestUnion: { case: "createRequest" as const, value: value as WatchCreateRequest } };
    }
    await new Promise((resolve) => done.signal.addEventListener("abort", resolve));
  }
  const answers: WatchResponse[] = [];
  try {
    for await (const answer of watch.watch(requests(), { headers, signal: done.signal })) {
      answers.push(answer);
      if (answers.length === wanted) break;
    }
  } finally {
    done.abort();
  }
  return answers;
}

Deno.test("Auth adds, lists, grants, revokes and deletes with etcd's answers", async () => {
  await using bench = await open({ enabled: false });
  const { rpcAuth } = bench;
  const status = await rpcAuth.authStatus({});
  assertEquals([status.enabled, status.authRevision, status.header?.revision], [false, 6n, 1n]);
  assertEquals((await rpcAuth.userList({})).users, ["ann", "root"]);
  assertEquals((await rpcAuth.roleList({})).roles, ["ann's"]);
  assertEquals((await rpcAuth.userGet({ name: "ann" })).roles, ["ann's"]);
  const perm = permission("readwrite a c");
  await rpcAuth.roleGrantPermission({ name: "ann's", perm });
  const kept = (await rpcAuth.roleGet({ role: "ann's" })).perm;
  assertEquals(kept.map(({ permType, key, rangeEnd }) => [permType, text(key), text(rangeEnd)]), [
    [Permission_Type.READWRITE, "a", "c"],
  ]);
  await rpcAuth.roleRevokePermission({ role: "ann's", key: perm.key, rangeEnd: perm.rangeEnd });
  assertEquals((await rpcAuth.roleGet({ role: "ann's" })).perm, []);
  await rpcAuth.userRevokeRole({ name: "ann", role: "ann's" });
  await rpcAuth.roleDelete({ role: "ann's" });
  await rpcAuth.userDelete({ name: "ann" });
  assertEquals((await rpcAuth.authStatus({})).authRevision, 11n);
  const cases: [Code, string, () => Promise<unknown>][] = [
    [
      Code.FailedPrecondition,
      "user name already exists",
      () => rpcAuth.userAdd({ name: "root", password: "x" }),
    ],
    [Code.InvalidArgument, "user name is empty", () => rpcAuth.userAdd({})],
    [Code.InvalidArgument, "permission not given", () => rpcAuth.roleGrantPermission({ name: "r" })],
    [Code.FailedPrecondition, "role name not found", () => rpcAuth.roleGet({ role: "r" })],
    [Code.FailedPrecondition, "authentication is not enabled", () => rpcAuth.authenticate({ name: "root" })],
  ];
  for (const [code, words, action] of cases) {
    assertEquals(await refusal(action), [code, `etcdserver: ${words}`]);
  }
});

Deno.test("Authenticate gives a token for the right password, and etcd's refusals otherwise", async () => {
  await using bench = await open();
  const { rpcAuth, tokenOf, clock } = bench;
  const root = await tokenOf("root", "root");
  await rpcAuth.userAdd({ name: "cert", options: { noPassword: true } }, root);
  const wrong: [Code, string] = [
    Code.InvalidArgument,
    "etcdserver: authentication failed, invalid user ID or password",
  ];
  for (const [name, password] of [["ann", "b"], ["ann", ""], ["nobody", "a"], ["", ""]]) {
    assertEquals(await refusal(() => tokenOf(name!, password!)), wrong, name);
  }
  assertEquals(await refusal(() => tokenOf("cert", "")), [
    Code.Unknown,
    "auth: authentication failed, password was given for no password user",
  ]);
  const { token } = await rpcAuth.authenticate({ name: "ann", password: "a" });
  assertMatch(token, /^[A-Za-z]{16}\.\d+$/);
  // Any header of the two, and the one without the scheme.
  for (const headers of [{ token }, { authorization: token }, { authorization: `Bearer ${token}` }]) {
    assertEquals((await rpcAuth.userGet({ name: "ann" }, { headers })).roles, ["ann's"]);
  }
  clock.advance(300_000);
  assertEquals(await refusal(() => rpcAuth.userGet({ name: "ann" }, { headers: { token } })), INVALID);
});

Deno.test("a password that came hashed is kept if it is bcrypt", async () => {
  await using bench = await open({ enabled: false });
  const { rpcAuth } = bench;
  const hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  await rpcAuth.userAdd({ name: "hashed", hashedPassword: btoa(hash) });
  await rpcAuth.userChangePassword({ name: "hashed", hashedPassword: btoa(hash) });
  for (const hashedPassword of ["not base64!", btoa("no hash")]) {
    assertEquals((await refusal(() => rpcAuth.userAdd({ name: "x", hashedPassword })))[0], Code.Unknown);
  }
});

Deno.test("nobody but root may change users and roles once authentication is enabled", async () => {
  await using bench = await open();
  const { rpcAuth, tokenOf } = bench;
  const ann = await tokenOf("ann", "a");
  const attempts: ((options?: { headers: HeadersInit }) => Promise<unknown>)[] = [
    (options) => rpcAuth.userAdd({ name: "mallory", password: "m" }, options),
    (options) => rpcAuth.userGrantRole({ user: "ann", role: "root" }, options),
    (options) => rpcAuth.userChangePassword({ name: "root", password: "m" }, options),
    (options) => rpcAuth.roleGrantPermission({ name: "ann's", perm: permission("readwrite \0 \0") }, options),
    (options) => rpcAuth.authDisable({}, options),
    (options) => rpcAuth.userList({}, options),
    (options) => rpcAuth.authEnable({}, options),
  ];
  for (const attempt of attempts) {
    assertEquals(await refusal(() => attempt()), EMPTY, attempt.toString());
    assertEquals(
      await refusal(() => attempt({ headers: { token: "nonsense.1" } })),
      INVALID,
      attempt.toString(),
    );
    assertEquals(await refusal(() => attempt(ann)), DENIED, attempt.toString());
  }
  assertEquals(bench.auth.userNames(), ["ann", "root"]);
});

Deno.test("tokens end with the user, the password and authentication", async () => {
  await using bench = await open();
  const { rpcAuth, kv, tokenOf, grant } = bench;
  await grant("readwrite \0 \0");
  let root = await tokenOf("root", "root");
  const use = (options: { headers: HeadersInit }) => kv.range({ key }, options);

  const before = await tokenOf("ann", "a");
  await use(before);
  await rpcAuth.userChangePassword({ name: "ann", password: "b" }, root);
  assertEquals(await refusal(() => use(before)), INVALID);

  const changed = await tokenOf("ann", "b");
  await use(changed);
  await rpcAuth.userDelete({ name: "ann" }, root);
  assertEquals(await refusal(() => use(changed)), INVALID);
  await rpcAuth.userAdd({ name: "ann", password: "b" }, root);
  await rpcAuth.userGrantRole({ user: "ann", role: "ann's" }, root);
  assertEquals(await refusal(() => use(changed)), INVALID, "the name is another user's now");

  await rpcAuth.authDisable({}, root);
  await use({ headers: { token: "whatever" } });
  await rpcAuth.authEnable({});
  assertEquals(await refusal(() => use(root)), INVALID);
  root = await tokenOf("root", "root");
  await use(root);
});

Deno.test("users survive a restart, tokens do not, and neither can be read as keys", async () => {
  const disk: Disk = newDisk();
  let ann: { headers: { token: string } };
  {
    await using first = await open({ disk });
    await first.grant("readwrite a c");
    ann = await first.tokenOf("ann", "a");
    await first.kv.put({ key }, ann);
  }
  await using second = await open({ disk, users: false });
  assertEquals(second.auth.isEnabled, true);
  assertEquals(await refusal(() => second.kv.range({ key }, ann)), INVALID);
  const again = await second.tokenOf("ann", "a");
  assertEquals((await second.kv.range({ key }, again)).kvs.length, 1);
  assertEquals(await refusal(() => second.kv.range({ key: bytes("d") }, again)), DENIED);
  const root = await second.tokenOf("root", "root");
  const all = await second.kv.range({ key: bytes("\0"), rangeEnd: bytes("\0") }, root);
  assertEquals(all.kvs.map((kv) => text(kv.key)), ["b"]);
  assertEquals(second.auth.revision, 7);
});

Deno.test("a refused write leaves no trace and takes no revision", async () => {
  await using bench = await open();
  const { kv, tokenOf, grant } = bench;
  await grant("read b");
  const ann = await tokenOf("ann", "a");
  assertEquals(await refusal(() => kv.put({ key, value: key }, ann)), DENIED);
  assertEquals(await refusal(() => kv.deleteRange({ key }, ann)), DENIED);
  const op = { request: { case: "requestPut" as const, value: { key, value: key } } };
  assertEquals(await refusal(() => kv.txn({ success: [op] }, ann)), DENIED);
  const { header, count } = await kv.range({ key }, ann);
  assertEquals([header?.revision, count], [1n, 0n]);
});

Deno.test("a nested transaction does not get around the permissions of its operations", async () => {
  await using bench = await open();
  const { kv, tokenOf, grant } = bench;
  const root = await tokenOf("root", "root");
  await kv.put({ key: bytes("secret"), value: bytes("s") }, root);
  await grant("readwrite b");
  const ann = await tokenOf("ann", "a");
  const read = { request: { case: "requestRange" as const, value: { key: bytes("secret") } } };
  let txn: { success: unknown[] } = { success: [read] };
  for (let depth = 0; depth < 5; depth++) {
    assertEquals(await refusal(() => kv.txn(txn as never, ann)), DENIED, `depth ${depth}`);
    txn = { success: [{ request: { case: "requestTxn", value: txn } }] };
  }
  // The branch that is not taken counts as well, or its choice would tell.
  const compare = [{ key, target: 0, result: 0, targetUnion: { case: "version" as const, value: 0n } }];
  assertEquals(await refusal(() => kv.txn({ compare, failure: [read] }, ann)), DENIED);
});

Deno.test("prev_kv within a transaction does not read what its put may only write", async () => {
  await using bench = await open();
  const { kv, tokenOf, grant } = bench;
  const root = await tokenOf("root", "root");
  await kv.put({ key, value: bytes("secret") }, root);
  await grant("write b");
  const ann = await tokenOf("ann", "a");
  const success = (prevKv: boolean) => ({
    success: [{ request: { case: "requestPut" as const, value: { key, value: bytes("x"), prevKv } } }],
  });
  assertEquals(await refusal(() => kv.txn(success(true), ann)), DENIED);
  assertEquals(await refusal(() => kv.put({ key, prevKv: true }, ann)), DENIED);
  assertEquals(await refusal(() => kv.deleteRange({ key, prevKv: true }, ann)), DENIED);
  await kv.txn(success(false), ann);
});

Deno.test("a lease with keys that the user may not write can be neither joined nor ended", async () => {
  await using bench = await open();
  const { kv, lease, tokenOf, grant } = bench;
  const root = await tokenOf("root", "root");
  const { ID } = await lease.leaseGrant({ TTL: 100n }, root);
  await kv.put({ key: bytes("secret"), lease: ID }, root);
  await grant("readwrite b");
  const ann = await tokenOf("ann", "a");
  assertEquals(await refusal(() => kv.put({ key, lease: ID }, ann)), DENIED);
  const success = [{ request: { case: "requestPut" as const, value: { key, lease: ID } } }];
  assertEquals(await refusal(() => kv.txn({ success }, ann)), DENIED);
  assertEquals(await refusal(() => lease.leaseRevoke({ ID }, ann)), DENIED);
  assertEquals(await refusal(() => lease.leaseTimeToLive({ ID, keys: true }, ann)), DENIED);
  assertEquals(await refusal(() => lease.leaseLeases({}, ann)), DENIED);
  async function* keepAlive() {
    yield { ID };
    await new Promise(() => {});
  }
  assertEquals(
    await refusal(async () => {
      for await (const _ of lease.leaseKeepAlive(keepAlive(), ann)) assert(false, "it was kept alive");
    }),
    DENIED,
  );
  assertEquals((await lease.leaseTimeToLive({ ID }, ann)).keys, []);
  assertEquals(await refusal(() => lease.leaseGrant({ TTL: 100n })), EMPTY);
  // A lease of the user's own keys is the user's.
  const own = await lease.leaseGrant({ TTL: 100n }, ann);
  await kv.put({ key, lease: own.ID }, ann);
  await lease.leaseRevoke({ ID: own.ID }, ann);
});

Deno.test("watches are refused in their answers, as etcd does, and the stream goes on", async () => {
  await using bench = await open();
  const { watch, tokenOf, grant } = bench;
  await grant("read b", "read x z");
  const ann = await tokenOf("ann", "a");
  const reason = (code: string, words: string) => `rpc error: code = ${code} desc = etcdserver: ${words}`;
  const cases: [HeadersInit, Create, string | undefined][] = [
    [{}, { key }, reason("InvalidArgument", "user name is empty")],
    [{ token: "nonsense.1" }, { key }, reason("Unauthenticated", "invalid auth token")],
    [ann.headers, { key: bytes("c") }, reason("PermissionDenied", "permission denied")],
    [ann.headers, { key, rangeEnd: bytes("\0") }, reason("PermissionDenied", "permission denied")],
    [ann.headers, { key, rangeEnd: bytes("c") }, reason("PermissionDenied", "permission denied")],
    [ann.headers, { rangeEnd: bytes("\0") }, reason("PermissionDenied", "permission denied")],
    [
      ann.headers,
      { key: bytes("\0"), rangeEnd: bytes("\0") },
      reason("PermissionDenied", "permission denied"),
    ],
    [
      ann.headers,
      { key: bytes("x"), rangeEnd: bytes("\0") },
      reason("PermissionDenied", "permission denied"),
    ],
    [
      ann.headers,
      { key: bytes("y"), startRevision: -1n },
      "etcdserver: mvcc: required revision has been compacted",
    ],
    [ann.headers, { key }, undefined],
    [ann.headers, { key: bytes("x"), rangeEnd: bytes("z") }, undefined],
  ];
  for (const [headers, create, cancelReason] of cases) {
    // A watch that is allowed comes after, on the same stream.
    const [answer] = await answersTo(watch, [create, { key }], headers, 2);
    const told = [answer!.created, answer!.canceled, answer!.watchId, answer!.cancelReason];
    const expected = cancelReason === undefined ? [true, false, 0n, ""] : [true, true, -1n, cancelReason];
    assertEquals(told, expected, Deno.inspect(create));
  }
});

Deno.test("a user of one key hears of no later key", async () => {
  await using bench = await open();
  const { kv, watch, keyValue, tokenOf, grant } = bench;
  await grant("read b");
  const [root, ann] = [await tokenOf("root", "root"), await tokenOf("ann", "a")];
  for (const name of ["a", "b", "b\0", "ba", "c"]) {
    await kv.put({ key: bytes(name), value: bytes("1") }, root);
  }
  const answers = await answersTo(
    watch,
    [{ key, startRevision: 1n }, { key, rangeEnd: bytes("\0"), startRevision: 1n }],
    ann.headers,
    3,
  );
  const events = answers.flatMap((answer) => answer.events.map((event) => text(event.kv?.key)));
  assertEquals(events, ["b"]);
  const refused = await refusal(async () => {
    for await (const _ of keyValue.watch({ prefix: key, startRevision: 1n }, ann)) {
      assert(false, "it was heard");
    }
  });
  assertEquals(refused, DENIED);
});

Deno.test("REST's service asks for the same permissions, and for credentials with 401's code", async () => {
  await using bench = await open();
  const { keyValue, kv, tokenOf, grant } = bench;
  const root = await tokenOf("root", "root");
  await kv.put({ key: bytes("secret"), value: bytes("s") }, root);
  await grant("readwrite b", "read r", "write w", "read p/ p0");
  const ann = await tokenOf("ann", "a");
  const calls: [ok: boolean, (options?: { headers: HeadersInit }) => Promise<unknown>][] = [
    [false, (options) => keyValue.get({ key: bytes("secret") }, options)],
    [false, (options) => keyValue.put({ key: bytes("r"), value: key }, options)],
    [true, (options) => keyValue.put({ key: bytes("w"), value: key }, options)],
    [false, (options) => keyValue.put({ key: bytes("w"), value: key, ifModRevision: 1n }, options)],
    [false, (options) => keyValue.delete({ key: bytes("r") }, options)],
    [false, (options) => keyValue.list({ prefix: bytes("") }, options)],
    [false, (options) => keyValue.list({ prefix: bytes("p") }, options)],
    [true, (options) => keyValue.list({ prefix: bytes("p/") }, options)],
    [false, (options) => keyValue.history({ key: bytes("w") }, options)],
    [true, (options) => keyValue.history({ key: bytes("r") }, options)],
    [true, (options) => keyValue.put({ key, value: key }, options)],
    [true, (options) => keyValue.get({ key }, options)],
  ];
  const absent: [Code, string] = [Code.Unauthenticated, "kv: authentication is required"];
  for (const [ok, call] of calls) {
    assertEquals(await refusal(() => call()), absent, call.toString());
    assertEquals(await refusal(() => call({ headers: { authorization: "x.1" } })), INVALID, call.toString());
    if (ok) await call(ann);
    else assertEquals(await refusal(() => call(ann)), DENIED, call.toString());
  }
});

Deno.test("KvApi, which Redis uses, checks every method of a connection that stays", async () => {
  await using bench = await open();
  const { backend, rpcAuth, tokenOf, grant } = bench;
  await grant("read r", "write w", "readwrite b");
  const api = backend.as(await backend.login("ann", "a"));
  const put = (name: string) => ({
    kind: "put" as const,
    key: bytes(name),
    value: key,
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  });
  const kind = async (call: () => unknown) => {
    try {
      await call();
      return "ok";
    } catch (error) {
      return (error as KvError).kind;
    }
  };
  const single = (name: string) => ({ key: bytes(name), range: "single" as const });
  const watching = (name: string) => {
    const watch = api.openWatch(() => {});
    try {
      watch.create({
        ...single(name),
        startRevision: 0,
        watchId: 0n,
        prevKv: false,
        progressNotify: false,
        fragmentBytes: 0,
        noPut: false,
        noDelete: false,
      });
    } finally {
      watch.close();
    }
  };
  const calls: [expected: string, () => unknown][] = [
    ["ok", () => api.range(single("r"))],
    ["permissionDenied", () => api.range(single("w"))],
    ["ok", () => api.put(put("w"))],
    ["permissionDenied", () => api.put(put("r"))],
    ["permissionDenied", () => api.delete({ kind: "delete", ...single("r"), prevKv: false })],
    ["ok", () => api.delete({ kind: "delete", ...single("w"), prevKv: false })],
    ["ok", () => api.transact([key], () => ({ writes: [put("b")], result: 1 }))],
    ["permissionDenied", () => api.transact([bytes("r")], () => ({ writes: [put("r")], result: 1 }))],
    ["permissionDenied", () => api.transact([bytes("w")], () => ({ writes: [put("w")], result: 1 }))],
    ["ok", () => api.transact([bytes("r")], () => ({ writes: [], result: 1 }))],
    ["permissionDenied", () => api.txn({ compares: [], success: [], failure: [put("r")] })],
    ["ok", () => watching("r")],
    ["permissionDenied", () => watching("w")],
    ["ok", () => api.leaseTtlMs(1n)],
  ];
  for (const [expected, call] of calls) assertEquals(await kind(call), expected, call.toString());
  const nobody = backend.as({ user: "root" });
  assertEquals(await kind(() => nobody.range(single("r"))), "userEmpty", "a caller is not believed");
  const root = await tokenOf("root", "root");
  await rpcAuth.userChangePassword({ name: "ann", password: "b" }, root);
  for (const [, call] of calls) assertEquals(await kind(call), "invalidAuthToken", call.toString());
});
