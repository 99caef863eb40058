/** Finds out whom a credential stands for, now. Every request asks: what was taken away a moment ago counts. */
import { create } from "@bufbuild/protobuf";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { formatGuuid, type GuuidSource } from "../../runtime/guuid.ts";
import { ADMIN } from "../../runtime/principal.ts";
import { type Accounts, type ApiKey, canonicalName, isLive, type User } from "./accounts.ts";
import { AuthError } from "./errors.ts";
import { commonGrants } from "./grants.ts";
import type { PasswordChecks } from "./password_checks.ts";
import { digest, isSame, SECRET_BYTES, toBase64Url } from "./secrets.ts";
import type { Sessions } from "./sessions.ts";
import type { Throttle } from "./throttle.ts";
import { isVouched } from "./vouched.ts";

/** What begins every API key. */
export const API_KEY_PREFIX = "afk_";
const API_KEY = /^afk_([0-7][0-9A-HJKMNP-TV-Z]{25})_([A-Za-z0-9_-]{43})$/;

/** How often it is noted that a key is in use, in milliseconds: each note is a write. */
const TOUCH_INTERVAL_MS = 60_000;
/** Keys whose use is being noted; the uses of others are noted later. */
const TOUCHES_MAX = 64;

/** Who a credential stands for. */
export interface Authenticated {
  readonly principal: Principal;
  /** When the credential runs out by itself; undefined: never. */
  readonly expiresAtMs: number | undefined;
}

/** What it needs. */
export interface AuthenticatorDeps {
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly passwords: PasswordChecks;
  readonly throttle: Throttle;
  readonly guuids: GuuidSource;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly clock: { wallMs(): number };
  /** Told when a key's last use could not be noted. */
  readonly onTouchFailed: (error: unknown) => void;
}

/** Judges credentials. All methods throw an AuthError `badCredential` for one that stands for nobody. */
export class Authenticator {
  readonly #deps: AuthenticatorDeps;
  /** Notes of use under way, by key. */
  readonly #touching = new Map<string, Promise<void>>();

  constructor(deps: AuthenticatorDeps) {
    this.#deps = deps;
  }

  /** The id of a session, which an access token that the gateway has verified names. */
  async bySessionId(sessionId: string): Promise<Authenticated> {
    const session = await this.#deps.sessions.use(sessionId);
    if (session === undefined) throw new AuthError("badCredential");
    return await this.#bySession(session);
  }

  /** A token of SessionService, of a session that stands for its user. */
  async bySessionToken(token: string): Promise<Authenticated> {
    const { sessions } = this.#deps;
    const session = await sessions.useByToken(token);
    const hidden = session === undefined ? undefined : await sessions.readHidden(session.id);
    if (session === undefined || !isVouched(hidden?.bytes)) throw new AuthError("badCredential");
    return await this.#bySession(session);
  }

  /** An API key. */
  async byApiKey(text: string): Promise<Authenticated> {
    const match = API_KEY.exec(text);
    const key = match === null ? undefined : await this.#deps.accounts.key(match[1]!);
    if (match === null || key === undefined || !isSame(digest(match[2]!), key.secretHash)) {
      throw new AuthError("badCredential");
    }
    const authenticated = await this.#byKey(key);
    this.#touch(key);
    return authenticated;
  }

  /** A name and a password, as clients send them who know no sessions.
   *  @throws {AuthError} `tooManyAttempts` too. */
  async byPassword(name: string, password: string): Promise<Authenticated> {
    const { accounts, passwords, throttle } = this.#deps;
    const username = canonicalName(name);
    const attempt = throttle.begin(username, "");
    let isRight = false;
    try {
      const user = await accounts.userByName(username);
      isRight = await passwords.verifyRemembered(user, password);
      // It may have been disabled, or have another password, since.
      const current = user === undefined ? undefined : await accounts.user(user.id);
      if (
        !isRight || current === undefined || current.isDisabled ||
        current.passwordChangedAtMs !== user?.passwordChangedAtMs
      ) {
        isRight = false;
        throw new AuthError("badCredential");
      }
      attempt.succeed();
      return { principal: principalOf(current), expiresAtMs: undefined };
    } catch (error) {
      // The password worker's refusal says nothing about the password.
      if (!isRight && !(error instanceof AuthError)) attempt.cancel();
      throw error;
    }
  }

