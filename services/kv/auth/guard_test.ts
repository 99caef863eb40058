import { RedisService } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
} from "@bufbuild/protobuf";
import { ConnectError, createContextValues, type HandlerContext } from "@connectrpc/connect";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { Guard } from "./guard.ts";
import { KV_SERVICES } from "../served.ts";
import { enabledAuth, permission } from "../testing/auth.ts";
import { Tokens } from "./tokens.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const SERVICES = new Set<DescService>([...Object.values(KV_SERVICES), Lock, Election, RedisService]);
const METHODS = [...SERVICES].flatMap((service) => service.methods);

/** Lease whose keys are l1 and l2. */
const LEASE = 7n;

/** One call: its request, and the permissions that it takes, all of them. */
interface Case {
  readonly request?: Record<string, unknown>;
  readonly takes: readonly string[] | "root" | "user" | "client" | "anyone" | "handler";
}

const key = bytes("b");
const range = { key: bytes("b"), rangeEnd: bytes("d") };
const from = { key: bytes("b"), rangeEnd: bytes("\0") };
const all = { key: bytes("\0"), rangeEnd: bytes("\0") };
const put = (fields: Record<string, unknown> = {}) => ({
  request: { case: "requestPut", value: { key, ...fields } },
});
const rangeOp = (fields: Record<string, unknown>) => ({ request: { case: "requestRange", value: fields } });
const deleteOp = (fields: Record<string, unknown>) => ({
  request: { case: "requestDeleteRange", value: fields },
});
const txnOp = (fields: Record<string, unknown>) => ({ request: { case: "requestTxn", value: fields } });
const leader = { name: bytes("n"), key: bytes("n/7"), rev: 1n, lease: LEASE };
const LEASE_WRITES = ["write l1", "write l2"];

