import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Auth, Cluster, KV, Lease, Maintenance, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { ANONYMOUS, DEVELOPER, encodePrincipal, PRINCIPAL_METADATA } from "../../runtime/principal.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule } from "../mod.ts";
import { serveAll } from "../served.ts";
import { plainHasher } from "../testing/auth.ts";
import { ManualStore, newDisk } from "../testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

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
    election: createClient(Election, transport),
    cluster: createClient(Cluster, transport),
    maintenance: createClient(Maintenance, transport),
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
type Options = { headers: HeadersInit };

const as = (principal: Principal): Options => ({
  headers: { [PRINCIPAL_METADATA]: encodePrincipal(principal) },
});
const member = (grants: MessageInitShape<typeof PrincipalSchema>["grants"], kind = Principal_Kind.USER) =>
  create(PrincipalSchema, { kind, username: "bob", roles: ["member"], grants: grants ?? [] });

/** Writes under b/, reads under r/ too; what is granted of other services says nothing here. */
const BOB = as(member([
  { service: "kv", prefix: "b/", write: true },
  { service: "kv", prefix: "r/" },
  { service: "documents", prefix: "", write: true },
]));

async function outcome(call: () => Promise<unknown>): Promise<string> {
  try {
    await call();
    return "ok";
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return error.code === Code.PermissionDenied ? "denied" : error.code === Code.Unauthenticated
      ? "nobody"
      // Recipes hand on the text of the store without its code, as etcd's do.
      : error.rawMessage.includes("permission denied")
      ? "denied"
      : `${Code[error.code]}: ${error.rawMessage}`;
  }
}

async function firstAnswer(world: World, key: string, rangeEnd: string, options: Options): Promise<string> {
  const stop = new AbortController();
  async function* requests() {
    yield {
      requestUnion: {
        case: "createRequest" as const,
        value: { key: bytes(key), rangeEnd: bytes(rangeEnd) },
      },
    };
    await new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
  }
  try {
    for await (
      const { canceled, cancelReason } of world.watch.watch(requests() as never, {
        ...options,
        signal: stop.signal,
      })
    ) {
      return canceled ? cancelReason : "ok";
    }
  } finally {
    stop.abort();
  }
  return "ended";
}

const put = (key: string, more: Record<string, unknown> = {}) => ({
  request: { case: "requestPut" as const, value: { key: bytes(key), value: bytes("1"), ...more } },
});
const nested = (key: string) => ({
  request: { case: "requestTxn" as const, value: { success: [put(key)] } },
});

