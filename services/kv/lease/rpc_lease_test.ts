import { KV, Lease, Watch, WatchCreateRequest_FilterType } from "$proto/etcdserverpb/rpc_pb.ts";
import { Event_EventType } from "$proto/mvccpb/kv_pb.ts";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule } from "../mod.ts";
import { ManualStore, newDisk } from "../testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) => new TextDecoder().decode(value);

/** The services behind RPC on a memory channel, in time that the test makes pass. */
async function open(config: Record<string, unknown> = {}) {
  const clock = createManualClock();
  const { service, leases, handlers, close } = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(newDisk(), replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config: kvConfigSchema.parse(config),
    random: createSeededRandom(1),
    log: { info: () => {}, error: () => {} },
    clock,
    pause: () => Promise.resolve(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  server.service(KV, handlers.kv).service(Watch, handlers.watch).service(Lease, handlers.lease);
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  return {
    clock,
    service,
    leases,
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    lease: createClient(Lease, transport),
    async [Symbol.asyncDispose]() {
      await close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

async function refusal(action: () => Promise<unknown>): Promise<[Code, string]> {
  try {
    await action();
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("expected a refusal");
}

async function nextOf<T>(messages: AsyncIterator<T>): Promise<T> {
  const { done, value } = await messages.next();
  if (done === true) throw new Error("the stream ended");
  return value;
}

Deno.test("Lease.LeaseGrant gives the id asked for or a positive one, and raises a short TTL", async () => {
  await using bench = await open();
  const { lease } = bench;
  const given = await lease.leaseGrant({ ID: 7n, TTL: 60n });
  assertEquals([given.ID, given.TTL, given.error, given.header?.revision], [7n, 60n, "", 1n]);
  const short = await lease.leaseGrant({ ID: -3n, TTL: -1n });
  assertEquals([short.ID, short.TTL], [-3n, 2n]);
  const chosen = await lease.leaseGrant({ TTL: 5n });
  assert(chosen.ID > 0n);
  const listed = await lease.leaseLeases({});
  assertEquals(listed.leases.map(({ ID }) => ID), [-3n, chosen.ID, 7n]);
});

Deno.test("Lease refuses with etcd's codes and texts", async () => {
  await using bench = await open({ lease: { leasesMax: 1 } });
  const { kv, lease } = bench;
  assertEquals(await refusal(() => lease.leaseGrant({ TTL: 9_000_000_001n })), [
    Code.OutOfRange,
    "etcdserver: too large lease TTL",
  ]);
  assertEquals((await lease.leaseGrant({ ID: 1n, TTL: 9_000_000_000n })).TTL, 9_000_000_000n);
  assertEquals(await refusal(() => lease.leaseGrant({ ID: 1n, TTL: 5n })), [
    Code.FailedPrecondition,
    "etcdserver: lease already exists",
  ]);
  assertEquals(await refusal(() => lease.leaseGrant({ ID: 2n, TTL: 5n })), [
    Code.ResourceExhausted,
    "etcdserver: too many requests",
  ]);
  const notFound: [Code, string] = [Code.NotFound, "etcdserver: requested lease not found"];
  assertEquals(await refusal(() => lease.leaseRevoke({ ID: 2n })), notFound);
  assertEquals(await refusal(() => lease.leaseRevoke({ ID: 0n })), notFound);
  assertEquals(await refusal(() => kv.put({ key: bytes("a"), lease: 2n })), notFound);
});

Deno.test("Lease.LeaseRevoke deletes the keys at one revision, with events; without keys the revision stays", async () => {
  await using bench = await open();
  const { kv, lease, watch } = bench;
  await lease.leaseGrant({ ID: 7n, TTL: 60n });
  for (const key of ["b", "a", "c"]) await kv.put({ key: bytes(key), value: bytes("1"), lease: 7n });
  await kv.put({ key: bytes("c"), value: bytes("2") });
  const events = watch.watch((async function* () {
    yield {
      requestUnion: {
        case: "createRequest" as const,
        value: {
          key: bytes("a"),
          rangeEnd: bytes("z"),
          prevKv: true,
          filters: [WatchCreateRequest_FilterType.NOPUT],
        },
      },
    };
    await new Promise(() => {});
  })())[Symbol.asyncIterator]();
  assertEquals((await nextOf(events)).created, true);
  assertEquals((await lease.leaseRevoke({ ID: 7n })).header?.revision, 6n);
  const answer = await nextOf(events);
  assertEquals(
    answer.events.map(({ type, kv, prevKv }) => [type, text(kv?.key), kv?.modRevision, prevKv?.lease]),
    [[Event_EventType.DELETE, "a", 6n, 7n], [Event_EventType.DELETE, "b", 6n, 7n]],
  );
  await events.return?.();
  const left = await kv.range({ key: bytes("a"), rangeEnd: bytes("z") });
  assertEquals(left.kvs.map(({ key, lease }) => [text(key), lease]), [["c", 0n]]);
  await lease.leaseGrant({ ID: 8n, TTL: 60n });
  assertEquals((await lease.leaseRevoke({ ID: 8n })).header?.revision, 6n);
});

Deno.test("Lease.LeaseTimeToLive cuts seconds off as etcd does, lists keys, and says -1 for an unknown lease", async () => {
  await using bench = await open();
  const { clock, kv, lease } = bench;
  await lease.leaseGrant({ ID: 7n, TTL: 60n });
  for (const key of ["b", "a"]) await kv.put({ key: bytes(key), lease: 7n });
  clock.advance(1);
  const time = await lease.leaseTimeToLive({ ID: 7n, keys: true });
  assertEquals([time.ID, time.TTL, time.grantedTTL, time.keys.map(text)], [7n, 59n, 60n, ["a", "b"]]);
  assertEquals((await lease.leaseTimeToLive({ ID: 7n })).keys, []);
  const unknown = await lease.leaseTimeToLive({ ID: 8n, keys: true });
  assertEquals([unknown.ID, unknown.TTL, unknown.grantedTTL, unknown.header?.revision], [8n, -1n, 0n, 3n]);
});

Deno.test("Lease.LeaseKeepAlive gives the whole time again; unknown and ended leases get 0", async () => {
  await using bench = await open();
  const { clock, kv, lease } = bench;
  await lease.leaseGrant({ ID: 7n, TTL: 10n });
  await kv.put({ key: bytes("a"), lease: 7n });
  let send: (id: bigint) => void = () => {};
  const answers = lease.leaseKeepAlive((async function* () {
    for (;;) yield { ID: await new Promise<bigint>((resolve) => send = resolve) };
  })())[Symbol.asyncIterator]();
  const ask = (id: bigint) => {
    const answer = nextOf(answers);
    send(id);
    return answer;
  };
  await Promise.resolve();
  clock.advance(9_000);
  const alive = await ask(7n);
  assertEquals([alive.ID, alive.TTL, alive.header?.revision], [7n, 10n, 2n]);
  assertEquals((await ask(9n)).TTL, 0n);
  clock.advance(9_999);
  assertEquals((await lease.leaseTimeToLive({ ID: 7n })).TTL, 0n);
  assertEquals((await ask(7n)).TTL, 10n);
  clock.advance(10_000);
  // It ran out and nobody ended it yet: it cannot be kept alive, and its keys are gone when that is told.
  assertEquals((await ask(7n)).TTL, 0n);
  assertEquals((await kv.range({ key: bytes("a") })).count, 0n);
  assertEquals((await lease.leaseTimeToLive({ ID: 7n })).TTL, -1n);
  await answers.return?.();
});

Deno.test("a key's own lease is one like others to etcd's clients, in whole seconds rounded up", async () => {
  await using bench = await open();
  const { clock, kv, lease, service } = bench;
  await service.put({
    kind: "put",
    key: bytes("a"),
    value: bytes("1"),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
    ttlMs: 1_500,
  });
  const ID = (await kv.range({ key: bytes("a") })).kvs[0]!.lease;
  clock.advance(400);
  const time = await lease.leaseTimeToLive({ ID, keys: true });
  assertEquals([time.TTL, time.grantedTTL, time.keys.map(text)], [2n, 2n, ["a"]]);
  assertEquals((await lease.leaseLeases({})).leases.map((each) => each.ID), [ID]);
  // A put that names it does not make it another's; the key goes on with it.
  await kv.put({ key: bytes("a"), value: bytes("2"), ignoreLease: true });
  assertEquals((await lease.leaseRevoke({ ID })).header?.revision, 4n);
  assertEquals((await kv.range({ key: bytes("a") })).count, 0n);
  assertEquals((await lease.leaseLeases({})).leases, []);
});
