/** Access tokens (JWT, RFC 9068): which key, which algorithm, which claims. That the session behind one still is, is asked
 *  elsewhere, each time; only the signature's check is remembered. */
import { decodeProtectedHeader, importJWK, type JWK, jwtVerify, type ProtectedHeaderParameters } from "jose";
import type { WatchPolicyResponse } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { RecentMap } from "../../runtime/recent_map.ts";
import { CLOCK_TOLERANCE_S, refusalOf, type VerifiedToken } from "./checked_token.ts";
import { invalidCredential } from "./failure.ts";
import { issuerOf, type Issuers } from "./issuers.ts";

/** Longest token, in characters. Real ones have 300 to 2,000; decoding a huge one is work for nothing. */
export const TOKEN_CHARS_MAX = 8_192;
/** Tokens whose check is remembered, per generation: with the longest tokens some 64 MiB, with usual ones 4. */
const REMEMBERED_TOKENS = 4_096;
/** Pause between two askings for a key that is not known, in milliseconds: a client may invent key ids. */
const UNKNOWN_KEY_PAUSE_MS = 1_000;
/** Longest key id. */
const KEY_ID_CHARS_MAX = 128;

/** What checking takes. */
export interface AccessTokensDeps {
  readonly issuers: Issuers;
  readonly clock: { now(): number; wallMs(): number };
  /** Asks for the policy anew, since a token names a key that it does not have. */
  refreshPolicy(): Promise<void>;
}

type Key = Awaited<ReturnType<typeof importJWK>>;

/** Our own keys, of one policy. */
interface OwnKeys {
  readonly issuer: string;
  readonly audience: string;
  /** Ed25519 keys by id. Only a token that says EdDSA is looked up here … */
  readonly publicKeys: ReadonlyMap<string, Promise<Key>>;
  /** … and only one that says HS256 here: a public key can never be taken for a secret. */
  readonly secretKeys: Readonly<Record<string, Uint8Array>>;
}

/** Header parameters by which a token brings its own key, or asks for what we do not know. */
const REFUSED_PARAMETERS = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"] as const;

/** Checks access tokens. */
export class AccessTokens {
  readonly #deps: AccessTokensDeps;
  readonly #checked = new RecentMap<string, VerifiedToken>(REMEMBERED_TOKENS);
  #own: OwnKeys | undefined;
  #policyText = "";
  #askedAtMs = -Infinity;

  constructor(deps: AccessTokensDeps) {
    this.#deps = deps;
  }

  /** Takes the keys of a policy. */
  use(policy: WatchPolicyResponse): void {
    const { jwks, issuer, audience, secretKeys } = policy;
    const text = JSON.stringify([jwks, issuer, audience, Object.keys(secretKeys).sort()]);
    if (text === this.#policyText) return;
    this.#policyText = text;
    this.#own = { issuer, audience, publicKeys: publicKeysOf(jwks), secretKeys };
    // A key may have been taken back.
    this.#checked.clear();
  }

  /** What a token says that was checked before and has not run out; undefined when it has to be checked. */
  known(token: string): VerifiedToken | undefined {
    const found = this.#checked.get(token);
    return found !== undefined && found.expiresAtMs > this.#deps.clock.wallMs() ? found : undefined;
  }

  /** Checks a token. @throws {GatewayError} `unauthenticated`; `unavailable` while an issuer's keys are not known. */
  async verify(token: string): Promise<VerifiedToken> {
    if (token.length > TOKEN_CHARS_MAX) throw invalidCredential("the token is too long");
    const header = headerOf(token);
    const own = this.#own;
    const issuer = this.#deps.issuers.size === 0 ? undefined : this.#deps.issuers.find(issuerOf(token));
    const verified = issuer !== undefined && issuer.name !== own?.issuer
      ? await issuer.verify(token, header)
      : await this.#verifyOwn(token, header);
    // The keys may have changed meanwhile.
    if (own === this.#own) this.#checked.set(token, verified);
    return verified;
  }

  async #verifyOwn(token: string, header: ProtectedHeaderParameters): Promise<VerifiedToken> {
    for (const name of REFUSED_PARAMETERS) {
      if (name in header) throw invalidCredential("the token is malformed");
    }
    const { alg, kid } = header;
    if (alg !== "EdDSA" && alg !== "HS256") throw invalidCredential("the token is malformed");
    if (typeof kid !== "string" || kid === "" || kid.length > KEY_ID_CHARS_MAX) {
      throw invalidCredential("the token is malformed");
    }
    const key = await this.#keyOf(alg, kid);
    if (key === undefined) throw invalidCredential("the token is signed with an unknown key");
    const { issuer, audience } = this.#own!;
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: [alg],
        issuer,
        audience,
        typ: "at+jwt",
        requiredClaims: ["exp", "sub", "sid"],
        clockTolerance: CLOCK_TOLERANCE_S,
        currentDate: new Date(this.#deps.clock.wallMs()),
      });
      const { sid, sub, exp } = payload;
      if (typeof sid !== "string" || sid === "" || sub === undefined || sub === "") {
        throw invalidCredential("the token is malformed");
      }
      return {
        expiresAtMs: (exp! + CLOCK_TOLERANCE_S) * 1_000,
        sessionId: sid,
        userId: sub,
        external: undefined,
      };
    } catch (error) {
      throw refusalOf(error);
    }
  }

  async #keyOf(alg: "EdDSA" | "HS256", kid: string): Promise<Key | Uint8Array | undefined> {
    const find = () => alg === "EdDSA" ? this.#own?.publicKeys.get(kid) : secretOf(this.#own, kid);
    const found = await find();
    if (found !== undefined) return found;
    // It may be newer than what we know. Not more often, whatever key ids come.
    const now = this.#deps.clock.now();
    if (now - this.#askedAtMs < UNKNOWN_KEY_PAUSE_MS) {
      await this.#asking;
      return await find();
    }
    this.#askedAtMs = now;
    this.#asking = this.#deps.refreshPolicy();
    await this.#asking;
    return await find();
  }
  #asking: Promise<void> | undefined;
}

/** The protected header. @throws {GatewayError} when the text is no token. */
function headerOf(token: string): ProtectedHeaderParameters {
  const first = token.indexOf(".");
  const second = token.indexOf(".", first + 1);
  if (
    first <= 0 || second <= first + 1 || second === token.length - 1 || token.indexOf(".", second + 1) >= 0
  ) {
    throw invalidCredential("the token is malformed");
  }
  try {
    return decodeProtectedHeader(token);
  } catch (error) {
    throw invalidCredential("the token is malformed", error);
  }
}

function secretOf(own: OwnKeys | undefined, kid: string): Uint8Array | undefined {
  return own !== undefined && Object.hasOwn(own.secretKeys, kid) ? own.secretKeys[kid] : undefined;
}

function publicKeysOf(jwks: string): Map<string, Promise<Key>> {
  const found = new Map<string, Promise<Key>>();
  if (jwks === "") return found;
  const { keys } = JSON.parse(jwks) as { keys: JWK[] };
  for (const jwk of keys) {
    if (jwk.kty !== "OKP" || jwk.crv !== "Ed25519" || jwk.kid === undefined) continue;
    const key = importJWK(jwk, "EdDSA");
    key.catch(() => {}); // whoever needs it is told
    found.set(jwk.kid, key);
  }
  return found;
}
