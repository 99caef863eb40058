/** Refresh tokens, which rotate: each is exchanged for its successor, and a session's tokens are one family.
 *
 *  ```
 *  afr_<session id>_<base64url of: secret, 32 bytes · tag, 16 bytes>
 *  tag = HMAC(family key, secret)             tells a spent token of the family from one that somebody made up
 *  successor's secret = HMAC(secret, nonce)   so that the same token gives the same successor, of which only a hash is kept
 *  ```
 *  The family is the session's hidden part: it is changed by compare-and-set and gone with the session. */
import type { Session } from "../session.ts";
import type { AuthConfig } from "./config.ts";
import { AuthError } from "./errors.ts";
import { digest, fromBase64Url, hmac, isSame, SECRET_BYTES, toBase64Url } from "./secrets.ts";
import type { Sessions } from "./sessions.ts";

/** What begins every refresh token. */
export const REFRESH_PREFIX = "afr_";

const TAG_BYTES = 16;
/** `{`: hidden parts that begin otherwise are no families. */
const FAMILY_START = 0x7b;
const FORM = /^afr_([0-7][0-9A-HJKMNP-TV-Z]{25})_([A-Za-z0-9_-]{64})$/;
/** Spent tokens of a family that still give their successor. Within the grace time, a client that refreshes more often
 *  than that does not share its token with a slower one. */
const SPENT_MAX = 16;
/** Attempts at a rotation that others were faster than; each of them is another request with a token of this family. */
const ATTEMPTS_MAX = 64;

/** What is kept of a family. */
interface Family {
  /** base64url. */
  readonly key: string;
  /** Hash of the secret of the one token that was not used yet. */
  readonly current: string;
  readonly expiresAtMs: number;
  /** Tokens that were used within the grace time, oldest first. */
  readonly spent: readonly { readonly hash: string; readonly nonce: string; readonly atMs: number }[];
}

/** A token that was just made. */
export interface RefreshToken {
  readonly text: string;
  readonly expiresInS: number;
}

/** What came of a refresh. */
export interface Rotation {
  readonly session: Session;
  readonly token: RefreshToken;
  /** Whether the token had been used before, within the grace time. */
  readonly isRepeat: boolean;
}

/** What tokens are made of. */
export interface RefreshTokensDeps {
  readonly sessions: Sessions;
  readonly config: Pick<AuthConfig, "refreshTokenMs" | "refreshGraceMs">;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly clock: { wallMs(): number };
  /** Told when a family was ended since a token of it came that had been exchanged long ago. */
  readonly onReuse: (session: Session) => void;
}

/** Why a session ended whose refresh token was used twice. */
export const REUSE_REASON = "a refresh token was used again";

/** Makes and exchanges refresh tokens. */
export class RefreshTokens {
  readonly #deps: RefreshTokensDeps;

  constructor(deps: RefreshTokensDeps) {
    this.#deps = deps;
  }

  /** A family with its first token, for a session that is about to be made. */
  begin(): { hidden: Uint8Array; tokenOf: (session: Session) => RefreshToken } {
    const { random, clock, config } = this.#deps;
    const key = random.fill(new Uint8Array(SECRET_BYTES)).slice();
    const secret = random.fill(new Uint8Array(SECRET_BYTES)).slice();
    const expiresAtMs = clock.wallMs() + config.refreshTokenMs;
    const family: Family = { key: toBase64Url(key), current: digest(secret), expiresAtMs, spent: [] };
    return {
      hidden: encode(family),
      tokenOf: (session) => this.#token(session, key, secret, expiresAtMs),
    };
  }

  /** The session that a token belongs to, whether it was used before or not.
   *  @throws {AuthError} `badRefreshToken` for one that this server did not make, or whose session has ended. */
  async sessionOf(text: string): Promise<Session> {
    const { session, secret, tag, family } = await this.#find(text);
    if (!hasTag(family, secret, tag)) throw new AuthError("badRefreshToken");
    return session;
  }

