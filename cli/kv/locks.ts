/** `aetherflow kv lock|elect`: one at a time. A holder is the oldest key under a name, attached to a lease, as in etcd's
 *  own recipe, so that etcdctl and these commands wait for one another. */
import { onInterrupt } from "../interrupt.ts";
import { printLine } from "../output.ts";
import {
  ApiError,
  attempt,
  call,
  EXIT_ERROR,
  type KvOptions,
  prefixEnd,
  readableText,
  results,
  toBase64,
} from "./client.ts";
import { hex, keep } from "./leases.ts";

/** Seconds after which a holder that died is forgotten. */
const TTL_SECONDS = 10;

/** Waits for the lock, prints its key and fencing token, and holds it until interrupted. */
export function lock(name: string, options: KvOptions & { ttl?: string }): Promise<number> {
  return attempt(() =>
    hold(name, "", options, ({ key, revision }) => {
      if (options.json) printLine(JSON.stringify({ key, fencingToken: revision }));
      else printLine(`${key}\t${revision}`);
    })
  );
}

/** Campaigns for the leadership of `name` with `proposal`, and leads until interrupted. */
export function elect(
  name: string,
  proposal: string,
  options: KvOptions & { ttl?: string },
): Promise<number> {
  return attempt(() =>
    hold(name, proposal, options, ({ key, revision }) => {
      if (options.json) printLine(JSON.stringify({ key, proposal, fencingToken: revision }));
      else printLine(`${key}\t${proposal}`);
    })
  );
}

/** Prints who leads, and each change of it, until interrupted. */
export function observe(name: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    for await (const { kv } of results(options, "/v3/election/observe", { name: toBase64(name) })) {
      const key = readableText(kv.key);
      const proposal = readableText(kv.value);
      printLine(options.json ? JSON.stringify({ key, proposal }) : `${key}\t${proposal}`);
    }
  });
}

interface Held {
  readonly key: string;
  /** Create revision of the key: grows from holder to holder, so it fences off those who were before. */
  readonly revision: string;
}

async function hold(
  name: string,
  value: string,
  options: KvOptions & { ttl?: string },
  onHeld: (held: Held) => void,
): Promise<void> {
  const granted = await call(options, "/v3/lease/grant", { TTL: options.ttl ?? String(TTL_SECONDS) });
  const lease = granted.ID as string;
  const stop = new AbortController();
  let lost: unknown;
  using _interrupt = onInterrupt(() => stop.abort());
  const renewing = keep(options, lease, Number(granted.TTL), stop.signal, (error) => {
    lost = error;
    stop.abort();
  });
  try {
    const held = await enter(name, value, lease, options, stop.signal);
    if (held !== undefined) {
      onHeld(held);
      await aborted(stop.signal);
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    stop.abort();
    await renewing;
    if (lost === undefined) await call(options, "/v3/lease/revoke", { ID: lease });
  }
  if (lost !== undefined) {
    const reason = lost instanceof Error ? lost.message : String(lost);
    throw new ApiError(`the lease was lost, and the lock with it: ${reason}`, EXIT_ERROR, false);
  }
}

/** Puts the own key and waits until all older ones are gone; undefined when stopped before. */
async function enter(
  name: string,
  value: string,
  lease: string,
  options: KvOptions,
  signal: AbortSignal,
): Promise<Held | undefined> {
  const prefix = `${name}/`;
  const key = `${prefix}${hex(lease)}`;
  const put = { request_put: { key: toBase64(key), value: toBase64(value), lease } };
  await call(options, "/v3/kv/txn", { success: [put] });
  const own = await call(options, "/v3/kv/range", { key: toBase64(key) });
  const revision = own.kvs[0].create_revision as string;
  while (!signal.aborted) {
    const older = await call(options, "/v3/kv/range", {
      key: toBase64(prefix),
      range_end: prefixEnd(prefix),
      max_create_revision: String(BigInt(revision) - 1n),
      sort_order: "DESCEND",
      sort_target: "CREATE",
      limit: "1",
    });
    const before = older.kvs?.[0];
    if (before === undefined) {
      // The wait may have outlived the lease: only a key that is still there holds the lock.
      const { kvs } = await call(options, "/v3/kv/range", { key: toBase64(key) });
      if (kvs?.[0]?.create_revision === revision) return { key, revision };
      throw new ApiError("the lease ran out while waiting", EXIT_ERROR, false);
    }
    await deleted(before.key, String(BigInt(older.header.revision) + 1n), options, signal);
  }
  return undefined;
}

/** Waits until a key is deleted at `fromRevision` or later, or the stream ends. */
async function deleted(
  key: string,
  fromRevision: string,
  options: KvOptions,
  signal: AbortSignal,
): Promise<void> {
  const create_request = { key, start_revision: fromRevision, filters: ["NOPUT"] };
  try {
    for await (const { events } of results(options, "/v3/watch", { create_request }, signal)) {
      if (events !== undefined) return;
    }
  } catch (error) {
    // Whatever ended the stream: the next look at the keys says where we stand.
    if (!signal.aborted && !(error instanceof ApiError && error.retryable)) throw error;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