/** What a member may do, by RPC. */
const CASES: [name: string, call: (world: World, options: Options) => Promise<unknown>, expected: string][] =
  [
    ["Put inside", ({ kv }, o) => kv.put({ key: bytes("b/x") }, o), "ok"],
    ["Put outside", ({ kv }, o) => kv.put({ key: bytes("c") }, o), "denied"],
    ["Put where only reading is granted", ({ kv }, o) => kv.put({ key: bytes("r/x") }, o), "denied"],
    ["Put of a name that only begins alike", ({ kv }, o) => kv.put({ key: bytes("b") }, o), "denied"],
    ["Range inside", ({ kv }, o) => kv.range({ key: bytes("r/"), rangeEnd: bytes("r0") }, o), "ok"],
    [
      "Range across the end",
      ({ kv }, o) => kv.range({ key: bytes("r/"), rangeEnd: bytes("r1") }, o),
      "denied",
    ],
    [
      "Range of everything",
      ({ kv }, o) => kv.range({ key: bytes("\0"), rangeEnd: bytes("\0") }, o),
      "denied",
    ],
    [
      "DeleteRange inside",
      ({ kv }, o) => kv.deleteRange({ key: bytes("b/"), rangeEnd: bytes("b0") }, o),
      "ok",
    ],
    [
      "DeleteRange outside",
      ({ kv }, o) => kv.deleteRange({ key: bytes("a"), rangeEnd: bytes("z") }, o),
      "denied",
    ],
    [
      "Txn inside",
      ({ kv }, o) => kv.txn({ compare: [{ key: bytes("r/x") }], success: [put("b/x")] }, o),
      "ok",
    ],
    ["Txn compare outside", ({ kv }, o) => kv.txn({ compare: [{ key: bytes("c") }] }, o), "denied"],
    [
      "Txn branch that is not taken",
      ({ kv }, o) => kv.txn({ success: [], failure: [put("c")] }, o),
      "denied",
    ],
    ["Txn within a txn", ({ kv }, o) => kv.txn({ success: [nested("c")] }, o), "denied"],
    ["Txn within a txn, inside", ({ kv }, o) => kv.txn({ success: [nested("b/x")] }, o), "ok"],
    ["Compact", ({ kv }, o) => kv.compact({ revision: 1n }, o), "denied"],
    ["LeaseRevoke of others' keys", ({ lease }, o) => lease.leaseRevoke({ ID: 7n }, o), "denied"],
    [
      "LeaseTimeToLive of others' keys",
      ({ lease }, o) => lease.leaseTimeToLive({ ID: 7n, keys: true }, o),
      "denied",
    ],
    ["Put on a lease of others' keys", ({ kv }, o) => kv.put({ key: bytes("b/x"), lease: 7n }, o), "denied"],
    ["LeaseLeases among others'", ({ lease }, o) => lease.leaseLeases({}, o), "denied"],
    ["Lock inside", ({ lock }, o) => lock.lock({ name: bytes("b/l") }, o), "ok"],
    ["Lock outside", ({ lock }, o) => lock.lock({ name: bytes("l") }, o), "denied"],
    ["Unlock outside", ({ lock }, o) => lock.unlock({ key: bytes("l/1") }, o), "denied"],
    ["Campaign outside", ({ election }, o) => election.campaign({ name: bytes("e") }, o), "denied"],
    ["Leader outside", ({ election }, o) => election.leader({ name: bytes("e") }, o), "denied"],
    ["MemberList", ({ cluster }, o) => cluster.memberList({}, o), "denied"],
    ["Status", ({ maintenance }, o) => maintenance.status({}, o), "denied"],
    ["Alarm", ({ maintenance }, o) => maintenance.alarm({}, o), "denied"],
    ["Defragment", ({ maintenance }, o) => maintenance.defragment({}, o), "denied"],
    ["UserAdd", ({ auth }, o) => auth.userAdd({ name: "x", password: "x" }, o), "denied"],
    ["UserList", ({ auth }, o) => auth.userList({}, o), "denied"],
    ["RoleGet", ({ auth }, o) => auth.roleGet({ role: "root" }, o), "denied"],
    ["AuthEnable", ({ auth }, o) => auth.authEnable({}, o), "denied"],
    ["KeyValueService.Put inside", ({ entries }, o) => entries.put({ key: bytes("b/x") }, o), "ok"],
    ["KeyValueService.Put outside", ({ entries }, o) => entries.put({ key: bytes("c") }, o), "denied"],
    ["KeyValueService.List inside", ({ entries }, o) => entries.list({ prefix: bytes("r/") }, o), "ok"],
    ["KeyValueService.List of everything", ({ entries }, o) => entries.list({}, o), "denied"],
    [
      "KeyValueService.History outside",
      ({ entries }, o) => entries.history({ key: bytes("c") }, o),
      "denied",
    ],
    [
      "KeyValueService.BatchGet with one outside",
      ({ entries }, o) => entries.batchGet({ keys: [bytes("b/x"), bytes("c")] }, o),
      "denied",
    ],
  ];

