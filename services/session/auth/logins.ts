/** Signing in, staying signed in, and changing the password. */
import type { Session } from "../session.ts";
import type { AccessToken, AccessTokens } from "./access_tokens.ts";
import { type Accounts, canonicalName, type User } from "./accounts.ts";
import type { AuthConfig } from "./config.ts";
import { AuthError } from "./errors.ts";
import type { PasswordChecks } from "./password_checks.ts";
import { checkPassword } from "./password_policy.ts";
import type { RefreshToken, RefreshTokens } from "./refresh_tokens.ts";
import type { Sessions } from "./sessions.ts";
import type { Throttle } from "./throttle.ts";

/** What was shown and from where. */
export interface LoginAttempt {
  readonly username: string;
  readonly password: string;
  readonly clientIp: string;
  readonly clientPort: number;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Somebody who is signed in. */
export interface SignedIn {
  readonly user: User;
  readonly session: Session;
  readonly access: AccessToken;
  readonly refresh: RefreshToken;
}

/** What it needs. */
export interface LoginsDeps {
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly passwords: PasswordChecks;
  readonly throttle: Throttle;
  readonly accessTokens: AccessTokens;
  readonly refreshTokens: RefreshTokens;
  readonly config: Pick<AuthConfig, "refreshTokenMs">;
  readonly absoluteTimeoutMs: number;
  readonly clock: { wallMs(): number };
  /** Told when a login could be granted but not be noted with the user. */
  readonly onNoteFailed: (error: unknown) => void;
}

/** An id that no user has: a GUUID has 26 characters. */
const NOBODY = "nobody";
/** How often a user's last login is noted, in milliseconds: each note is a write that is synced. */
const NOTE_INTERVAL_MS = 60_000;

/** Logins. */
export class Logins {
  readonly #deps: LoginsDeps;

  constructor(deps: LoginsDeps) {
    this.#deps = deps;
  }

  /** Opens a session. @throws {AuthError} `badLogin`, `tooManyAttempts`; a SessionError when no session can be opened. */
  async login(attempt: LoginAttempt): Promise<SignedIn> {
    const { accounts, sessions, passwords, throttle, accessTokens, refreshTokens, config } = this.#deps;
    const username = canonicalName(attempt.username);
    const counted = throttle.begin(username, attempt.clientIp);
    try {
      // The same calls whether there is such a user or not: each takes its time.
      const id = await accounts.idByName(username) ?? NOBODY;
      // Before the password is looked at: whatever revokes the user's sessions from here on refuses this one.
      const userEpoch = await sessions.userEpoch(id);
      const before = await accounts.user(id);
      const { matches, isOutdated } = await passwords.verify(before, attempt.password);
      const user = await accounts.user(id);
      if (
        !matches || user === undefined || user.isDisabled ||
        user.passwordChangedAtMs !== before?.passwordChangedAtMs
      ) {
        throw new AuthError("badLogin");
      }
      counted.succeed();
      const family = refreshTokens.begin();
      const session = await sessions.create({
        userId: user.id,
        clientIp: attempt.clientIp,
        clientPort: attempt.clientPort,
        metadata: attempt.metadata,
        // It lives for as long as it can be refreshed.
        idleTimeoutMs: Math.min(config.refreshTokenMs, this.#deps.absoluteTimeoutMs),
        userEpoch,
        hidden: family.hidden,
      });
      await this.#note(user, isOutdated ? attempt.password : undefined);
      return {
        user,
        session,
        access: await accessTokens.make(user, session),
        refresh: family.tokenOf(session),
      };
    } catch (error) {
      // The password worker's refusal says nothing about the password.
      if (!(error instanceof AuthError)) counted.cancel();
      throw error;
    }
  }

  /** Exchanges a refresh token. @throws {AuthError} `badRefreshToken` */
  async refresh(token: string): Promise<SignedIn & { readonly isRepeat: boolean }> {
    const { accounts, sessions, refreshTokens, accessTokens } = this.#deps;
    const rotation = await refreshTokens.rotate(token);
    const user = await accounts.user(rotation.session.userId);
    const session = await sessions.use(rotation.session.id);
    if (user === undefined || user.isDisabled || session === undefined) {
      throw new AuthError("badRefreshToken");
    }
    return {
      user,
      session,
      access: await accessTokens.make(user, session),
      refresh: rotation.token,
      isRepeat: rotation.isRepeat,
    };
  }

  /** Sets a new password for who knows the present one, and ends the user's other sessions.
   *  @throws {AuthError} `wrongPassword`, `weakPassword`, `tooManyAttempts` */
  async changePassword(
    userId: string,
    present: string,
    wanted: string,
    keptSessionId: string,
  ): Promise<void> {
    const { accounts, passwords, throttle } = this.#deps;
    const user = await accounts.user(userId);
    if (user === undefined) throw new AuthError("badCredential");
    const counted = throttle.begin(user.username, "");
    try {
      const { matches } = await passwords.verify(user, present);
      if (!matches) throw new AuthError("wrongPassword");
      counted.succeed();
    } catch (error) {
      if (!(error instanceof AuthError)) counted.cancel();
      throw error;
    }
    await this.setPassword(user, wanted, keptSessionId, user.passwordChangedAtMs);
  }

  /** Sets a user's password and ends the user's sessions, but the one that is kept.
   *  @throws {AuthError} `weakPassword`; `conflict` when the password was changed after `ifChangedAtMs`. */
  async setPassword(
    user: User,
    wanted: string,
    keptSessionId?: string,
    ifChangedAtMs?: number,
  ): Promise<void> {
    const { accounts, sessions, passwords, clock } = this.#deps;
    checkPassword(wanted, user.username);
    const passwordHash = await passwords.hash(wanted);
    const changed = await accounts.updateUser(user.id, (current) => {
      if (ifChangedAtMs !== undefined && current.passwordChangedAtMs !== ifChangedAtMs) {
        throw new AuthError("conflict");
      }
      // Never the same twice, so that a change can be told from none.
      const passwordChangedAtMs = Math.max(clock.wallMs(), current.passwordChangedAtMs + 1);
      return { ...current, passwordHash, passwordChangedAtMs };
    });
    if (changed === undefined) throw new AuthError("userNotFound");
    // After the change: a login that saw the old hash has an epoch of before.
    await sessions.revokeUser(user.id, "the password was changed", keptSessionId);
  }

  /** Notes the login, and makes an outdated hash anew. The login stands without. */
  async #note(user: User, outdatedPassword: string | undefined): Promise<void> {
    const { accounts, passwords, clock, onNoteFailed } = this.#deps;
    try {
      const passwordHash = outdatedPassword === undefined
        ? undefined
        : await passwords.hash(outdatedPassword);
      await accounts.updateUser(user.id, (current) => {
        const isNoted = clock.wallMs() - current.lastLoginAtMs < NOTE_INTERVAL_MS;
        if (isNoted && passwordHash === undefined) return undefined;
        const isSame = current.passwordChangedAtMs === user.passwordChangedAtMs;
        return {
          ...current,
          lastLoginAtMs: clock.wallMs(),
          ...(passwordHash !== undefined && isSame ? { passwordHash } : {}),
        };
      });
    } catch (error) {
      onNoteFailed(error);
    }
  }
}
