/** A small key-value service in memory, behind the contract the gateway calls: what the gateway's tests run against. */
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createRouterTransport,
  type HandlerContext,
  type Transport,
} from "@connectrpc/connect";
import {
  type Change,
  Change_Kind,
  ChangeSchema,
  type Entry,
  EntrySchema,
  KeyValueService,
} from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { HostService, WorkerService, WorkerStatus_State } from "$proto/aetherflow/host/v1/host_pb.ts";
import { KV, Maintenance, Watch, type WatchResponse } from "$proto/etcdserverpb/rpc_pb.ts";

/** The service, and what tests do to it. */
export interface FakeKv {
  readonly transport: Transport;
  /** Headers of the last call, by method name. */
  readonly seen: Map<string, Headers>;
  /** Changes that watchers have taken. */
  readonly delivered: { count: number };
  /** Watches that are open. */
  readonly watching: { count: number };
  /** Makes every call fail this way until it is undefined again. */
  failure: ConnectError | undefined;
  /** Holds unary calls back until it resolves. */
  gate: Promise<void> | undefined;
  put(key: string, value: string): bigint;
  /** Revisions below this one cannot be watched any more. */
  compactedBelow: bigint;
}

const encoder = new TextEncoder();

/** Creates an empty store at revision 1. */
export function createFakeKv(): FakeKv {
  const entries = new Map<string, Entry>();
  const history: { revision: bigint; change: Change }[] = [];
  let revision = 1n;
  let wake = Promise.withResolvers<void>();
  const nameOf = (key: Uint8Array) => String.fromCharCode(...key);

  function record(kind: Change_Kind, entry: Entry): void {
    history.push({ revision, change: create(ChangeSchema, { kind, entry }) });
    wake.resolve();
    wake = Promise.withResolvers();
  }
  function write(key: Uint8Array, value: Uint8Array): Entry {
    revision++;
    const old = entries.get(nameOf(key));
    const entry = create(EntrySchema, {
      key: key.slice(),
      value: value.slice(),
      createRevision: old?.createRevision ?? revision,
      modRevision: revision,
      version: (old?.version ?? 0n) + 1n,
    });
    entries.set(nameOf(key), entry);
    record(Change_Kind.PUT, entry);
    return entry;
  }
  async function enter(method: string, context: HandlerContext): Promise<void> {
    fake.seen.set(method, context.requestHeader);
    if (fake.failure !== undefined) throw fake.failure;
    if (fake.gate !== undefined) await fake.gate;
  }
  function checkRevision(key: Uint8Array, wanted: bigint | undefined): void {
    if (wanted === undefined) return;
    const actual = entries.get(nameOf(key))?.modRevision ?? 0n;
    if (actual !== wanted) {
      throw new ConnectError(`the key is at revision ${actual}`, Code.FailedPrecondition);
    }
  }
  async function* changesFrom(start: bigint, signal: AbortSignal, matches: (key: Uint8Array) => boolean) {
    fake.watching.count++;
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener("abort", () => resolve(), { once: true })
    );
    try {
      for (let at = 0;;) {
        const next = history[at];
        if (next === undefined) {
          await Promise.race([wake.promise, aborted]);
          if (signal.aborted) return;
          continue;
        }
        at++;
        if (next.revision < start || !matches(next.change.entry!.key)) continue;
        fake.delivered.count++;
        yield next;
      }
    } finally {
      fake.watching.count--;
    }
  }
  const header = () => ({ clusterId: 7n, memberId: 9n, revision, raftTerm: 2n });
  const etcdKv = (entry: Entry) => ({
    key: entry.key,
    value: entry.value,
    createRevision: entry.createRevision,
    modRevision: entry.modRevision,
    version: entry.version,
  });

  const transport = createRouterTransport((router) => {
    router.service(KeyValueService, {
      async get(request, context) {
        await enter("Get", context);
        const entry = entries.get(nameOf(request.key));
        if (entry === undefined) throw new ConnectError("the key does not exist", Code.NotFound);
        return { entry, revision };
      },
      async put(request, context) {
        await enter("Put", context);
        checkRevision(request.key, request.ifModRevision);
        const entry = write(request.key, request.value);
        return { modRevision: entry.modRevision, version: entry.version };
      },
      async delete(request, context) {
        await enter("Delete", context);
        checkRevision(request.key, request.ifModRevision);
        const entry = entries.get(nameOf(request.key));
        if (entry === undefined) return { deleted: false, revision };
        revision++;
        entries.delete(nameOf(request.key));
        record(Change_Kind.DELETE, create(EntrySchema, { key: entry.key, modRevision: revision }));
        return { deleted: true, revision };
      },
      async list(request, context) {
        await enter("List", context);
        const prefix = nameOf(request.prefix);
        const all = [...entries.values()].filter((entry) => nameOf(entry.key).startsWith(prefix))
          .sort((a, b) => nameOf(a.key) < nameOf(b.key) ? -1 : 1);
        const from = Number(request.pageToken || "0");
        const page = all.slice(from, from + (request.pageSize || 100));
        return {
          entries: request.keysOnly ? page.map((entry) => ({ ...entry, value: new Uint8Array(0) })) : page,
          nextPageToken: from + page.length < all.length ? String(from + page.length) : "",
          revision,
          count: BigInt(all.length),
        };
      },
      async *watch(request, context) {
        await enter("Watch", context);
        if (request.startRevision !== 0n && request.startRevision < fake.compactedBelow) {
          throw new ConnectError("the revision has been compacted", Code.OutOfRange);
        }
        const start = request.startRevision === 0n ? revision + 1n : request.startRevision;
        yield { revision, changes: [] };
        const prefix = nameOf(request.prefix);
        const matches = request.key.length > 0
          ? (key: Uint8Array) => nameOf(key) === nameOf(request.key)
          : (key: Uint8Array) => nameOf(key).startsWith(prefix);
        for await (const each of changesFrom(start, context.signal, matches)) {
          yield { revision: each.revision, changes: [each.change] };
        }
      },
    });
    router.service(KV, {
      async range(request, context) {
        await enter("Range", context);
        if (request.key.length === 0) {
          throw new ConnectError("etcdserver: key is not provided", Code.InvalidArgument);
        }
        const entry = entries.get(nameOf(request.key));
        return {
          header: header(),
          kvs: entry === undefined ? [] : [etcdKv(entry)],
          count: entry === undefined ? 0n : 1n,
        };
      },
      async put(request, context) {
        await enter("Put", context);
        write(request.key, request.value);
        return { header: header() };
      },
      txn: () => ({ header: header(), succeeded: true, responses: [] }),
      compact() {
        throw new ConnectError("etcdserver: mvcc: required revision is a future revision", Code.OutOfRange);
      },
    });
    router.service(Maintenance, { status: () => ({ header: { ...header(), clusterId: 7n } }) });
    router.service(Watch, {
      async *watch(requests, context) {
        await enter("Watch", context);
        const iterator = requests[Symbol.asyncIterator]();
        const { value: request } = await iterator.next();
        if (request?.requestUnion.case !== "createRequest") return;
        const wanted = nameOf(request.requestUnion.value.key);
        yield { header: header(), created: true } as WatchResponse;
        // Further requests are read, as a real service does, and ignored.
        const readOn = async (): Promise<void> => {
          while (!(await iterator.next()).done);
        };
        readOn().catch(() => {});
        const start = request.requestUnion.value.startRevision || revision + 1n;
        for await (const each of changesFrom(start, context.signal, (key) => nameOf(key) === wanted)) {
          const entry = each.change.entry!;
          yield { header: header(), events: [{ kv: etcdKv(entry) }] } as unknown as WatchResponse;
        }
      },
    });
    router.service(WorkerService, {
      stats: () => ({ text: "# HELP kv_keys Keys.\n# TYPE kv_keys gauge\nkv_keys 3\n" }),
    });
    router.service(HostService, {
      readiness: () => ({
        workers: [
          { name: "kv", state: WorkerStatus_State.READY, sinceMs: 5n },
          { name: "gateway", state: WorkerStatus_State.READY, sinceMs: 4n },
        ],
      }),
      hostStats: () => ({ text: 'host_restarts_total{worker="kv"} 2\n' }),
    });
  });

  const fake: FakeKv = {
    transport,
    seen: new Map(),
    delivered: { count: 0 },
    watching: { count: 0 },
    failure: undefined,
    gate: undefined,
    compactedBelow: 0n,
    put: (key, value) => write(encoder.encode(key), encoder.encode(value)).modRevision,
  };
  return fake;
}
