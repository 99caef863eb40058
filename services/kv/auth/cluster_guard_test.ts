import { Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  KV,
  Lease,
  type RangeRequest,
  Watch,
  type WatchCreateRequest,
  type WatchRequest,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import {
  ANONYMOUS,
  DEVELOPER,
  encodePrincipal,
  PRINCIPAL_METADATA,
  SYSTEM_KEYS,
} from "../../runtime/principal.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { createClusterGuard, guardCluster } from "./cluster_guard.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const as = (principal: Parameters<typeof encodePrincipal>[0]) => ({
  headers: { [PRINCIPAL_METADATA]: encodePrincipal(principal) },
});
const BOB = as(create(PrincipalSchema, {
  kind: Principal_Kind.USER,
  username: "bob",
  roles: ["member"],
  grants: [{ service: "kv", prefix: "b/", write: true }],
}));

async function codeOf(call: () => Promise<unknown>): Promise<Code | "ok"> {
  try {
    await call();
    return "ok";
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return error.code;
  }
}

Deno.test("a cluster is told of what a caller may do, and of nothing else", async () => {
  const { auth } = kvConfigSchema.parse({});
  const guard = createClusterGuard({
    limits: auth,
    random: createSeededRandom(1),
    clock: createManualClock(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer();
  const told: string[] = [];
  const tell = (name: string) => () => {
    told.push(name);
    return Promise.resolve({});
  };
  server.service(KV, guardCluster(guard, KV, { put: tell("put"), range: tell("range") } as never));
  server.service(Lease, guardCluster(guard, Lease, { leaseRevoke: tell("revoke") } as never));
  server.service(
    Watch,
    guardCluster(guard, Watch, {
      async *watch(requests: AsyncIterable<unknown>) {
        for await (const _ of requests) {
          told.push("watch");
          yield {};
        }
      },
    } as never),
  );
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const kv = createClient(KV, transport);
  const lease = createClient(Lease, transport);
  const watch = createClient(Watch, transport);
  const watched = async (key: string, options: typeof BOB) => {
    async function* requests() {
      yield { requestUnion: { case: "createRequest" as const, value: { key: bytes(key) } } };
    }
    for await (const _ of watch.watch(requests() as never, options));
  };

  assertEquals(await codeOf(() => kv.put({ key: bytes("b/x") }, BOB)), "ok");
  assertEquals(await codeOf(() => kv.put({ key: bytes("c") }, BOB)), Code.PermissionDenied);
  assertEquals(await codeOf(() => watched("b/x", BOB)), "ok");
  assertEquals(await codeOf(() => watched("c", BOB)), Code.PermissionDenied);
  // Whose keys a lease has, only the cluster knows.
  assertEquals(await codeOf(() => lease.leaseRevoke({ ID: 7n }, BOB)), Code.PermissionDenied);
  // Whether the cluster looks at tokens at all is not known here.
  const token = { headers: { ...as(ANONYMOUS).headers, token: "abc.1" } };
  assertEquals(await codeOf(() => kv.put({ key: bytes("b/x") }, token)), Code.Unauthenticated);
  assertEquals(await codeOf(() => watched("b/x", token)), Code.Unauthenticated);
  assertEquals(told, ["put", "watch"]);
  assertEquals(await codeOf(() => kv.put({ key: bytes("c") }, as(DEVELOPER))), "ok");
  assertEquals(await codeOf(() => watched("c", as(DEVELOPER))), "ok");
  assertEquals(told, ["put", "watch", "put", "watch"]);
  near.close(0, "end of test");
  await server.drain();
});

Deno.test("a cluster is asked for no keys of the product by whoever was granted every key", async () => {
  const { auth } = kvConfigSchema.parse({});
  const guard = createClusterGuard({
    limits: auth,
    random: createSeededRandom(1),
    clock: createManualClock(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer();
  const told: string[] = [];
  const tell = ({ key, rangeEnd }: { key: Uint8Array; rangeEnd: Uint8Array }) =>
    void told.push(`${JSON.stringify(String.fromCharCode(...key))}..${rangeEnd.length}`);
  server.service(
    KV,
    guardCluster(guard, KV, {
      range(request: RangeRequest) {
        tell(request);
        return Promise.resolve({});
      },
    } as never),
  );
  server.service(
    Watch,
    guardCluster(guard, Watch, {
      async *watch(requests: AsyncIterable<WatchRequest>) {
        for await (const { requestUnion } of requests) {
          tell(requestUnion.value as WatchCreateRequest);
          yield {};
        }
      },
    } as never),
  );
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const kv = createClient(KV, transport);
  const watch = createClient(Watch, transport);
  const all = { key: bytes("\0"), rangeEnd: bytes("\0") };
  const watchAll = async (options: typeof BOB) => {
    async function* requests() {
      yield { requestUnion: { case: "createRequest" as const, value: all } };
    }
    for await (const _ of watch.watch(requests() as never, options));
  };
  const ann = as(create(PrincipalSchema, {
    kind: Principal_Kind.USER,
    username: "ann",
    roles: ["member"],
    grants: [{ service: "kv", prefix: "", write: true }],
  }));
  for (const options of [ann, as(DEVELOPER)]) {
    await kv.range(all, options);
    await watchAll(options);
  }
  assertEquals(told, ['"\\u0001"..1', '"\\u0001"..1', '"\\u0000"..1', '"\\u0000"..1']);
  assertEquals(await codeOf(() => kv.range({ key: bytes(`${SYSTEM_KEYS}x`) }, ann)), Code.PermissionDenied);
  near.close(0, "end of test");
  await server.drain();
});