/** Every RPC; several calls of one where what it takes depends on the request. */
const CASES: Readonly<Record<string, readonly Case[]>> = {
  "KV/Range": [
    { request: { key }, takes: ["read b"] },
    { request: range, takes: ["read b d"] },
    { request: from, takes: ["read b \0"] },
    { request: all, takes: ["read \0 \0"] },
    { request: { ...range, countOnly: true, serializable: true }, takes: ["read b d"] },
  ],
  "KV/RangeStream": [{ request: range, takes: ["read b d"] }, { request: all, takes: ["read \0 \0"] }],
  "KV/Put": [
    { request: { key }, takes: ["write b"] },
    { request: { key, prevKv: true }, takes: ["write b", "read b"] },
    { request: { key, lease: LEASE }, takes: ["write b", ...LEASE_WRITES] },
    { request: { key, lease: 99n }, takes: ["write b"] },
    { request: { key, ignoreValue: true, ignoreLease: true }, takes: ["write b"] },
  ],
  "KV/DeleteRange": [
    { request: { key }, takes: ["write b"] },
    { request: range, takes: ["write b d"] },
    { request: { ...range, prevKv: true }, takes: ["write b d", "read b d"] },
    { request: from, takes: ["write b \0"] },
  ],
  "KV/Txn": [
    { request: {}, takes: "anyone" },
    { request: { compare: [{ key }] }, takes: ["read b"] },
    { request: { compare: [{ key: bytes("b"), rangeEnd: bytes("d") }] }, takes: ["read b d"] },
    { request: { compare: [{ key: bytes("b"), rangeEnd: bytes("\0") }] }, takes: ["read b \0"] },
    { request: { success: [put()] }, takes: ["write b"] },
    { request: { failure: [put()] }, takes: ["write b"] },
    { request: { success: [put()], failure: [put({ key: bytes("c") })] }, takes: ["write b", "write c"] },
    { request: { success: [put({ prevKv: true })] }, takes: ["write b", "read b"] },
    { request: { failure: [put({ lease: LEASE })] }, takes: ["write b", ...LEASE_WRITES] },
    { request: { success: [rangeOp(range)], failure: [rangeOp(from)] }, takes: ["read b \0"] },
    { request: { success: [deleteOp({ ...range, prevKv: true })] }, takes: ["write b d", "read b d"] },
    {
      request: {
        success: [
          txnOp({
            compare: [{ key: bytes("c1") }],
            failure: [txnOp({
              compare: [{ key: bytes("c2") }],
              success: [rangeOp({ key: bytes("r") }), put({ prevKv: true, lease: LEASE })],
              failure: [deleteOp({ key: bytes("x"), rangeEnd: bytes("z") })],
            })],
          }),
        ],
      },
      takes: ["read c1", "read c2", "read r", "write b", "read b", ...LEASE_WRITES, "write x z"],
    },
  ],
  "KV/Compact": [{ request: { revision: 5n }, takes: "root" }],

  "Watch/Watch": [{ takes: "handler" }],

  "Lease/LeaseGrant": [{ request: { TTL: 60n }, takes: "user" }],
  "Lease/LeaseRevoke": [{ request: { ID: LEASE }, takes: LEASE_WRITES }, {
    request: { ID: 99n },
    takes: "user",
  }],
  "Lease/LeaseKeepAlive": [{ request: { ID: LEASE }, takes: LEASE_WRITES }, {
    request: { ID: 99n },
    takes: "user",
  }],
  "Lease/LeaseTimeToLive": [
    { request: { ID: LEASE }, takes: "user" },
    { request: { ID: LEASE, keys: true }, takes: ["read l1", "read l2"] },
  ],
  "Lease/LeaseLeases": [{ takes: ["read l1", "read l2"] }],

  "Cluster/MemberAdd": [{ takes: "root" }],
  "Cluster/MemberRemove": [{ takes: "root" }],
  "Cluster/MemberUpdate": [{ takes: "root" }],
  "Cluster/MemberPromote": [{ takes: "root" }],
  "Cluster/MemberList": [{ takes: "user" }],

  "Maintenance/Alarm": [
    { takes: "user" },
    { request: { action: 1, alarm: 1 }, takes: "root" },
    { request: { action: 2, alarm: 1 }, takes: "root" },
    { request: { action: 77 }, takes: "root" },
  ],
  "Maintenance/Status": [{ takes: "root" }],
  "Maintenance/Defragment": [{ takes: "root" }],
  "Maintenance/Hash": [{ takes: "root" }],
  "Maintenance/HashKV": [{ takes: "root" }],
  "Maintenance/Snapshot": [{ takes: "root" }],
  "Maintenance/MoveLeader": [{ takes: "root" }],
  "Maintenance/Downgrade": [{ takes: "root" }],

  "Auth/AuthEnable": [{ takes: "root" }],
  "Auth/AuthDisable": [{ takes: "root" }],
  "Auth/AuthStatus": [{ takes: "root" }],
  "Auth/Authenticate": [{ takes: "anyone" }],
  "Auth/UserAdd": [{ takes: "root" }],
  "Auth/UserGet": [
    { request: { name: "ann" }, takes: "user" },
    { request: { name: "root" }, takes: "root" },
    { request: { name: "" }, takes: "root" },
  ],
  "Auth/UserList": [{ takes: "root" }],
  "Auth/UserDelete": [{ takes: "root" }],
  "Auth/UserChangePassword": [{ request: { name: "ann" }, takes: "root" }],
  "Auth/UserGrantRole": [{ request: { user: "ann", role: "root" }, takes: "root" }],
  "Auth/UserRevokeRole": [{ takes: "root" }],
  "Auth/RoleAdd": [{ takes: "root" }],
  "Auth/RoleGet": [{ request: { role: "ann's" }, takes: "user" }, {
    request: { role: "root" },
    takes: "root",
  }],
  "Auth/RoleList": [{ takes: "root" }],
  "Auth/RoleDelete": [{ takes: "root" }],
  "Auth/RoleGrantPermission": [{ request: { name: "ann's" }, takes: "root" }],
  "Auth/RoleRevokePermission": [{ takes: "root" }],

  "Lock/Lock": [
    { request: { name: bytes("n"), lease: 10n }, takes: ["read n/ n0", "write n/a"] },
    { request: { name: bytes("n"), lease: LEASE }, takes: ["read n/ n0", "write n/7", ...LEASE_WRITES] },
    { request: { name: bytes("n") }, takes: ["read n/ n0", "write n/ n0"] },
  ],
  "Lock/Unlock": [{ request: { key: bytes("n/7") }, takes: ["write n/7"] }],
  "Election/Campaign": [
    { request: { name: bytes("n"), lease: LEASE }, takes: ["read n/ n0", "write n/7", ...LEASE_WRITES] },
  ],
  "Election/Proclaim": [
    { request: { leader }, takes: ["read n/7", "write n/7", ...LEASE_WRITES] },
    { takes: "user" },
  ],
  "Election/Leader": [{ request: { name: bytes("n") }, takes: ["read n/ n0"] }],
  "Election/Observe": [{ request: { name: bytes("n") }, takes: ["read n/ n0"] }],
  "Election/Resign": [{ request: { leader }, takes: ["read n/7", "write n/7"] }, { takes: "user" }],

  "KeyValueService/Get": [{ takes: "client" }],
  "KeyValueService/Put": [{ takes: "client" }],
  "KeyValueService/Delete": [{ takes: "client" }],
  "KeyValueService/List": [{ takes: "client" }],
  "KeyValueService/History": [{ takes: "client" }],
  "KeyValueService/BatchGet": [{ takes: "client" }],
  "KeyValueService/BatchPut": [{ takes: "client" }],
  "KeyValueService/Txn": [{ takes: "client" }],
  "KeyValueService/PutText": [{ takes: "client" }],
  "KeyValueService/GetText": [{ takes: "client" }],
  "KeyValueService/DeleteText": [{ takes: "client" }],
  "KeyValueService/Watch": [{ takes: "client" }],
  "RedisService/Serve": [{ takes: "handler" }],
};

