/** What takes several clients, time or size: the same short plays on a real etcd and on AetherFlow, told alike. */
import {
  Cluster,
  KV,
  Lease,
  Maintenance,
  Watch,
  type WatchCreateRequestSchema,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";
import { startEtcd } from "../support/server.ts";
import { canonical } from "./canonical.ts";
import { createGrpcClient, type GrpcClient, type Outcome } from "./client.ts";
import { bytes, prefixEnd } from "./operations.ts";

/** How long an event may take until it counts as lost, in ms: a lease of 2 s runs out in the meantime. */
const EVENT_DEADLINE_MS = 20_000;

/** A server, and what it said so far. */
interface Scene {
  readonly client: GrpcClient;
  /** Notes an answer down. */
  say(what: string, outcome: Outcome<unknown>): void;
  note(what: string, value: unknown): void;
  /** Opens a watch; resolves once it is in place. */
  watch(create: MessageInitShape<typeof WatchCreateRequestSchema>): Promise<Events>;
}

interface Events extends Disposable {
  /** The next event as text: put or delete, key, value, revision. */
  next(): Promise<string>;
}

const plays: Record<string, (scene: Scene) => Promise<void>> = {
  async "a lease runs out and takes its keys along at one revision"({ client, say, note, watch }) {
    using events = await watch({ key: bytes("a"), rangeEnd: bytes("z") });
    say("grant", await client.unary(Lease.method.leaseGrant, { ID: 5n, TTL: 1n }));
    for (const key of ["b", "a", "c"]) {
      say(key, await client.unary(KV.method.put, { key: bytes(key), value: bytes("1"), lease: 5n }));
    }
    say("left alone", await client.unary(KV.method.put, { key: bytes("c"), value: bytes("2") }));
    for (let i = 0; i < 4; i++) note("event", await events.next());
    // The order of the deletions of one revision is open.
    note("deletions", [await events.next(), await events.next()].sort());
    say("afterwards", await client.unary(Lease.method.leaseTimeToLive, { ID: 5n, keys: true }));
    say("keys", await client.unary(KV.method.range, { key: bytes("a"), rangeEnd: bytes("z") }));
    say("revoke", await client.unary(Lease.method.leaseRevoke, { ID: 5n }));
  },

  async "a lock goes from hand to hand"({ client, say, note, watch }) {
    for (const ID of [1n, 2n]) say("grant", await client.unary(Lease.method.leaseGrant, { ID, TTL: 1_000n }));
    using keys = await watch({ key: bytes("job/"), rangeEnd: prefixEnd(bytes("job/")) });
    say("first", await client.unary(Lock.method.lock, { name: bytes("job"), lease: 1n }));
    say("again", await client.unary(Lock.method.lock, { name: bytes("job"), lease: 1n }));
    note("event", await keys.next());
    const waiting = client.unary(Lock.method.lock, { name: bytes("job"), lease: 2n });
    note("event", await keys.next());
    say("unlock", await client.unary(Lock.method.unlock, { key: bytes("job/1") }));
    say("second", await waiting);
    note("event", await keys.next());
    const third = client.unary(Lock.method.lock, { name: bytes("job"), lease: 1n });
    note("event", await keys.next());
    say("the holder's lease ends", await client.unary(Lease.method.leaseRevoke, { ID: 2n }));
    say("third", await third);
    say("unlock", await client.unary(Lock.method.unlock, { key: bytes("job/1") }));
  },

  async "an election has one leader after the other"({ client, say, note, watch }) {
    for (const ID of [1n, 2n]) say("grant", await client.unary(Lease.method.leaseGrant, { ID, TTL: 1_000n }));
    using keys = await watch({ key: bytes("e/"), rangeEnd: prefixEnd(bytes("e/")) });
    const name = bytes("e");
    say("nobody", await client.unary(Election.method.leader, { name }));
    const first = await client.unary(Election.method.campaign, { name, lease: 1n, value: bytes("one") });
    say("first", first);
    note("event", await keys.next());
    say("leader", await client.unary(Election.method.leader, { name }));
    if (!first.ok || first.message.leader === undefined) return;
    const { leader } = first.message;
    say("proclaim", await client.unary(Election.method.proclaim, { leader, value: bytes("uno") }));
    note("event", await keys.next());
    const { messages } = await client.list(Election.method.observe, { name }, { limit: 1 });
    note("observed", messages);
    const second = client.unary(Election.method.campaign, { name, lease: 2n, value: bytes("two") });
    note("event", await keys.next());
    say("resign", await client.unary(Election.method.resign, { leader }));
    say("second", await second);
    say("too late", await client.unary(Election.method.proclaim, { leader, value: bytes("x") }));
    say("leader", await client.unary(Election.method.leader, { name }));
    say("no leader key", await client.unary(Election.method.proclaim, { value: bytes("x") }));
  },

  async "large values are watched in fragments and whole"({ client, say, note, watch }) {
    const value = new Uint8Array(700_000).fill(7);
    for (let i = 0; i < 6; i++) {
      say("put", await client.unary(KV.method.put, { key: bytes(`big/${i}`), value }));
    }
    for (const fragment of [true, false]) {
      using events = await watch({
        key: bytes("big/"),
        rangeEnd: bytes("big0"),
        startRevision: 2n,
        fragment,
      });
      for (let i = 0; i < 6; i++) note("event", await events.next());
    }
  },

  async "requests beyond the size are refused"({ client, say }) {
    for (const size of [1_600_000, 2_050_000]) {
      say(`${size}`, await client.unary(KV.method.put, { key: bytes("a"), value: new Uint8Array(size) }));
    }
    const value = new Uint8Array(300_000);
    const success = Array.from({ length: 6 }, (_, i) => ({
      request: { case: "requestPut" as const, value: { key: bytes(String(i)), value } },
    }));
    say("txn", await client.unary(KV.method.txn, { success }));
    say("nothing", await client.unary(KV.method.range, { key: bytes("\0"), rangeEnd: bytes("\0") }));
  },

  async "the cluster refuses what a cluster of one cannot do"({ client, say }) {
    say("remove", await client.unary(Cluster.method.memberRemove, { ID: 99n }));
    say("add", await client.unary(Cluster.method.memberAdd, { peerURLs: ["not a url"] }));
    say("list", await client.unary(Cluster.method.memberList, {}));
    say("move", await client.unary(Maintenance.method.moveLeader, { targetID: 99n }));
  },

  async "maintenance leaves the data as it is"({ client, say, note }) {
    for (let i = 0; i < 20; i++) {
      say("put", await client.unary(KV.method.put, { key: bytes(`k${i % 3}`), value: bytes(String(i)) }));
    }
    say("compact", await client.unary(KV.method.compact, { revision: 15n, physical: true }));
    say("hash", await client.unary(Maintenance.method.hashKV, { revision: 0n }));
    say("defragment", await client.unary(Maintenance.method.defragment, {}));
    say("hash", await client.unary(Maintenance.method.hashKV, { revision: 18n }));
    const { messages, end } = await client.list(Maintenance.method.snapshot, {});
    say("snapshot", end);
    note("left at the end", messages.at(-1)?.remainingBytes);
    say("all", await client.unary(KV.method.range, { key: bytes("k"), rangeEnd: bytes("l") }));
  },
};

for (const [name, play] of Object.entries(plays)) {
  Deno.test(`as with etcd: ${name}`, async (t) => {
    await using etcd = await startEtcd(t, { unsafeNoFsync: true });
    if (etcd === undefined) return;
    await using product = await startProduct({ args: ["--set", "log.level=error"] });
    const [right, got] = await Promise.all([
      perform(etcd.address, play),
      perform(product.addresses.grpc ?? "", play),
    ]);
    assertEquals(got, right);
  });
}

/** Plays on one server and returns what it said. */
async function perform(address: string, play: (scene: Scene) => Promise<void>): Promise<string[]> {
  using client = createGrpcClient(address);
  const said: string[] = [];
  const names = { leaseName: () => undefined };
  const note = (what: string, value: unknown) => {
    said.push(`${what}: ${JSON.stringify(canonical(value, names))}`.slice(0, 500));
  };
  await play({
    client,
    note,
    say: (what, outcome) => note(what, outcome.ok ? outcome.message : `${outcome.code} ${outcome.text}`),
    watch: (create) => watch(client, create),
  });
  return said;
}

async function watch(
  client: GrpcClient,
  create: MessageInitShape<typeof WatchCreateRequestSchema>,
): Promise<Events> {
  const streams = client.bidi(Watch.method.watch);
  const created = Promise.withResolvers<void>();
  const waiting: string[] = [];
  let arrived = () => {};
  streams.onMessage = (message) => {
    if (message.created) created.resolve();
    waiting.push(...eventsOf(message));
    arrived();
  };
  streams.send({ requestUnion: { case: "createRequest", value: create } });
  await created.promise;
  return {
    async next() {
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(() => late.reject(new Error("no event came")), EVENT_DEADLINE_MS);
      try {
        while (waiting.length === 0) {
          await Promise.race([late.promise, new Promise<void>((resolve) => arrived = resolve)]);
        }
      } finally {
        clearTimeout(timer);
      }
      return waiting.shift() ?? "";
    },
    [Symbol.dispose]: () => streams.cancel(),
  };
}

function eventsOf({ events }: WatchResponse): string[] {
  const text = (part: Uint8Array | undefined) => String.fromCharCode(...(part ?? []).slice(0, 100));
  return events.map(({ type, kv }) =>
    `${type === 0 ? "put" : "delete"} ${text(kv?.key)} ${
      text(kv?.value)
    } ${kv?.value.length} @${kv?.modRevision}`
  );
}
