/** The registry of workers in an etcd: own entries under a lease that is kept alive, everybody's entries watched.
 *
 *  Two loops that know nothing of each other. One holds a lease and what is to be entered; whatever goes wrong with the
 *  lease ends in a new one and all entries again. The other reads all entries and watches from there; whatever ends the
 *  watch (a lost connection, a compaction) ends in reading all again, so that no change is missed. */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Event_EventType } from "$proto/mvccpb/kv_pb.ts";
import {
  Auth,
  AuthenticateRequestSchema,
  AuthenticateResponseSchema,
  DeleteRangeRequestSchema,
  KV,
  Lease,
  LeaseGrantRequestSchema,
  LeaseGrantResponseSchema,
  LeaseKeepAliveRequestSchema,
  LeaseKeepAliveResponseSchema,
  LeaseRevokeRequestSchema,
  PutRequestSchema,
  RangeRequestSchema,
  RangeResponseSchema,
  Watch,
  WatchRequestSchema,
  type WatchResponse,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { type EtcdClient, EtcdError, GRPC } from "../../../storage/etcd/mod.ts";
import type { Logger } from "../../runtime/log.ts";
import { ENTRIES_MAX } from "./address_book.ts";

/** Pause after the first failure in a row of one loop, in milliseconds; doubles up to PAUSE_MAX_MS. */
const PAUSE_FIRST_MS = 100;
const PAUSE_MAX_MS = 3_000;

/** Part of the lease's time after which it is renewed: two renewals may fail. */
const RENEW_PART = 1 / 3;

/** Longest wait for the lease's end when the host stops, in milliseconds. Otherwise it runs out by itself. */
const REVOKE_MS = 1_000;

/** How long a host with nothing to enter sleeps, in milliseconds, unless it is woken. */
const IDLE_MS = 3_600_000;

/** Status of a call that names a lease which is gone. */
const NOT_FOUND = 5;

/** What the registry is made of. */
export interface EtcdRegistryDeps {
  readonly client: Pick<EtcdClient, "unary" | "duplex" | "close">;
  /** What all keys begin with. */
  readonly prefix: string;
  readonly ttlSeconds: number;
  readonly account: { readonly username: string; readonly password: string } | undefined;
  readonly clock: { now(): number };
  readonly log: Logger;
  /** All entries there are, by key without the prefix: at a start, and after changes may have been missed. */
  onAll(entries: ReadonlyMap<string, string>): void;
  /** One entry was written; undefined: removed. */
  onChange(key: string, value: string | undefined): void;
}

/** The registry at work. */
export interface EtcdRegistry {
  /** What this host has in the registry from now on, by key without the prefix. Kept there until `close`. */
  announce(entries: ReadonlyMap<string, string>): void;
  /** Takes the entries out and ends. */
  close(): Promise<void>;
}

/** Begins to follow the registry, which need not be there yet. */
export function openEtcdRegistry(deps: EtcdRegistryDeps): EtcdRegistry {
  const { clock, log } = deps;
  const prefix = encoder.encode(deps.prefix);
  const closing = new AbortController();
  const { signal } = closing;
  let token: string | undefined;
  let wanted: ReadonlyMap<string, string> = new Map();
  /** What the registry has of ours under the present lease. */
  const entered = new Map<string, string>();
  let lease: bigint | undefined;
  let wake: () => void = () => {};

  async function call<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageShape<I>,
    output: O,
    isRepeatable: boolean,
    timeoutMs?: number,
  ): Promise<MessageShape<O>> {
    const answer = await deps.client.unary(pathOf(method), toBinary(method.input, request), {
      isRepeatable,
      metadata: await credentials(),
      ...(timeoutMs === undefined ? { signal } : { timeoutMs }),
    });
    return fromBinary(output, answer);
  }

  async function credentials(): Promise<Record<string, string>> {
    if (deps.account === undefined) return {};
    if (token === undefined) {
      const { username: name, password } = deps.account;
      const request = create(AuthenticateRequestSchema, { name, password });
      const answer = await deps.client.unary(
        pathOf(Auth.method.authenticate),
        toBinary(AuthenticateRequestSchema, request),
        { isRepeatable: true, signal },
      );
      token = fromBinary(AuthenticateResponseSchema, answer).token;
    }
    return { token };
  }

  /** Runs `step` until the registry is closed, with pauses after failures. */
  async function forever(what: string, step: (succeeded: () => void) => Promise<void>): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      try {
        await step(() => {
          if (failures > 0) log.info("the registry answers again", { what });
          failures = 0;
        });
      } catch (error) {
        if (signal.aborted) return;
        // A token that has run out, or an account that was not there yet: asked for again.
        token = undefined;
        const first = failures++ === 0;
        log[first ? "warn" : "debug"]("the registry cannot be used", { what, error: messageOf(error) });
        await pause(Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(failures - 1, 10)));
      }
    }
  }

  function pause(ms: number): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done);
    });
  }

  /** One life of a lease. */
  async function holdLease(succeeded: () => void): Promise<void> {
    entered.clear();
    // A host that has nothing to enter needs no lease.
    while (wanted.size === 0 && !signal.aborted) await idle(IDLE_MS);
    if (signal.aborted) return;
    const grant = create(LeaseGrantRequestSchema, { TTL: BigInt(deps.ttlSeconds) });
    lease = (await call(Lease.method.leaseGrant, grant, LeaseGrantResponseSchema, false)).ID;
    let renewAtMs = clock.now() + deps.ttlSeconds * 1_000 * RENEW_PART;
    try {
      while (!signal.aborted) {
        await enter();
        succeeded();
        const leftMs = renewAtMs - clock.now();
        if (leftMs > 0) {
          await idle(leftMs);
          continue;
        }
        renewAtMs = clock.now() + deps.ttlSeconds * 1_000 * RENEW_PART;
        if (!await renew(lease)) {
          return void log.warn("the registry has lost our lease; entering everything again");
        }
      }
    } catch (error) {
      if (error instanceof EtcdError && error.code === NOT_FOUND) {
        return void log.warn("the registry has lost our lease; entering everything again");
      }
      // Whatever it was: the lease may be good still, and runs out by itself if it is not held.
      throw error;
    }
  }

  /** Makes the registry's entries of this host the wanted ones. */
  async function enter(): Promise<void> {
    for (const [key, value] of wanted) {
      if (entered.get(key) === value) continue;
      const put = create(PutRequestSchema, {
        key: encoder.encode(deps.prefix + key),
        value: encoder.encode(value),
        lease: lease!,
      });
      await call(KV.method.put, put, KV.method.put.output, true);
      entered.set(key, value);
    }
    for (const key of [...entered.keys()]) {
      if (wanted.has(key)) continue;
      const request = create(DeleteRangeRequestSchema, { key: encoder.encode(deps.prefix + key) });
      await call(KV.method.deleteRange, request, KV.method.deleteRange.output, true);
      entered.delete(key);
    }
  }

  /** Waits until there is something to enter, `ms` have passed, or the registry is closed. */
  function idle(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => wake(), ms);
      wake = () => {
        clearTimeout(timer);
        wake = () => {};
        resolve();
      };
      if (signal.aborted || isBehind()) wake();
    });
  }

  function isBehind(): boolean {
    if (wanted.size !== entered.size) return true;
    return [...wanted].some(([key, value]) => entered.get(key) !== value);
  }

  /** Asks for more time. False if the lease is gone. */
  async function renew(id: bigint): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const stream = await deps.client.duplex(pathOf(Lease.method.leaseKeepAlive), {
      onMessage: (bytes) => resolve(fromBinary(LeaseKeepAliveResponseSchema, bytes).TTL > 0n),
      onEnd: (error) => reject(error ?? new EtcdError(GRPC.UNAVAILABLE, "the stream ended")),
    }, { metadata: await credentials(), signal });
    const late = setTimeout(
      () => reject(new EtcdError(GRPC.DEADLINE_EXCEEDED, "the lease was not renewed in time")),
      deps.ttlSeconds * 1_000 * RENEW_PART,
    );
    const onAbort = () => resolve(true);
    signal.addEventListener("abort", onAbort);
    try {
      stream.send(toBinary(LeaseKeepAliveRequestSchema, create(LeaseKeepAliveRequestSchema, { ID: id })));
      return await promise;
    } finally {
      clearTimeout(late);
      signal.removeEventListener("abort", onAbort);
      stream.cancel();
    }
  }

  /** Reads all entries and follows them until the watch ends. */
  async function follow(succeeded: () => void): Promise<void> {
    const range = create(RangeRequestSchema, {
      key: prefix,
      rangeEnd: endOf(prefix),
      limit: BigInt(ENTRIES_MAX),
    });
    const { kvs, header } = await call(KV.method.range, range, RangeResponseSchema, true);
    const entries = new Map(kvs.map(({ key, value }) => [keyOf(key), decoder.decode(value)]));
    const missing = [...entered.keys()].filter((key) => !entries.has(key));
    for (const key of missing) entered.delete(key);
    if (missing.length > 0) wake();
    deps.onAll(entries);
    const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
    const stream = await deps.client.duplex(pathOf(Watch.method.watch), {
      onMessage(bytes) {
        const answer = fromBinary(WatchResponseSchema, bytes);
        if (answer.canceled) return reject(new Error(`the watch was ended: ${reasonOf(answer)}`));
        succeeded();
        for (const { type, kv } of answer.events) {
          if (kv === undefined) continue;
          const key = keyOf(kv.key);
          const isGone = type === Event_EventType.DELETE;
          // Somebody took it out: it is entered again.
          if (isGone && entered.delete(key)) wake();
          // A DELETE has no value: the key says whose entry it was.
          deps.onChange(key, isGone ? undefined : decoder.decode(kv.value));
        }
      },
      onEnd: (error) => reject(error ?? new Error("the watch ended")),
    }, { metadata: await credentials(), signal });
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort);
    stream.send(toBinary(
      WatchRequestSchema,
      create(WatchRequestSchema, {
        requestUnion: {
          case: "createRequest",
          value: { key: prefix, rangeEnd: endOf(prefix), startRevision: (header?.revision ?? 0n) + 1n },
        },
      }),
    ));
    try {
      if (!signal.aborted) await ended;
    } finally {
      signal.removeEventListener("abort", onAbort);
      stream.cancel();
    }
  }

  function keyOf(bytes: Uint8Array): string {
    return decoder.decode(bytes).slice(deps.prefix.length);
  }

  const loops = [forever("entries of this host", holdLease), forever("entries of others", follow)];

  return {
    announce(entries) {
      wanted = new Map(entries);
      wake();
    },
    async close() {
      if (signal.aborted) return;
      closing.abort();
      wake();
      await Promise.all(loops);
      if (lease !== undefined && entered.size > 0) {
        const request = create(LeaseRevokeRequestSchema, { ID: lease });
        try {
          await call(Lease.method.leaseRevoke, request, Lease.method.leaseRevoke.output, true, REVOKE_MS);
        } catch (error) {
          log.warn("our entries stay in the registry until their lease runs out", {
            error: messageOf(error),
          });
        }
      }
      deps.client.close();
    },
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function pathOf({ parent, name }: DescMethod): string {
  return `/${parent.typeName}/${name}`;
}

/** The key after all keys that begin with `prefix`, which is text and so has no byte 255. */
function endOf(prefix: Uint8Array): Uint8Array {
  const end = prefix.slice();
  end[end.length - 1]!++;
  return end;
}

function reasonOf({ cancelReason, compactRevision }: WatchResponse): string {
  return compactRevision > 0n ? `compacted at revision ${compactRevision}` : cancelReason;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
