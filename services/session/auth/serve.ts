/** Authentication in the session worker: opens the records, finds the password worker, registers the services. */
import {
  AuthService,
  CredentialService,
  PasswordService,
  UserService,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import type { WorkerContext } from "../../runtime/worker_context.ts";
import { redisAddresses, type SessionConfig } from "../config.ts";
import type { SessionService } from "../service.ts";
import { MemoryRecords } from "../stores/records_memory.ts";
import { openRedisRecords } from "../stores/records_redis.ts";
import { openSqliteRecords, RECORDS_FILE } from "../stores/records_sqlite.ts";
import { createAuthMetrics } from "./metrics.ts";
import { createAuthModule, sessionsOf } from "./mod.ts";
import type { Passwords } from "./password_checks.ts";
import type { RecordStore } from "./records.ts";

/** How often keys are looked after, in milliseconds: well within the time that a new key is published before it signs. */
const TICK_MS = 5_000;
/** Longest wait for a password's hash: a full queue of them, and some. Callers have deadlines of their own. */
const PASSWORD_TIMEOUT_MS = 15_000;
/** How long after the start a missing password worker is waited for, since it starts beside this one, and how often it is
 *  looked for. */
const PASSWORD_START = { forMs: 20_000, everyMs: 100 };

/** Serves AuthService, UserService and CredentialService. `makePrivate` makes a file that nobody else of the machine may
 *  read, if it is not there: it will hold the keys that sign tokens.
 *  @throws {SqliteError}; {Error} that says what to set when nobody could sign in. */
export async function serveAuth(
  context: WorkerContext,
  service: SessionService,
  makePrivate: (path: string) => Promise<void>,
): Promise<{ close(): Promise<void> }> {
  const config = context.config as SessionConfig;
  const { log, metrics, random, clock, rpc, peers } = context;
  const records = await openRecords(context, makePrivate);
  const { handlers, tick, close } = await createAuthModule({
    config: config.auth,
    absoluteTimeoutMs: config.absoluteTimeoutMs,
    records,
    sessions: sessionsOf(service),
    passwords: passwordsOf(peers.transport("password"), clock),
    random,
    // Times of sessions and of tokens are compared.
    clock: { now: () => clock.now(), wallMs: () => service.nowMs() },
    metrics: createAuthMetrics(metrics),
    log,
  });
  rpc.service(AuthService, handlers.auth);
  rpc.service(UserService, handlers.users);
  rpc.service(CredentialService, handlers.credentials);
  let ticking: Promise<void> | undefined;
  const timer = setInterval(() => {
    ticking ??= tick().catch((error) => log.error("looking after signing keys failed", { error }))
      .finally(() => ticking = undefined);
  }, TICK_MS);
  return {
    async close() {
      clearInterval(timer);
      await ticking;
      await close();
    },
  };
}

async function openRecords(
  { config, dataDirectory, log }: WorkerContext,
  makePrivate: (path: string) => Promise<void>,
): Promise<RecordStore> {
  const { engine, redis } = config as SessionConfig;
  switch (engine) {
    case "memory":
      return new MemoryRecords();
    case "sqlite": {
      const path = `${dataDirectory}/${RECORDS_FILE}`;
      await makePrivate(path);
      return openSqliteRecords({ path });
    }
    case "redis":
      return await openRedisRecords({
        ...redis,
        nodes: redisAddresses(config as SessionConfig),
        onState: (isReady, reason) => {
          if (!isReady) log.error("the connection to Redis, for users, is lost", { reason });
        },
      });
  }
}

/** The password worker, by its RPCs. */
function passwordsOf(transport: Transport, clock: { now(): number }): Passwords {
  const client = createClient(PasswordService, transport);
  const options = { timeoutMs: PASSWORD_TIMEOUT_MS };
  const startedMs = clock.now();

  async function call<T>(run: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await run();
      } catch (error) {
        // It answers `unimplemented` between listening and being ready.
        const isMissing = error instanceof ConnectError &&
          (error.code === Code.Unavailable || error.code === Code.Unimplemented);
        if (!isMissing || clock.now() - startedMs > PASSWORD_START.forMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, PASSWORD_START.everyMs));
      }
    }
  }

  return {
    hash: (password) => call(async () => (await client.hashPassword({ password }, options)).hash),
    verify: (password, hash) => call(() => client.verifyPassword({ password, hash }, options)),
  };
}
