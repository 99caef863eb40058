/** The registry against a real etcd, and against a client that plays a compaction. */
import { assertEquals } from "@std/assert";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  RangeRequestSchema,
  RangeResponseSchema,
  WatchRequestSchema,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { EtcdClient, type StreamListener } from "../../../storage/etcd/mod.ts";
import { type Server, startEtcd } from "../../../tests/support/server.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { type EtcdRegistry, type EtcdRegistryDeps, openEtcdRegistry } from "./etcd_registry.ts";

/** How long anything may take until it counts as hung, in ms. */
const DEADLINE_MS = 15_000;

interface Member extends AsyncDisposable {
  readonly registry: EtcdRegistry;
  /** Waits until so many removals were told, and the entries are these, as `key=value`. */
  sees(lostMin: number, ...expected: string[]): Promise<void>;
  /** Keys that were removed, in order. */
  readonly lost: string[];
}

function join(client: EtcdRegistryDeps["client"], ttlSeconds = 2): Member {
  let entries = new Map<string, string>();
  let look = () => {};
  const lost: string[] = [];
  const registry = openEtcdRegistry({
    client,
    prefix: "/services/",
    ttlSeconds,
    account: undefined,
    clock: systemClock,
    log: silentLogger,
    onAll(all) {
      entries = new Map(all);
      look();
    },
    onChange(key, value) {
      if (value === undefined) {
        entries.delete(key);
        lost.push(key);
      } else entries.set(key, value);
      look();
    },
  });
  return {
    registry,
    lost,
    sees: (lostMin, ...expected) =>
      new Promise((resolve, reject) => {
        const seen = () => [...entries].map(([key, value]) => `${key}=${value}`).sort();
        const timer = setTimeout(
          () => reject(new Error(`expected ${expected}, saw ${seen()}, lost ${lost}`)),
          DEADLINE_MS,
        );
        look = () => {
          if (lost.length < lostMin) return;
          if (JSON.stringify(seen()) !== JSON.stringify(expected.toSorted())) return;
          clearTimeout(timer);
          look = () => {};
          resolve();
        };
        look();
      }),
    [Symbol.asyncDispose]: () => registry.close(),
  };
}

function clientOf(...addresses: string[]): EtcdClient {
  return new EtcdClient({
    addresses,
    connectTimeoutMs: 500,
    requestTimeoutMs: 1_000,
    keepaliveTimeMs: 5_000,
    keepaliveTimeoutMs: 1_000,
    clock: systemClock,
    fraction: () => 0,
  });
}

async function etcdctl({ address }: Server, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("etcdctl", {
    args: ["--endpoints", address, ...args],
    env: { ETCDCTL_API: "3" },
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test("EtcdRegistry hears who comes, who changes and who leaves by the key of a DELETE, which has no value", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using watcher = join(clientOf(etcd.address));
  await using host = join(clientOf("127.0.0.1:1", etcd.address)); // one endpoint is not there
  host.registry.announce(new Map([["kv/10.0.0.1:1", "a"], ["kv/10.0.0.1:2", "b"]]));
  await watcher.sees(0, "kv/10.0.0.1:1=a", "kv/10.0.0.1:2=b");
  host.registry.announce(new Map([["kv/10.0.0.1:2", "b2"]]));
  await watcher.sees(0, "kv/10.0.0.1:2=b2");
  await host.registry.close();
  await watcher.sees(0);
});

Deno.test("EtcdRegistry enters again what somebody removed, and everything when its lease is gone", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using watcher = join(clientOf(etcd.address));
  await using host = join(clientOf(etcd.address));
  host.registry.announce(new Map([["kv/10.0.0.1:1", "a"], ["session/10.0.0.1:2", "b"]]));
  await watcher.sees(0, "kv/10.0.0.1:1=a", "session/10.0.0.1:2=b");
  await etcdctl(etcd, "del", "/services/kv/10.0.0.1:1");
  await watcher.sees(1, "kv/10.0.0.1:1=a", "session/10.0.0.1:2=b");
  const lease = /[0-9a-f]{16}/.exec(await etcdctl(etcd, "lease", "list"))![0];
  await etcdctl(etcd, "lease", "revoke", lease);
  await watcher.sees(3, "kv/10.0.0.1:1=a", "session/10.0.0.1:2=b");
});

Deno.test("EtcdRegistry keeps its entries for longer than the lease, through an end and a return of the registry", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using watcher = join(clientOf(etcd.address));
  await using host = join(clientOf(etcd.address));
  host.registry.announce(new Map([["kv/10.0.0.1:1", "a"]]));
  await watcher.sees(0, "kv/10.0.0.1:1=a");
  await etcd.stop();
  // What is told meanwhile is entered afterwards.
  host.registry.announce(new Map([["kv/10.0.0.1:1", "a"], ["kv/10.0.0.1:2", "b"]]));
  await etcd.restart();
  await watcher.sees(0, "kv/10.0.0.1:1=a", "kv/10.0.0.1:2=b");
  const renewed = performance.now() + 3_000;
  while (performance.now() < renewed) {
    await etcdctl(etcd, "put", "/services/other", String(performance.now()));
    const [key] = (await etcdctl(etcd, "get", "/services/kv/10.0.0.1:1")).split("\n");
    assertEquals(key, "/services/kv/10.0.0.1:1");
  }
});

Deno.test("EtcdRegistry reads everything again when the revision to watch from was compacted", async () => {
  const requests: string[] = [];
  let revision = 10n;
  const client: EtcdRegistryDeps["client"] = {
    unary(_path, request) {
      const { key } = fromBinary(RangeRequestSchema, request);
      requests.push(`range ${new TextDecoder().decode(key)}`);
      const kvs = [{
        key: new TextEncoder().encode("/services/kv/h:1"),
        value: new TextEncoder().encode("a"),
      }];
      return Promise.resolve(
        toBinary(RangeResponseSchema, create(RangeResponseSchema, { header: { revision }, kvs })),
      );
    },
    duplex(_path, listener: StreamListener) {
      return Promise.resolve({
        send(bytes: Uint8Array) {
          const { requestUnion } = fromBinary(WatchRequestSchema, bytes);
          if (requestUnion.case !== "createRequest") return;
          requests.push(`watch ${requestUnion.value.startRevision}`);
          if (revision === 20n) return;
          revision = 20n;
          const answer = { created: true, canceled: true, compactRevision: 15n };
          listener.onMessage(toBinary(WatchResponseSchema, create(WatchResponseSchema, answer)));
        },
        endSending() {},
        pause() {},
        resume() {},
        cancel() {},
      });
    },
    close() {},
  };
  await using watcher = join(client);
  await watcher.sees(0, "kv/h:1=a");
  while (requests.length < 4) await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(requests, ["range /services/", "watch 11", "range /services/", "watch 21"]);
});
