import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { KV, Lease } from "$proto/etcdserverpb/rpc_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule } from "../mod.ts";
import { serveAll } from "../served.ts";
import { ManualStore, newDisk } from "../testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

/** The services behind RPC on a memory channel. */
async function open() {
  const { handlers, service, close } = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(newDisk(), replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config: kvConfigSchema.parse({}),
    random: createSeededRandom(7),
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  serveAll(server, handlers);
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const kv = createClient(KV, transport);
  const lease = createClient(Lease, transport);
  return {
    kv,
    lease,
    lock: createClient(Lock, transport),
    election: createClient(Election, transport),
    grant: async (ID: bigint) => (await lease.leaseGrant({ ID, TTL: 60n })).ID,
    keys: async () =>
      (await kv.range({ key: bytes("\0"), rangeEnd: bytes("\0") })).kvs.map((each) => text(each.key)),
    /** Waits until so many watchers are in place: a waiting call has one for itself and one for who is before it. */
    async watchers(count: number) {
      while (service.figures().watchers !== count) await new Promise((resolve) => setTimeout(resolve, 0));
    },
    async [Symbol.asyncDispose]() {
      await close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

async function refusal(action: Promise<unknown>): Promise<[Code, string]> {
  try {
    await action;
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("expected a refusal");
}

/** Whether a promise has settled by the end of what is under way. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol();
  return await Promise.race([
    promise.catch(() => {}),
    new Promise((resolve) => setTimeout(resolve, 0, pending)),
  ]) !==
    pending;
}

Deno.test("Lock.Lock() takes a free lock under the name and the lease in hex", async () => {
  await using store = await open();
  const lease = await store.grant(0xabcn);
  const held = await store.lock.lock({ name: bytes("job"), lease });
  assertEquals(text(held.key), "job/abc");
  const { kvs } = await store.kv.range({ key: held.key });
  assertEquals([kvs[0]?.createRevision, kvs[0]?.lease], [held.header!.revision, lease]);

  const again = await store.lock.lock({ name: bytes("job"), lease });
  assertEquals(text(again.key), "job/abc");
  assertEquals((await store.kv.range({ key: held.key })).kvs[0]?.version, 1n, "who holds it has it already");
  await store.lock.unlock({ key: held.key });
  assertEquals(await store.keys(), []);
});

Deno.test("Lock.Lock() makes a lease for a caller that names none", async () => {
  await using store = await open();
  const { key } = await store.lock.lock({ name: bytes("job") });
  const { leases } = await store.lease.leaseLeases({});
  assertEquals(leases.length, 1);
  assertEquals(text(key), `job/${leases[0]!.ID.toString(16)}`);
  assertEquals((await store.lease.leaseTimeToLive({ ID: leases[0]!.ID })).grantedTTL, 60n);
});

Deno.test("Lock.Lock() refuses a lease that is not there", async () => {
  await using store = await open();
  assertEquals(await refusal(store.lock.lock({ name: bytes("job"), lease: 5n })), [
    Code.Unknown,
    "etcdserver: requested lease not found",
  ]);
});

Deno.test("Lock.Lock() hands the lock on in the order of asking, with growing fencing tokens", async () => {
  await using store = await open();
  const name = bytes("job");
  const [a, b, c] = [await store.grant(3n), await store.grant(2n), await store.grant(1n)];
  const first = await store.lock.lock({ name, lease: a });
  const second = store.lock.lock({ name, lease: b });
  await store.watchers(2);
  const third = store.lock.lock({ name, lease: c });
  await store.watchers(4);
  assertEquals([await isSettled(second), await isSettled(third)], [false, false]);

  const tokenOf = async (key: Uint8Array) => (await store.kv.range({ key })).kvs[0]!.createRevision;
  const tokens = [await tokenOf(first.key)];
  await store.lock.unlock({ key: first.key });
  const held = await second;
  assertEquals(text(held.key), "job/2");
  assertEquals(await isSettled(third), false);
  tokens.push(await tokenOf(held.key));
  assert(held.header!.revision >= tokens[1]!);
  await store.lease.leaseRevoke({ ID: b });
  assertEquals(text((await third).key), "job/1");
  tokens.push(await tokenOf(bytes("job/1")));
  assertEquals(tokens, [...tokens].sort((x, y) => Number(x - y)));
  assertEquals(new Set(tokens).size, 3);
  await store.watchers(0);
});

Deno.test("Lock.Lock() is not granted to a waiter whose lease ended, and goes past it", async () => {
  await using store = await open();
  const name = bytes("job");
  const [a, b, c] = [await store.grant(1n), await store.grant(2n), await store.grant(3n)];
  const first = await store.lock.lock({ name, lease: a });
  const lost = refusal(store.lock.lock({ name, lease: b }));
  await store.watchers(2);
  const third = store.lock.lock({ name, lease: c });
  await store.watchers(4);
  await store.lease.leaseRevoke({ ID: b });
  assertEquals(await lost, [Code.Unknown, "mutex: session is expired"]);
  assertEquals(await isSettled(third), false);
  await store.lock.unlock({ key: first.key });
  assertEquals(text((await third).key), "job/3");
});

Deno.test("Lock.Lock() that is cancelled while it waits gives its place back", async () => {
  await using store = await open();
  const name = bytes("job");
  const [a, b] = [await store.grant(1n), await store.grant(2n)];
  await store.lock.lock({ name, lease: a });
  const cancel = new AbortController();
  const waiting = refusal(store.lock.lock({ name, lease: b }, { signal: cancel.signal }));
  await store.watchers(2);
  assertEquals(await store.keys(), ["job/1", "job/2"]);
  cancel.abort();
  assertEquals((await waiting)[0], Code.Canceled);
  while ((await store.keys()).length > 1) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(await store.keys(), ["job/1"]);
  await store.watchers(0);
});

Deno.test("Election: campaign, proclaim, leader and resign, and the next candidate leads", async () => {
  await using store = await open();
  const { election } = store;
  const name = bytes("chair");
  assertEquals(await refusal(election.leader({ name })), [Code.Unknown, "election: no leader"]);
  const [a, b] = [await store.grant(0xan), await store.grant(0xbn)];
  const won = await election.campaign({ name, lease: a, value: bytes("one") });
  assertEquals(text(won.leader!.key), "chair/a");
  assertEquals([won.leader!.rev, won.leader!.lease], [won.header!.revision, a]);
  const next = election.campaign({ name, lease: b, value: bytes("two") });
  await store.watchers(2);

  await election.proclaim({ leader: won.leader!, value: bytes("one again") });
  assertEquals(text((await election.leader({ name })).kv?.value), "one again");
  const repeated = await election.campaign({ name, lease: a, value: bytes("one more") });
  assertEquals(repeated.leader!.rev, won.leader!.rev);
  assertEquals(text((await election.leader({ name })).kv?.value), "one more");

  await election.resign({ leader: won.leader! });
  const second = await next;
  assertEquals(text(second.leader!.key), "chair/b");
  assertEquals(await refusal(election.proclaim({ leader: won.leader!, value: bytes("late") })), [
    Code.Unknown,
    "election: not leader",
  ]);
  await election.resign({ leader: won.leader! }); // not the leader: nothing happens
  assertEquals(text((await election.leader({ name })).kv?.value), "two");
  assertEquals(await refusal(election.proclaim({ value: bytes("x") })), [
    Code.Unknown,
    '"leader" field must be provided',
  ]);
});

Deno.test("Election.Campaign() does not win for a candidate whose lease ended", async () => {
  await using store = await open();
  const name = bytes("chair");
  const [a, b] = [await store.grant(1n), await store.grant(2n)];
  await store.election.campaign({ name, lease: a, value: bytes("one") });
  const lost = refusal(store.election.campaign({ name, lease: b, value: bytes("two") }));
  await store.watchers(2);
  await store.lease.leaseRevoke({ ID: b });
  assertEquals(await lost, [Code.Unknown, "election: session ended"]);
});

Deno.test("Election.Observe() tells every leader and what it proclaims", async () => {
  await using store = await open();
  const { election } = store;
  const name = bytes("chair");
  const cancel = new AbortController();
  const seen = election.observe({ name }, { signal: cancel.signal })[Symbol.asyncIterator]();
  const next = async () => text((await seen.next()).value?.kv?.value);
  const first = next();
  await store.watchers(1);
  const [a, b] = [await store.grant(1n), await store.grant(2n)];
  const won = await election.campaign({ name, lease: a, value: bytes("one") });
  assertEquals(await first, "one");
  const second = next();
  await election.proclaim({ leader: won.leader!, value: bytes("one again") });
  assertEquals(await second, "one again");
  const third = next();
  const candidate = election.campaign({ name, lease: b, value: bytes("two") });
  await store.watchers(3);
  await store.lease.leaseRevoke({ ID: a });
  assertEquals(await third, "two");
  await candidate;
  cancel.abort();
  assertEquals((await refusal(seen.next()))[0], Code.Canceled);
  await store.watchers(0);
});