Deno.test("a member is kept within the grants of its principal by every RPC", async (t) => {
  await using world = await open();
  await world.kv.put({ key: bytes("c"), value: bytes("1") });
  await world.lease.leaseGrant({ ID: 7n, TTL: 60n });
  await world.kv.put({ key: bytes("c/leased"), lease: 7n });
  for (const [name, call, expected] of CASES) {
    await t.step(name, async () => assertEquals(await outcome(() => call(world, BOB)), expected));
  }
  await t.step("watches", async () => {
    assertEquals(await firstAnswer(world, "r/", "r0", BOB), "ok");
    assertEquals(
      await firstAnswer(world, "a", "z", BOB),
      "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    );
  });
  await t.step("a lease of its own", async () => {
    const { ID } = await world.lease.leaseGrant({ TTL: 60n }, BOB);
    await world.kv.put({ key: bytes("b/leased"), lease: ID }, BOB);
    await world.lease.leaseRevoke({ ID }, BOB);
  });
});

Deno.test("nobody may do anything, administrators and the developer everything", async () => {
  await using world = await open();
  const nobody = [ANONYMOUS, create(PrincipalSchema, {})].map(as);
  const broken: Options = { headers: { [PRINCIPAL_METADATA]: "////" } };
  for (const options of [...nobody, broken]) {
    for (const [name, call] of CASES) {
      assertEquals([name, await outcome(() => call(world, options))], [name, "nobody"]);
    }
    assertEquals(await outcome(() => world.kv.txn({}, options)), "nobody");
    const token = { headers: { ...options.headers as Record<string, string>, token: "abcdefghijklmnop.1" } };
    assertEquals(await outcome(() => world.kv.put({ key: bytes("b/x") }, token)), "nobody");
  }
  const admin = create(PrincipalSchema, { kind: Principal_Kind.USER, username: "root", roles: ["admin"] });
  for (const options of [as(admin), as(DEVELOPER), { headers: {} }]) {
    assertEquals(await outcome(() => world.kv.put({ key: bytes("c") }, options)), "ok");
    assertEquals(await outcome(() => world.maintenance.status({}, options)), "ok");
  }
});

Deno.test("a key or an external caller without a grant for the store may do nothing in it", async () => {
  await using world = await open();
  for (const kind of [Principal_Kind.API_KEY, Principal_Kind.EXTERNAL]) {
    const options = as(member([{ service: "queue", prefix: "", write: true }], kind));
    assertEquals(await outcome(() => world.kv.range({ key: bytes("b/x") }, options)), "denied");
  }
  const everything = as(member([{ service: "*", prefix: "", write: true }]));
  assertEquals(
    await outcome(() => world.kv.range({ key: bytes("\0"), rangeEnd: bytes("\0") }, everything)),
    "ok",
  );
  assertEquals(await outcome(() => world.kv.compact({ revision: 1n }, everything)), "denied");
});

Deno.test("with the store's own authentication nobody is whom its token says, until that is disabled", async () => {
  await using world = await open();
  await world.auth.userAdd({ name: "root", password: "root" });
  await world.auth.userGrantRole({ user: "root", role: "root" });
  await world.auth.authEnable({});
  const { token } = await world.auth.authenticate({ name: "root", password: "root" }, as(ANONYMOUS));
  const headers = { ...as(ANONYMOUS).headers as Record<string, string>, token };
  assertEquals(await outcome(() => world.kv.put({ key: bytes("c") }, { headers })), "ok");
  assertEquals(await outcome(() => world.entries.put({ key: bytes("c") }, { headers })), "ok");
  assertEquals(await outcome(() => world.entries.put({ key: bytes("c") }, as(ANONYMOUS))), "nobody");
  assertEquals(await outcome(() => world.kv.put({ key: bytes("c") }, BOB)), "denied");
  assertEquals(await outcome(() => world.kv.put({ key: bytes("b/x") }, BOB)), "ok");
  await world.auth.authDisable({}, { headers });
  assertEquals(await outcome(() => world.kv.put({ key: bytes("c") }, { headers })), "nobody");
});