const nameOf = (method: DescMethod) => `${method.parent.name}/${method.name}`;

function open() {
  const { auth, log } = enabledAuth();
  auth.addRole(log, "ann's");
  auth.addUser(log, "ann", bytes("h"));
  auth.grantRole(log, "ann", "ann's");
  auth.addUser(log, "bob", bytes("h"));
  const clock = createManualClock();
  const tokens = new Tokens(auth, { tokenTtlMs: 1_000, tokensMax: 10 }, createSeededRandom(3), clock);
  const guard = new Guard({
    auth,
    tokens,
    leases: { keysOf: (id) => id === LEASE ? [bytes("l1"), bytes("l2")] : [], ids: () => [LEASE, 99n] },
  });
  const tokenOf = (user: string) => tokens.issue(auth.loginOf(user)!.credential);
  const callers: Readonly<Record<string, HeadersInit>> = {
    anonymous: {},
    "bad token": { token: "nonsense.1" },
    ann: { token: tokenOf("ann") },
    "ann, by authorization": { authorization: tokenOf("ann") },
    root: { authorization: `Bearer ${tokenOf("root")}` },
  };
  return { auth, log, guard, callers, clock };
}

type Handlers = Record<string, (request: unknown, context: HandlerContext) => unknown>;

/** Guard.wrap() without the types of messages. */
function wrapped(guard: Guard, service: DescService, handlers: Handlers): Handlers {
  return guard.wrap(service, handlers as never) as unknown as Handlers;
}

/** Handlers that let every request through and answer each. */
function yes(service: DescService): Handlers {
  return Object.fromEntries(service.methods.map((method) => {
    const answer = () => create(method.output as DescMessage);
    const handler = method.methodKind === "unary" ? answer : async function* (requests: unknown) {
      if (method.methodKind === "server_streaming") yield answer();
      else for await (const _ of requests as AsyncIterable<unknown>) yield answer();
    };
    return [method.localName, handler];
  }));
}

function contextOf(headers: HeadersInit): HandlerContext {
  return { requestHeader: new Headers(headers), values: createContextValues() } as unknown as HandlerContext;
}

/** What became of a call: "ok", or why not. */
async function outcome(
  guard: Guard,
  method: DescMethod,
  request: Message,
  headers: HeadersInit,
): Promise<string> {
  const impl = wrapped(guard, method.parent, yes(method.parent));
  async function* one() {
    yield request;
  }
  const isStreamed = method.methodKind === "bidi_streaming" || method.methodKind === "client_streaming";
  try {
    const answer = await impl[method.localName]!(isStreamed ? one() : request, contextOf(headers));
    if (method.methodKind !== "unary") {
      let answers = 0;
      for await (const _ of answer as AsyncIterable<unknown>) answers++;
      assertEquals(answers, 1);
    }
    return "ok";
  } catch (error) {
    assert(error instanceof ConnectError, String(error));
    return error.rawMessage;
  }
}

