/** `aetherflow doc lock …`: one at a time. */
import { type Api, ApiError, attempt, type AuthOptions, usageError, withApi } from "../auth/client.ts";
import { onInterrupt } from "../interrupt.ts";
import { complain, printLine } from "../output.ts";
import { documentPath, numberOf, oneLine, queryOf } from "./client.ts";

/** A lock of a document, or of an object of it. */
interface Lock {
  readonly id: string;
  readonly userId: string;
  readonly objectId: string;
  readonly expiresAt?: string;
  readonly fencingToken: string;
}

/** A lock is extended this many times within its time, so that one late answer does not lose it. */
const EXTENSIONS_PER_TTL = 3;

/** Locks a document or an object; with `hold`, until interrupted. */
export function acquire(
  id: string,
  options: AuthOptions & { readonly object?: string; readonly ttl?: string; readonly hold?: boolean },
): Promise<number> {
  return attempt(() => {
    if (options.user !== undefined && !options.hold) {
      throw usageError(
        "the session of --user ends with this command, and its lock with it: use --hold, or AETHERFLOW_TOKEN",
      );
    }
    return withApi(options, async (api) => {
      const ttlMs = ttlOf(options.ttl);
      const { lock } = await api.call<{ lock: Lock }>("POST", `${documentPath(id)}/locks`, {
        objectId: options.object ?? "",
        ttlMs,
      });
      printLock(lock, options);
      if (options.hold) await hold(api, id, lock, ttlMs);
    });
  });
}

/** Lets a lock last longer. */
export function extend(
  id: string,
  lockId: string,
  options: AuthOptions & { readonly ttl?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => printLock(await prolong(api, id, lockId, ttlOf(options.ttl)), options))
  );
}

/** Gives a lock back: by its id, or the one on the document or the object. One that is not there is no error. */
export function release(
  id: string,
  lockId: string | undefined,
  options: AuthOptions & { readonly object?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if (lockId !== undefined && options.object !== undefined) {
        throw usageError("either a lock's id or --object is expected");
      }
      const released = await giveBack(api, id, lockId, options.object);
      if (options.json) printLine(JSON.stringify({ released }));
      else if (!released) complain("there was no such lock");
    })
  );
}

/** Prints the locks of a document and its objects. */
export function show(id: string, options: AuthOptions & { readonly object?: string }): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const query = queryOf({ objectId: options.object });
      const { locks } = await api.call<{ locks: Lock[] }>("GET", `${documentPath(id)}/locks${query}`);
      for (const lock of locks) printLock(lock, options);
    })
  );
}

/** Extends a lock until the process is interrupted, and gives it back. @throws {ApiError} when it is lost. */
async function hold(api: Api, id: string, lock: Lock, ttlMs: number): Promise<void> {
  const interrupted = Promise.withResolvers<"interrupted">();
  using _interrupt = onInterrupt(() => interrupted.resolve("interrupted"));
  let { expiresAt } = lock;
  for (;;) {
    const leftMs = expiresAt === undefined ? 0 : new Date(expiresAt).getTime() - Date.now();
    const pauseMs = Math.max(100, leftMs / EXTENSIONS_PER_TTL);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const pause = new Promise<"time">((resolve) => timer = setTimeout(() => resolve("time"), pauseMs));
    const what = await Promise.race([interrupted.promise, pause]);
    clearTimeout(timer);
    if (what === "interrupted") break;
    try {
      expiresAt = (await prolong(api, id, lock.id, ttlMs)).expiresAt;
    } catch (error) {
      // While the lock's time lasts, another answer may still come.
      if (!(error instanceof ApiError && error.retryable) || leftMs <= 0) throw error;
      complain(`the lock was not extended, trying again: ${error.message}`);
    }
  }
  await giveBack(api, id, lock.id, undefined);
}

async function prolong(api: Api, id: string, lockId: string, ttlMs: number): Promise<Lock> {
  const path = `${documentPath(id)}/locks/${encodeURIComponent(lockId)}:extend`;
  return (await api.call<{ lock: Lock }>("POST", path, { ttlMs })).lock;
}

async function giveBack(
  api: Api,
  id: string,
  lockId: string | undefined,
  objectId: string | undefined,
): Promise<boolean> {
  const path = lockId === undefined ? `locks${queryOf({ objectId })}` : `locks/${encodeURIComponent(lockId)}`;
  return (await api.call<{ released: boolean }>("DELETE", `${documentPath(id)}/${path}`)).released;
}

/** Milliseconds; 0 leaves it to the server. */
function ttlOf(seconds: string | undefined): number {
  return seconds === undefined ? 0 : Number(numberOf("--ttl", seconds, 1)) * 1_000;
}

function printLock(lock: Lock, options: AuthOptions): void {
  if (options.json) return printLine(JSON.stringify(lock));
  const what = lock.objectId === "" ? "document" : oneLine(lock.objectId);
  printLine(
    [lock.id, what, oneLine(lock.userId), lock.expiresAt ?? "", `token ${lock.fencingToken}`].join("\t"),
  );
}