  /** The caller of an RPC as it is now: the gateway judged it a moment ago.
   *  @throws {AuthError} `noCaller` for nobody; `badCredential` when it ended in between. */
  async current(caller: Principal | undefined): Promise<Principal | undefined> {
    switch (caller?.kind) {
      case undefined:
      case Principal_Kind.EXTERNAL:
        return caller;
      case Principal_Kind.DEVELOPER:
        if ((await this.#deps.accounts.counts()).users > 0) {
          throw new AuthError("noCaller", "there are users now");
        }
        return caller;
      case Principal_Kind.USER: {
        if (caller.sessionId === "") {
          const user = await this.#deps.accounts.user(caller.userId);
          if (user === undefined || user.isDisabled) throw new AuthError("badCredential");
          return principalOf(user);
        }
        const session = await this.#deps.sessions.get(caller.sessionId);
        if (session === undefined) throw new AuthError("badCredential");
        return (await this.#bySession(session)).principal;
      }
      case Principal_Kind.API_KEY: {
        const key = await this.#deps.accounts.key(caller.keyId);
        if (key === undefined) throw new AuthError("badCredential");
        return (await this.#byKey(key)).principal;
      }
      default:
        throw new AuthError("noCaller");
    }
  }

  /** A new API key's id and secret, and what is kept of it. */
  makeApiKey(): { id: string; text: string; secretHash: string } {
    const id = formatGuuid(this.#deps.guuids.next());
    const secret = toBase64Url(this.#deps.random.fill(new Uint8Array(SECRET_BYTES)));
    return { id, text: `${API_KEY_PREFIX}${id}_${secret}`, secretHash: digest(secret) };
  }

  /** Resolves when nothing is being noted any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#touching.values());
  }

  async #bySession(
    session: { id: string; userId: string; expiresAtMs: number },
  ): Promise<Authenticated> {
    const user = await this.#deps.accounts.user(session.userId);
    if (user === undefined || user.isDisabled) throw new AuthError("badCredential");
    return { principal: principalOf(user, { sessionId: session.id }), expiresAtMs: session.expiresAtMs };
  }

  async #byKey(key: ApiKey): Promise<Authenticated> {
    const user = await this.#deps.accounts.user(key.userId);
    if (user === undefined || !isLive(key, user, this.#deps.clock.wallMs())) {
      throw new AuthError("badCredential");
    }
    return {
      principal: principalOf(user, { key }),
      expiresAtMs: key.expiresAtMs === 0 ? undefined : key.expiresAtMs,
    };
  }

  #touch(key: ApiKey): void {
    const now = this.#deps.clock.wallMs();
    if (now - key.lastUsedAtMs < TOUCH_INTERVAL_MS) return;
    if (this.#touching.has(key.id) || this.#touching.size >= TOUCHES_MAX) return;
    const noted = this.#deps.accounts.touchKey(key.id, now).catch(this.#deps.onTouchFailed)
      .finally(() => this.#touching.delete(key.id));
    this.#touching.set(key.id, noted);
  }
}

/** A user as a principal, with the rights that it has now; those of a key are what key and user have in common. */
function principalOf(user: User, by: { sessionId?: string; key?: ApiKey } = {}): Principal {
  const { sessionId = "", key } = by;
  const isAdmin = user.roles.includes(ADMIN);
  const isScoped = key !== undefined && key.scopes.length > 0;
  const grants = !isScoped ? user.grants : isAdmin ? key.scopes : commonGrants(key.scopes, user.grants);
  return create(PrincipalSchema, {
    kind: key === undefined ? Principal_Kind.USER : Principal_Kind.API_KEY,
    userId: user.id,
    username: user.username,
    // An administrator may do everything, which a scoped key may not.
    roles: isScoped ? user.roles.filter((role) => role !== ADMIN) : [...user.roles],
    grants: grants.map(({ service, prefix, write }) => ({ service, prefix, write })),
    sessionId,
    keyId: key?.id ?? "",
    isScoped,
  });
}
