/** `aetherflow kv lease …`: leases, whose keys go when they run out. Ids are shown in hexadecimal, as etcdctl does. */
import { complain, printLine } from "../output.ts";
import {
  ApiError,
  attempt,
  call,
  EXIT_NOT_FOUND,
  type KvOptions,
  readableText,
  usageError,
} from "./client.ts";

/** Most seconds between two renewals of a lease that is kept alive; short leases are renewed three times a lifetime. */
const RENEW_SECONDS_MAX = 30;

/** Grants a lease and prints its id. */
export function grant(ttl: string, options: KvOptions & { id?: string }): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/lease/grant", {
      TTL: wholeSeconds(ttl),
      ID: options.id === undefined ? "0" : leaseId(options.id),
    });
    const id = hex(answer.ID);
    if (options.json) printLine(JSON.stringify({ id, ttl: Number(answer.TTL) }));
    else printLine(`${id}\t${answer.TTL} s`);
  });
}

/** Ends a lease; its keys are deleted. */
export function revoke(id: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    await call(options, "/v3/lease/revoke", { ID: leaseId(id) });
    if (options.json) printLine(JSON.stringify({ id, revoked: true }));
  });
}

/** Renews a lease once, or until interrupted. */
export function keepAlive(id: string, options: KvOptions & { once?: boolean }): Promise<number> {
  return attempt(async () => {
    for (;;) {
      const ttl = await renew(options, leaseId(id));
      if (options.json) printLine(JSON.stringify({ id, ttl }));
      else printLine(`${id}\t${ttl} s`);
      if (options.once) return;
      await new Promise((resolve) => setTimeout(resolve, renewalMs(ttl)));
    }
  });
}

/** Prints how long a lease has left. */
export function timeToLive(id: string, options: KvOptions & { keys?: boolean }): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/lease/timetolive", {
      ID: leaseId(id),
      keys: options.keys ?? false,
    });
    const ttl = Number(answer.TTL ?? 0);
    if (ttl < 0) throw gone(id);
    const keys = (answer.keys ?? []).map(readableText) as string[];
    if (options.json) {
      printLine(
        JSON.stringify({ id, ttl, grantedTtl: Number(answer.grantedTTL), ...(options.keys ? { keys } : {}) }),
      );
      return;
    }
    printLine(`${id}\t${ttl} s of ${answer.grantedTTL} s`);
    for (const key of keys) printLine(`\t${key}`);
  });
}

/** Prints the ids of all leases. */
export function list(options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/lease/leases");
    for (const lease of answer.leases ?? []) {
      const id = hex(lease.ID);
      printLine(options.json ? JSON.stringify({ id }) : id);
    }
  });
}

/** Renews a lease; the seconds it has now. @throws {ApiError} when there is no such lease. */
export async function renew(options: KvOptions, id: string): Promise<number> {
  const { result } = await call(options, "/v3/lease/keepalive", { ID: id });
  const ttl = Number(result.TTL ?? 0);
  if (ttl <= 0) throw gone(hex(id));
  return ttl;
}

/** Keeps a lease alive until `signal` aborts; calls `onLost` when it cannot be kept. */
export async function keep(
  options: KvOptions,
  id: string,
  ttl: number,
  signal: AbortSignal,
  onLost: (error: unknown) => void,
): Promise<void> {
  let left = ttl;
  for (let tries = 0; !signal.aborted;) {
    await sleep(renewalMs(left), signal);
    if (signal.aborted) return;
    try {
      left = await renew(options, id);
      tries = 0;
    } catch (error) {
      // A lease outlives two renewals that fail; an unknown one is lost at once.
      if (++tries >= 3 || !(error instanceof ApiError) || !error.retryable) return onLost(error);
      complain(`cannot renew the lease, trying again: ${error.message}`);
    }
  }
}

/** The id of etcd's JSON (decimal) from hexadecimal. @throws {ApiError} when it is none. */
export function leaseId(text: string): string {
  if (!/^[0-9a-f]{1,16}$/i.test(text)) throw usageError(`a lease id is hexadecimal, not ${text}`);
  return String(BigInt(`0x${text}`));
}

/** The id as people see it. */
export function hex(id: string): string {
  return BigInt(id).toString(16);
}

function renewalMs(ttl: number): number {
  return Math.min(ttl / 3, RENEW_SECONDS_MAX) * 1_000;
}

function wholeSeconds(text: string): string {
  if (!/^[1-9]\d{0,9}$/.test(text)) {
    throw usageError(`a time to live is whole seconds, 1 or more, not ${text}`);
  }
  return text;
}

function gone(id: string): ApiError {
  return new ApiError(`there is no lease ${id}`, EXIT_NOT_FOUND, false);
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
