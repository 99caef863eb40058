import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Auth, KV, Lease, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import { Permission_Type } from "$proto/authpb/auth_pb.ts";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import {
  DEVELOPER,
  encodePrincipal,
  PRINCIPAL_METADATA,
  SYSTEM,
  SYSTEM_KEYS,
} from "../../runtime/principal.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule } from "../mod.ts";
import { encodePageToken } from "../page_token.ts";
import { serveAll } from "../served.ts";
import { plainHasher } from "../testing/auth.ts";
import { ManualStore, newDisk } from "../testing/manual_store.ts";
import { isFromFirst, namesOwn } from "./own_names.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (key: Uint8Array) => new TextDecoder().decode(key);
const ALL = { key: bytes("\0"), rangeEnd: bytes("\0") };
const OWN = SYSTEM_KEYS + "x";

type Options = { headers: Record<string, string> };
const as = (principal: Parameters<typeof encodePrincipal>[0]): Options => ({
  headers: { [PRINCIPAL_METADATA]: encodePrincipal(principal) },
});
const everythingAs = (kind: Principal_Kind) =>
  as(create(PrincipalSchema, {
    kind,
    username: "bob",
    roles: ["member"],
    grants: [{ service: "*", prefix: "", write: true }],
  }));

async function open() {
  const disk = newDisk();
  const module = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(disk, replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config: kvConfigSchema.parse({}),
    random: createSeededRandom(11),
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
    passwords: plainHasher(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer();
  serveAll(server, module.handlers);
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  return {
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    lease: createClient(Lease, transport),
    lock: createClient(Lock, transport),
    auth: createClient(Auth, transport),
    entries: createClient(KeyValueService, transport),
    async [Symbol.asyncDispose]() {
      await module.close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

type World = Awaited<ReturnType<typeof open>>;

async function outcome(call: () => Promise<unknown>): Promise<string> {
  try {
    await call();
    return "ok";
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    if (error.code === Code.PermissionDenied || error.rawMessage.includes("permission denied")) {
      return "denied";
    }
    return `${Code[error.code]}: ${error.rawMessage}`;
  }
}

/** Gives the store users of its own; returns the metadata of bob, whose role is for every key. */
async function enableAuth(world: World): Promise<Options> {
  const { auth } = world;
  await auth.userAdd({ name: "root", password: "root" });
  await auth.userGrantRole({ user: "root", role: "root" });
  await auth.userAdd({ name: "bob", password: "bob" });
  await auth.roleAdd({ name: "all" });
  await auth.roleGrantPermission({ name: "all", perm: { permType: Permission_Type.READWRITE, ...ALL } });
  await auth.userGrantRole({ user: "bob", role: "all" });
  await auth.authEnable({});
  const { token } = await auth.authenticate({ name: "bob", password: "bob" });
  return { headers: { token } };
}

/** What names the product's own keys. */
const REFUSED:
  readonly (readonly [name: string, call: (world: World, options: Options) => Promise<unknown>])[] = [
    ["Range of one", ({ kv }, o) => kv.range({ key: bytes(OWN) }, o)],
    [
      "Range of them",
      ({ kv }, o) => kv.range({ key: bytes(SYSTEM_KEYS), rangeEnd: bytes("\0aetherflow0") }, o),
    ],
    ["Range of NUL", ({ kv }, o) => kv.range({ key: bytes("\0"), rangeEnd: bytes("\x01") }, o)],
    ["Range from one on", ({ kv }, o) => kv.range({ key: bytes("\0a"), rangeEnd: bytes("\0") }, o)],
    ["Put", ({ kv }, o) => kv.put({ key: bytes(OWN) }, o)],
    ["DeleteRange", ({ kv }, o) => kv.deleteRange({ key: bytes(OWN) }, o)],
    ["Txn that compares", ({ kv }, o) => kv.txn({ compare: [{ key: bytes(OWN) }] }, o)],
    [
      "Txn that puts",
      ({ kv }, o) =>
        kv.txn({ failure: [{ request: { case: "requestPut", value: { key: bytes(OWN) } } }] }, o),
    ],
    ["Lock", ({ lock }, o) => lock.lock({ name: bytes(OWN) }, o)],
    ["LeaseRevoke", ({ lease }, o) => lease.leaseRevoke({ ID: 7n }, o)],
    ["LeaseTimeToLive", ({ lease }, o) => lease.leaseTimeToLive({ ID: 7n, keys: true }, o)],
    ["Get", ({ entries }, o) => entries.get({ key: bytes(OWN) }, o)],
    ["GetText", ({ entries }, o) => entries.getText({ key: OWN }, o)],
    ["PutText", ({ entries }, o) => entries.putText({ key: OWN, value: "" }, o)],
    ["Put of REST", ({ entries }, o) => entries.put({ key: bytes(OWN) }, o)],
    ["Delete", ({ entries }, o) => entries.delete({ key: bytes(OWN) }, o)],
    ["List", ({ entries }, o) => entries.list({ prefix: bytes(SYSTEM_KEYS) }, o)],
    ["History", ({ entries }, o) => entries.history({ key: bytes(OWN) }, o)],
    ["BatchGet", ({ entries }, o) => entries.batchGet({ keys: [bytes(OWN)] }, o)],
    ["BatchPut", ({ entries }, o) => entries.batchPut({ entries: [{ key: bytes(OWN) }] }, o)],
    [
      "Txn of REST",
      ({ entries }, o) => entries.txn({ conditions: [{ key: bytes(OWN), exists: true }] }, o),
    ],
    ["Watch of REST", async ({ entries }, o) => {
      for await (const _ of entries.watch({ prefix: bytes(SYSTEM_KEYS) }, o)) break;
    }],
  ];

Deno.test("the product's own keys are refused to whoever was granted every key", async () => {
  await using world = await open();
  await world.lease.leaseGrant({ ID: 7n, TTL: 60n });
  await world.kv.put({ key: bytes(OWN), lease: 7n });
  const bob = await enableAuth(world);
  const callers = [everythingAs(Principal_Kind.USER), everythingAs(Principal_Kind.API_KEY), bob];
  for (const [i, options] of callers.entries()) {
    for (const [name, call] of REFUSED) {
      assertEquals([i, name, await outcome(() => call(world, options))], [i, name, "denied"]);
    }
    await world.entries.put({ key: bytes("b"), value: bytes("1") }, options);
    assertEquals((await world.kv.range({ key: bytes("b") }, options)).count, 1n);
  }
});

Deno.test("ranges of everything begin after the product's own keys, for whoever is not root", async () => {
  await using world = await open();
  const { kv, entries } = world;
  for (const key of ["a", "b", OWN]) await kv.put({ key: bytes(key) });
  const bob = await enableAuth(world);
  for (const options of [everythingAs(Principal_Kind.USER), bob]) {
    const keysOf = (kvs: readonly { key: Uint8Array }[]) => kvs.map(({ key }) => text(key));
    assertEquals(keysOf((await kv.range(ALL, options)).kvs), ["a", "b"]);
    const inTxn = await kv.txn({
      compare: [{ ...ALL, targetUnion: { case: "createRevision", value: 0n }, result: 1, target: 1 }],
      success: [{ request: { case: "requestRange", value: ALL } }],
      failure: [{
        request: {
          case: "requestTxn",
          value: { success: [{ request: { case: "requestRange", value: ALL } }] },
        },
      }],
    }, options);
    assertEquals([inTxn.succeeded, JSON.stringify(inTxn.responses, noBigint).includes("aetherflow/")], [
      true,
      false,
    ]);

    const first = await entries.list({ pageSize: 1 }, options);
    assertEquals([keysOf(first.entries), first.count], [["a"], 2n]);
    const second = await entries.list({ pageSize: 5, pageToken: first.nextPageToken }, options);
    assertEquals([keysOf(second.entries), second.count], [["b"], 2n]);
    const pageToken = encodePageToken({ revision: Number(first.revision), after: bytes("\0") });
    assertEquals(keysOf((await entries.list({ pageToken }, options)).entries), ["a", "b"]);
    const found = await entries.txn({ then: [{ kind: { case: "get", value: { prefix: true } } }] }, options);
    assertEquals(keysOf(found.results[0]!.entries), ["a", "b"]);

    let isFirst = true;
    for await (const { changes } of entries.watch({}, options)) {
      if (!isFirst) {
        assertEquals(changes.map(({ entry }) => text(entry!.key)), ["a"]);
        break;
      }
      isFirst = false;
      await kv.put({ key: bytes(OWN) }, as(SYSTEM));
      await kv.put({ key: bytes("a") }, options);
    }
    assertEquals(await firstEvent(world, options), ["a"]);
  }
  assertEquals((await kv.deleteRange(ALL, bob)).deleted, 2n);
  assertEquals((await kv.range({ key: bytes(OWN) }, as(SYSTEM))).count, 1n);
});

/** Keys of the first change that a watch of everything tells, when one of the product's own changed before. */
async function firstEvent({ watch, kv }: World, options: Options): Promise<string[]> {
  const stop = new AbortController();
  async function* requests() {
    yield { requestUnion: { case: "createRequest" as const, value: ALL } };
    await new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
  }
  try {
    for await (const answer of watch.watch(requests() as never, { ...options, signal: stop.signal })) {
      if (answer.created) {
        await kv.put({ key: bytes(OWN) }, as(SYSTEM));
        await kv.put({ key: bytes("a") }, options);
      } else return answer.events.map(({ kv }) => text(kv!.key));
    }
  } finally {
    stop.abort();
  }
  return [];
}

Deno.test("a worker on its own behalf may use the product's own keys and no others, whoever the store's users are", async () => {
  await using world = await open();
  const { kv, entries } = world;
  const system = as(SYSTEM);
  for (const isEnabled of [false, true]) {
    if (isEnabled) await enableAuth(world);
    const { modRevision } = await entries.put({ key: bytes(OWN), ifModRevision: 0n, ttlMs: 5_000n }, system);
    assertEquals((await entries.get({ key: bytes(OWN) }, system)).entry?.modRevision, modRevision);
    assertEquals(
      (await entries.delete({ key: bytes(OWN), ifModRevision: modRevision }, system)).deleted,
      true,
    );
    assertEquals(await outcome(() => kv.put({ key: bytes("a") }, system)), "denied");
    assertEquals(await outcome(() => kv.range(ALL, system)), "denied");
    assertEquals(await outcome(() => entries.list({}, system)), "denied");
    assertEquals(await outcome(() => world.auth.userList({}, system)), "denied");
  }
});

Deno.test("the developer meets the product's own keys while the store has no users", async () => {
  await using world = await open();
  await world.kv.put({ key: bytes(OWN) }, as(DEVELOPER));
  assertEquals((await world.kv.range(ALL, as(DEVELOPER))).count, 1n);
});

Deno.test("namesOwn() and isFromFirst() part ranges", () => {
  const cases: [start: string, end: string | undefined, named: boolean, fromFirst: boolean][] = [
    ["", undefined, false, true],
    ["\0", undefined, false, true],
    ["\0", "\x01a", false, true],
    ["\0", "\x01", true, false],
    ["", "\0", true, false],
    ["\0\0", undefined, true, false],
    ["\0a", "z", true, false],
    ["\x01", undefined, false, false],
    ["a", "\0", false, false],
  ];
  for (const [start, end, named, fromFirst] of cases) {
    const range = { start: bytes(start), end: end === undefined ? undefined : bytes(end) };
    assertEquals([start, end, namesOwn(range.start, range), isFromFirst(range)], [
      start,
      end,
      named,
      fromFirst,
    ]);
  }
  assertEquals([namesOwn(bytes("\0a"), "single"), namesOwn(bytes("a"), "single")], [true, false]);
});

const noBigint = (_: string, value: unknown) =>
  typeof value === "bigint" ? Number(value) : value instanceof Uint8Array ? text(value) : value;