const EMPTY = "etcdserver: user name is empty";
const INVALID = "etcdserver: invalid auth token";
const DENIED = "etcdserver: permission denied";
const ABSENT = "kv: authentication is required";

Deno.test("every RPC of every service is in the table of this test", () => {
  assertEquals(Object.keys(CASES).sort(), METHODS.map(nameOf).sort());
});

Deno.test("every RPC takes exactly what it should, from every kind of caller", async () => {
  for (const method of METHODS) {
    for (const { request = {}, takes } of CASES[nameOf(method)]!) {
      const message = create(method.input as DescMessage, request as never);
      const name = `${nameOf(method)} ${Deno.inspect(request, { depth: 9, compact: true })}`;
      const { auth, log, guard, callers } = open();
      const of = (caller: string) => outcome(guard, method, message, callers[caller]!);
      const [anonymous, bad, ann, annToo, root] = await Promise.all(Object.keys(callers).map(of));
      assertEquals(root, "ok", `${name} by root`);
      assertEquals(annToo, ann, `${name} by either header`);
      if (takes === "handler") {
        assertEquals([anonymous, bad, ann], ["ok", "ok", "ok"], name);
        continue;
      }
      const isAuthenticate = nameOf(method) === "Auth/Authenticate";
      assertEquals(bad, isAuthenticate ? "ok" : INVALID, `${name} with a bad token`);
      assertEquals(
        anonymous,
        takes === "anyone" ? "ok" : takes === "client" ? ABSENT : EMPTY,
        `${name} without a token`,
      );
      if (typeof takes === "string") {
        assertEquals(ann, takes === "root" ? DENIED : "ok", `${name} by a user`);
        continue;
      }
      assertEquals(ann, DENIED, `${name} by a user without permissions`);
      for (const each of takes) auth.grantPermission(log, "ann's", widened(each, takes));
      assertEquals(await of("ann"), "ok", `${name} with ${takes}`);
      for (const each of takes) {
        const { key, rangeEnd } = permission(each);
        // Each permission is needed: take it away, or leave the other half of it.
        auth.revokePermission(log, "ann's", { key, rangeEnd });
        const other = takes.filter((rest) => isSameRange(rest, each) && rest !== each);
        for (const rest of other) auth.grantPermission(log, "ann's", permission(rest));
        assertEquals(await of("ann"), DENIED, `${name} without ${each}`);
        auth.grantPermission(log, "ann's", widened(each, takes));
        assertEquals(await of("ann"), "ok", `${name} with ${each} again`);
      }
    }
  }
});

function isSameRange(a: string, b: string): boolean {
  return a.slice(a.indexOf(" ")) === b.slice(b.indexOf(" "));
}

/** The permission, or read and write in one where both are taken of a range. */
function widened(each: string, takes: readonly string[]) {
  const both = takes.some((other) => other !== each && isSameRange(other, each));
  return permission(both ? `readwrite${each.slice(each.indexOf(" "))}` : each);
}

Deno.test("while authentication is disabled everybody may do everything, whatever the token", async () => {
  const { auth, log, guard, callers } = open();
  auth.disable(log);
  for (const method of METHODS) {
    const request = create(method.input as DescMessage, CASES[nameOf(method)]![0]!.request as never ?? {});
    for (const [caller, headers] of Object.entries(callers)) {
      assertEquals(await outcome(guard, method, request, headers), "ok", `${nameOf(method)} by ${caller}`);
    }
  }
});

Deno.test("the shape of a request is looked at before who sends it, as etcd does", async () => {
  const { guard, callers } = open();
  const cases: [string, Record<string, unknown>, string][] = [
    ["Range", {}, "etcdserver: key is not provided"],
    ["Range", { key, sortTarget: 99 }, "etcdserver: invalid sort option"],
    ["Put", {}, "etcdserver: key is not provided"],
    ["Put", { key, value: key, ignoreValue: true }, "etcdserver: value is provided"],
    ["DeleteRange", {}, "etcdserver: key is not provided"],
    ["Txn", { success: [{}] }, "etcdserver: key not found"],
    ["Txn", { success: [put(), put()] }, "etcdserver: duplicate key given in txn request"],
    ["Txn", { success: Array(129).fill(put()) }, "etcdserver: too many operations in txn request"],
  ];
  for (const [name, request, text] of cases) {
    const method = KV_SERVICES.kv.methods.find((each) => each.name === name)!;
    const message = create(method.input as DescMessage, request as never);
    for (const caller of ["anonymous", "bad token", "ann"]) {
      assertEquals(await outcome(guard, method, message, callers[caller]!), text, `${name} by ${caller}`);
    }
  }
});