  /** Exchanges a token. One that was used within the grace time gives the same successor again; one that was used before
   *  that ends the session, since two hold it.
   *  @throws {AuthError} `badRefreshToken` */
  async rotate(text: string): Promise<Rotation> {
    const { sessions, clock, config, random, onReuse } = this.#deps;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { session, secret, tag, family, version } = await this.#find(text);
      // Before anything else: a text that was made up must not end anybody's session.
      if (!hasTag(family, secret, tag)) throw new AuthError("badRefreshToken");
      const key = fromBase64Url(family.key)!;
      const hash = digest(secret);
      const nowMs = clock.wallMs();
      const repeated = family.spent.find((spent) => isSame(spent.hash, hash));
      if (repeated !== undefined && nowMs - repeated.atMs <= config.refreshGraceMs) {
        const successor = hmac(secret, fromBase64Url(repeated.nonce)!);
        const token = this.#token(session, key, successor, family.expiresAtMs);
        return { session, token, isRepeat: true };
      }
      if (!isSame(hash, family.current)) {
        if (await sessions.end(session.id, REUSE_REASON)) onReuse(session);
        throw new AuthError("badRefreshToken");
      }
      if (nowMs >= family.expiresAtMs) throw new AuthError("badRefreshToken");
      const nonce = random.fill(new Uint8Array(SECRET_BYTES)).slice();
      const successor = hmac(secret, nonce);
      const expiresAtMs = nowMs + config.refreshTokenMs;
      const changed: Family = {
        key: family.key,
        current: digest(successor),
        expiresAtMs,
        spent: [
          ...family.spent.filter(({ atMs }) => nowMs - atMs <= config.refreshGraceMs).slice(1 - SPENT_MAX),
          { hash, nonce: toBase64Url(nonce), atMs: nowMs },
        ],
      };
      if (await sessions.compareAndSetHidden(session.id, version, encode(changed))) {
        return { session, token: this.#token(session, key, successor, expiresAtMs), isRepeat: false };
      }
    }
    throw new AuthError("conflict", undefined, { retryAfterS: 1 });
  }

  async #find(text: string) {
    const parsed = parse(text);
    if (parsed === undefined) throw new AuthError("badRefreshToken");
    const { sessions } = this.#deps;
    const session = await sessions.get(parsed.sessionId);
    const hidden = await sessions.readHidden(parsed.sessionId);
    // Sessions that no login opened have no family.
    if (session === undefined || hidden === undefined || hidden.bytes[0] !== FAMILY_START) {
      throw new AuthError("badRefreshToken");
    }
    return { ...parsed, session, family: decode(hidden.bytes), version: hidden.version };
  }

  #token(session: Session, key: Uint8Array, secret: Uint8Array, expiresAtMs: number): RefreshToken {
    const bytes = new Uint8Array(SECRET_BYTES + TAG_BYTES);
    bytes.set(secret);
    bytes.set(tagOf(key, secret), SECRET_BYTES);
    const leftMs = Math.min(expiresAtMs, session.endsAtMs) - this.#deps.clock.wallMs();
    return {
      text: `${REFRESH_PREFIX}${session.id}_${toBase64Url(bytes)}`,
      expiresInS: Math.max(0, Math.floor(leftMs / 1_000)),
    };
  }
}

interface ParsedToken {
  readonly sessionId: string;
  readonly secret: Uint8Array;
  readonly tag: Uint8Array;
}

function parse(text: string): ParsedToken | undefined {
  const match = FORM.exec(text);
  const bytes = match === null ? undefined : fromBase64Url(match[2]!);
  if (match === null || bytes === undefined) return undefined;
  return { sessionId: match[1]!, secret: bytes.slice(0, SECRET_BYTES), tag: bytes.slice(SECRET_BYTES) };
}

function tagOf(key: Uint8Array, secret: Uint8Array): Uint8Array {
  return hmac(key, secret).subarray(0, TAG_BYTES);
}

function hasTag(family: Family, secret: Uint8Array, tag: Uint8Array): boolean {
  return isSame(tagOf(fromBase64Url(family.key)!, secret), tag);
}

function encode(family: Family): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(family));
}

function decode(bytes: Uint8Array): Family {
  return JSON.parse(new TextDecoder().decode(bytes)) as Family;
}
