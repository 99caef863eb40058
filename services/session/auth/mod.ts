/** Authentication, wired. */
import type { AuthService, CredentialService, UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import { ConfigError } from "../../runtime/failure.ts";
import { createGuuidSource } from "../../runtime/guuid.ts";
import { ADMIN } from "../../runtime/principal.ts";
import type { Random } from "../../runtime/random.ts";
import { sessionMessage } from "../rpc.ts";
import type { SessionService } from "../service.ts";
import { AccessTokens } from "./access_tokens.ts";
import { Accounts, USERNAME } from "./accounts.ts";
import { Authenticator } from "./authenticator.ts";
import type { AuthConfig } from "./config.ts";
import { AuthError } from "./errors.ts";
import { Logins } from "./logins.ts";
import type { AuthMetrics } from "./metrics.ts";
import { PasswordChecks, type Passwords } from "./password_checks.ts";
import { checkPassword } from "./password_policy.ts";
import { Policy } from "./policy.ts";
import type { RecordStore } from "./records.ts";
import { RefreshTokens } from "./refresh_tokens.ts";
import { createAuthHandlers } from "./rpc_auth.ts";
import { createCredentialHandlers } from "./rpc_credentials.ts";
import { createUserHandlers } from "./rpc_users.ts";
import type { Sessions } from "./sessions.ts";
import { SigningKeys } from "./signing_keys.ts";
import { Throttle } from "./throttle.ts";

/** What authentication needs of its surroundings. */
export interface AuthDeps {
  readonly config: AuthConfig;
  /** The most that a session lives. */
  readonly absoluteTimeoutMs: number;
  readonly records: RecordStore;
  readonly sessions: Sessions;
  readonly passwords: Passwords;
  readonly random: Random;
  readonly clock: { now(): number; wallMs(): number };
  readonly metrics: AuthMetrics;
  readonly log: {
    info(message: string, fields?: Record<string, unknown>): void;
    warn(message: string, fields?: Record<string, unknown>): void;
  };
}

/** Authentication, wired. */
export interface AuthModule {
  readonly handlers: {
    readonly auth: ServiceImpl<typeof AuthService>;
    readonly users: ServiceImpl<typeof UserService>;
    readonly credentials: ServiceImpl<typeof CredentialService>;
  };
  /** What is due: key rotation, and what other machines changed. To be called every few seconds. */
  tick(): Promise<void>;
  /** Ends streams, finishes what is under way, closes the records. */
  close(): Promise<void>;
}

/** Reads users and keys, makes the first signing key and the administrator of `bootstrap`.
 *  @throws {Error} with what to set when nobody could ever sign in. */
export async function createAuthModule(deps: AuthDeps): Promise<AuthModule> {
  const { config, records, sessions, random, clock, metrics, log } = deps;
  const guuids = createGuuidSource({ clock, random });
  const accounts = new Accounts({ records, guuids, limits: config, clock });
  const keys = new SigningKeys({ records, config, guuids, random, clock });
  await keys.load();
  const policy = new Policy(config, keys);
  const passwords = new PasswordChecks(deps.passwords, random);
  await bootstrap(deps, accounts, passwords);
  policy.setHasUsers((await accounts.counts()).users > 0);

  const throttle = new Throttle(config, clock);
  const authenticator = new Authenticator({
    accounts,
    sessions,
    passwords,
    throttle,
    guuids,
    random,
    clock,
    onTouchFailed: (error) => log.warn("the use of a key could not be noted", { error }),
  });
  const refreshTokens = new RefreshTokens({
    sessions,
    config,
    random,
    clock,
    onReuse(session) {
      metrics.refresh("reuse");
      log.warn("a refresh token came again after its grace time: the session was ended", {
        sessionId: session.id,
        userId: session.userId,
      });
    },
  });
  const accessTokens = new AccessTokens({ keys, config, guuids, clock });
  const logins = new Logins({
    accounts,
    sessions,
    passwords,
    throttle,
    accessTokens,
    refreshTokens,
    config,
    absoluteTimeoutMs: deps.absoluteTimeoutMs,
    clock,
    onNoteFailed: (error) => log.warn("a login could not be noted", { error }),
  });
  return {
    handlers: {
      auth: createAuthHandlers({ accounts, sessions, authenticator, logins, refreshTokens, metrics, clock }),
      users: createUserHandlers({ accounts, sessions, authenticator, logins, passwords, keys, policy }),
      credentials: createCredentialHandlers({ authenticator, policy, metrics }),
    },
    async tick() {
      if (await keys.tick()) policy.notify();
      policy.setHasUsers((await accounts.counts()).users > 0);
    },
    async close() {
      policy.close();
      await authenticator.settled();
      await records.close();
    },
  };
}

/** The session service as authentication sees it. */
export function sessionsOf(service: SessionService): Sessions {
  return {
    async create(session) {
      return (await service.create({ ...session, serverAddr: "" })).session;
    },
    userEpoch: (userId) => service.userEpoch(userId),
    get: (sessionId) => service.get(sessionId),
    use: (sessionId) => service.use(sessionId),
    useByToken: (token) => service.verify(token),
    end: (sessionId, reason) => service.end(sessionId, reason),
    revokeUser: (userId, reason, exceptSessionId) => service.revokeUser(userId, reason, exceptSessionId),
    async list(userId, { pageSize, pageToken }) {
      const { sessions, more } = await service.list({ userId }, pageToken, pageSize);
      return { sessions, nextPageToken: more ? sessions.at(-1)!.id : "" };
    },
    readHidden: (sessionId) => service.readHidden(sessionId),
    compareAndSetHidden: (sessionId, version, bytes) =>
      service.compareAndSetHidden(sessionId, version, bytes),
    messageOf: sessionMessage,
  };
}

/** Makes the administrator that the configuration names, if there are no users. */
async function bootstrap(
  { config, log }: AuthDeps,
  accounts: Accounts,
  passwords: PasswordChecks,
): Promise<void> {
  const { username, password } = config.bootstrap;
  if ((await accounts.counts()).users > 0) return;
  if (username === "") {
    if (config.mode !== "required") return;
    throw new ConfigError(
      "session.auth.mode is required and there are no users, so nobody could sign in: " +
        "set session.auth.bootstrap.username and session.auth.bootstrap.password to make an administrator",
    );
  }
  if (!USERNAME.test(username)) {
    throw new ConfigError(
      "config: session.auth.bootstrap.username is expected to be 1 to 64 of a-z, 0-9, '.', '_', '-', '@'",
    );
  }
  try {
    checkPassword(password, username);
  } catch (error) {
    if (!(error instanceof AuthError)) throw error;
    throw new ConfigError(`config: session.auth.bootstrap.password: ${error.message}`, { cause: error });
  }
  const passwordHash = await passwords.hash(password);
  const user = { username, roles: [ADMIN], grants: [], passwordHash };
  try {
    await accounts.createUser(user, { mustBeFirst: true });
  } catch (error) {
    // Another machine was faster.
    if (error instanceof AuthError && error.kind === "noCaller") return;
    throw error;
  }
  log.info("the administrator of session.auth.bootstrap was made", { username });
}