Deno.test("a stream of answers ends when its caller may no longer have them", async () => {
  const { auth, log, guard, callers } = open();
  auth.grantPermission(log, "ann's", permission("read b d"));
  const method = KV_SERVICES.kv.methods.find((each) => each.name === "RangeStream")!;
  async function* many() {
    for (;;) yield await Promise.resolve("piece");
  }
  const { rangeStream } = wrapped(guard, method.parent, { rangeStream: many });
  const request = create(method.input as DescMessage, range as never);
  const answers = rangeStream!(request, contextOf(callers.ann!)) as AsyncIterable<unknown>;
  const stream = answers[Symbol.asyncIterator]();
  assertEquals((await stream.next()).value, "piece");
  auth.grantPermission(log, "ann's", permission("read x"));
  assertEquals((await stream.next()).value, "piece");
  auth.revokePermission(log, "ann's", permission("read b d"));
  let told = "";
  await stream.next().catch((error: ConnectError) => told = error.rawMessage);
  assertEquals(told, DENIED);
});

Deno.test("a stream outlives the time of its token, but not its user", async () => {
  const { auth, log, guard, callers, clock } = open();
  const method = KV_SERVICES.lease.methods.find((each) => each.name === "LeaseKeepAlive")!;
  const { leaseKeepAlive } = wrapped(guard, method.parent, yes(method.parent));
  const permit = guard.permitOf(contextOf(callers.ann!));
  auth.grantPermission(log, "ann's", permission("read b"));
  assertEquals(permit.watchRefusal(key, "single"), undefined);
  async function* requests() {
    yield create(method.input as DescMessage, { ID: 99n } as never);
    clock.advance(10_000);
    yield create(method.input as DescMessage, { ID: 99n } as never);
  }
  let count = 0;
  for await (const _ of leaseKeepAlive!(requests(), contextOf(callers.ann!)) as AsyncIterable<unknown>) {
    count++;
  }
  assertEquals(count, 2);
  assertEquals(permit.watchRefusal(key, "single"), undefined);
  auth.deleteUser(log, "ann");
  assertEquals(permit.watchRefusal(key, "single"), `rpc error: code = Unauthenticated desc = ${INVALID}`);
});

Deno.test("each keepalive of a stream is checked, not the first one alone", async () => {
  const { auth, log, guard, callers } = open();
  const method = KV_SERVICES.lease.methods.find((each) => each.name === "LeaseKeepAlive")!;
  const impl = wrapped(guard, method.parent, yes(method.parent));
  async function* requests() {
    yield create(method.input as DescMessage, { ID: 99n } as never);
    await Promise.resolve();
    auth.deleteUser(log, "ann");
    yield create(method.input as DescMessage, { ID: 99n } as never);
  }
  const answers = impl.leaseKeepAlive!(requests(), contextOf(callers.ann!)) as AsyncIterable<unknown>;
  let count = 0;
  let told = "";
  try {
    for await (const _ of answers) count++;
  } catch (error) {
    told = (error as ConnectError).rawMessage;
  }
  assertEquals([count, told], [1, INVALID]);
});

Deno.test("Guard.wrap() refuses a service with a method that no rule covers", () => {
  const { guard } = open();
  const invented = {
    ...KV_SERVICES.kv,
    methods: [{ ...KV_SERVICES.kv.methods[0]!, name: "Invented", localName: "invented" }],
  } as unknown as DescService;
  assertThrows(() => guard.wrap(invented, {}), RangeError, "etcdserverpb.KV/Invented");
});

Deno.test("the worker names none of etcd's services: those of the list are served, through the guard", async () => {
  const source = await Deno.readTextFile(new URL("../worker.ts", import.meta.url));
  assertEquals(source.match(/\$proto\/(etcdserverpb|v3lockpb|v3electionpb)/g), null);
  assertEquals(source.match(/serveAll\(/g)?.length, 1);
});
