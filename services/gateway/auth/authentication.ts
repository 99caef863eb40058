/** Who calls. With no users, anybody on this machine; else whoever the credential stands for:
 *
 *      policy ── not known yet ─► wait a moment, then `unavailable`: nothing is let through
 *        ├────── no users ──────► Host and Origin are of this machine ─► the developer
 *        └────── users ─► credential ─┬─ JWT: signature and claims (remembered) ─► session ─┐
 *                                     ├─ session token, API key ─────────────────────────────┴► Authenticate ─► caller
 *                                     └─ none ─► nobody, for the authorisation to judge
 */
import type { Transport } from "@connectrpc/connect";
import type { WatchPolicyResponse } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { RecentMap } from "../../runtime/recent_map.ts";
import type { Exchange } from "../exchange.ts";
import type { CacheMetrics } from "../metrics.ts";
import type { ProtectedMode } from "../limits/protected_mode.ts";
import { GatewayError } from "../problem.ts";
import type { Authentication, Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import { AccessTokens } from "./access_tokens.ts";
import type { VerifiedToken } from "./checked_token.ts";
import type { GatewayAuthConfig } from "./config.ts";
import { csrfRefusal, isSameOrigin, readCookie } from "./cookies.ts";
import { Credentials } from "./credentials.ts";
import { invalidCredential } from "./failure.ts";
import { type Followed, Followers } from "./followers.ts";
import { ANONYMOUS_CALLER, DEVELOPER_CALLER, ETCD_CALLER, Identity, type Proof } from "./identity.ts";
import { Issuers } from "./issuers.ts";
import { PolicyFollower } from "./policy.ts";
import { isOpenToAnyone } from "./access.ts";

/** How long a request waits for the first policy, in milliseconds: at a start the worker is there or about to be. */
const FIRST_POLICY_MS = 1_000;
/** Longest credential that is shown to the session worker, in characters; real ones have some 50. */
const PROOF_CHARS_MAX = 512;

/** Callers whose credentials are remembered; each takes up to 2 kB. */
const RECENT_CALLERS = 2_048;
/** Longest credential that is remembered, in characters; access tokens have some 500. */
const SHOWN_CHARS_MAX = 1_024;

/** What API keys begin with. */
const API_KEY_PREFIX = "afk_";

/** What authentication is made of. */
export interface AuthenticationDeps {
  /** The transport to the session worker. */
  transport(): Transport;
  readonly config: GatewayAuthConfig;
  readonly protectedMode: ProtectedMode;
  /** Paths of the gateway's own that need no credential. */
  readonly openPaths: ReadonlySet<string>;
  /** Whether a network reaches us: then nobody comes in for being on this machine, whatever the policy says. */
  readonly isExposed: boolean;
  /** Whether pages of an origin may call with cookies. */
  isAllowedOrigin(origin: string): boolean;
  readonly clock: { now(): number; wallMs(): number };
  readonly timer: Timer;
  readonly fetch: typeof fetch;
  readonly log: { info(message: string, fields?: Record<string, unknown>): void };
  /** Tokens whose signature was checked before, and those that had to be checked. */
  readonly tokenMetrics: Pick<CacheMetrics, "hit" | "miss">;
}

/** What a call over gRPC shows. */
export interface CallCredentials {
  readonly authorization: string | undefined;
  readonly apiKey: string | undefined;
  /** etcd's token. */
  readonly token: string | undefined;
  /** Whether etcd's tokens may come as `authorization` too: the call is one to the key-value store. */
  readonly isForStore: boolean;
}

/** Finds out who calls, at all edges. */
export interface Authenticator extends Authentication {
  /** Whether callers must show who they are; undefined while that is not known. */
  readonly isRequired: boolean | undefined;
  /** The public keys that verify access tokens, as JSON; undefined while they are not known. */
  readonly jwks: string | undefined;
  /** Resolves when it is known whether callers must show who they are, or after a moment. */
  known(): Promise<void>;
  /** As `authenticate`, of a call over gRPC.
   *  @throws {GatewayError} (or rejects) as `authenticate` */
  authenticateCall(shown: CallCredentials): Caller | Promise<Caller>;
  /** Asks whether what has shown who a caller is still holds, and still stands for the same.
   *  @throws {GatewayError} (as a rejection) `unauthenticated` when it does not; `unavailable` when that cannot be found out, or
   *  the caller's rights are others now. */
  confirm(caller: Caller): Promise<void>;
  /** Resolves when what was changed before holds here. */
  refreshPolicy(): Promise<void>;
  /** Ends a stream when its caller may not go on; until `unfollow`. */
  follow(stream: Followed): void;
  unfollow(stream: Followed): void;
  close(): void;
}

/** Creates it, and begins to follow the policy. */
export function createAuthentication(deps: AuthenticationDeps): Authenticator {
  const issuers = new Issuers(deps.config.issuers, deps);
  const credentials = new Credentials(deps);
  const followers = new Followers({ ...deps, ask: (proof) => credentials.ask(proof) });
  const policy = new PolicyFollower({ ...deps, onPolicy });
  const tokens = new AccessTokens({
    issuers,
    clock: deps.clock,
    refreshPolicy: () => policy.refresh(),
  });

  /** Who credentials last stood for, by the text that shows them. */
  const recent = new RecentMap<string, Caller | undefined>(RECENT_CALLERS);

  function authenticate(exchange: Exchange): Caller | Promise<Caller> {
    const caller = find(exchange);
    const shown = shownBy(exchange);
    if (!(caller instanceof Promise) || shown === undefined) return caller;
    return caller.then((found) => {
      // Nobody is what a bad credential makes of a caller where anybody may call: no guess for elsewhere.
      recent.set(shown, found === ANONYMOUS_CALLER ? undefined : found);
      return found;
    }, (error) => {
      recent.set(shown, undefined);
      throw error;
    });
  }

  function onPolicy(current: WatchPolicyResponse): void {
    tokens.use(current);
    if (takesCredentials(current)) followers.refuseDevelopers();
  }

  function takesCredentials({ isRequired }: WatchPolicyResponse): boolean {
    return isRequired || deps.isExposed;
  }

  function find(exchange: Exchange): Caller | Promise<Caller> {
    const { current } = policy;
    if (current === undefined) {
      return isOwnOpenPath(exchange) ? ANONYMOUS_CALLER : afterFirstPolicy(() => find(exchange));
    }
    if (!takesCredentials(current)) {
      refuseForeign(exchange);
      return DEVELOPER_CALLER;
    }
    // Nothing is asked about requests that need nothing, not even of the session worker.
    if (exchange.match === undefined && isOwnOpenPath(exchange)) return ANONYMOUS_CALLER;
    const route = exchange.match?.route;
    const isAnyones = route !== undefined && isOpenToAnyone(route.access);
    const { authorization, apiKey, token } = exchange;
    if (authorization !== undefined || apiKey !== undefined) {
      const caller = fromHeaders(authorization, apiKey, route?.grant === "kv");
      return isAnyones ? orNobody(caller) : caller;
    }
    const cookie = readCookie(exchange, "access");
    if (cookie !== undefined) {
      if (!isSafe(exchange) && !isSameOrigin(exchange, deps.isAllowedOrigin)) {
        if (!isAnyones) throw csrfRefusal();
        return ANONYMOUS_CALLER;
      }
      const caller = fromBearer(cookie, "cookie");
      return isAnyones ? orNobody(caller) : caller;
    }
    return token === undefined ? ANONYMOUS_CALLER : ETCD_CALLER;
  }

  function authenticateCall(shown: CallCredentials): Caller | Promise<Caller> {
    const { current } = policy;
    if (current === undefined) return afterFirstPolicy(() => authenticateCall(shown));
    if (!takesCredentials(current)) return DEVELOPER_CALLER;
    const { authorization, apiKey, token, isForStore } = shown;
    if (authorization !== undefined || apiKey !== undefined) {
      return fromHeaders(authorization, apiKey, isForStore);
    }
    return token === undefined ? ANONYMOUS_CALLER : ETCD_CALLER;
  }

  async function confirm(caller: Caller): Promise<void> {
    if (!(caller instanceof Identity)) {
      const { current } = policy;
      if (caller === DEVELOPER_CALLER && current !== undefined && takesCredentials(current)) {
        throw new GatewayError("unauthenticated", "there are users now, and who calls must be shown");
      }
      return;
    }
    const { proof } = caller;
    if (proof === undefined) {
      if (caller.expiresAtMs <= deps.clock.wallMs()) throw invalidCredential("the token has expired");
      return;
    }
    const { encoded } = await credentials.ask(proof);
    if (encoded !== caller.encoded) {
      throw new GatewayError("unavailable", "the caller's rights have changed, come back");
    }
  }

  async function afterFirstPolicy(authenticate: () => Caller | Promise<Caller>): Promise<Caller> {
    await policy.known(FIRST_POLICY_MS);
    if (policy.current !== undefined) return await authenticate();
    throw new GatewayError("unavailable", "it is not known yet who may call");
  }

  function isOwnOpenPath(exchange: Exchange): boolean {
    return exchange.match === undefined && deps.openPaths.has(exchange.path);
  }

  function fromHeaders(
    authorization: string | undefined,
    apiKey: string | undefined,
    isForStore: boolean,
  ): Caller | Promise<Caller> {
    if (authorization === undefined) return ask({ kind: "api_key", text: apiKey! }, "api_key");
    const text = bearerOf(authorization);
    // etcd's clients send their token as it is, its tools behind `Bearer`.
    if (isForStore && isStoreToken(text ?? authorization)) return ETCD_CALLER;
    if (text === undefined) throw invalidCredential("only the scheme Bearer is known here");
    return fromBearer(text, undefined);
  }

  function fromBearer(text: string, via: "cookie" | undefined): Caller | Promise<Caller> {
    if (text.startsWith(API_KEY_PREFIX)) return ask({ kind: "api_key", text }, via ?? "api_key");
    if (text.indexOf(".") < 0) return ask({ kind: "session_token", text }, via ?? "session_token");
    const known = tokens.known(text);
    if (known !== undefined) {
      deps.tokenMetrics.hit();
      return ofToken(known, via ?? "access_token");
    }
    deps.tokenMetrics.miss();
    return tokens.verify(text).then((verified) => ofToken(verified, via ?? "access_token"));
  }

  function ofToken(token: VerifiedToken, credential: Caller["credential"]): Caller | Promise<Caller> {
    const { external } = token;
    if (external === undefined) {
      return ask({ kind: "session_id", text: token.sessionId }, credential, token.userId);
    }
    return new Identity(external.principal, external.encoded, credential, undefined, token.expiresAtMs);
  }

  /** `userId`: whom the token names, who must be the one that the session is of. */
  async function ask(proof: Proof, credential: Caller["credential"], userId?: string): Promise<Caller> {
    if (proof.text.length > PROOF_CHARS_MAX) throw invalidCredential("the credential is too long");
    const { principal, encoded, expiresAtMs } = await credentials.ask(proof);
    if (userId !== undefined && principal.userId !== userId) {
      throw invalidCredential("the token is not that of its session");
    }
    return new Identity(principal, encoded, credential, proof, expiresAtMs);
  }

  /** Protected mode: pages of others, and names that were rebound to this machine, do not get in. */
  function refuseForeign({ host, targetHost, origin }: Exchange): void {
    const { protectedMode } = deps;
    let verdict = protectedMode.check(host, origin);
    if (verdict === "ok" && targetHost !== host) verdict = protectedMode.check(targetHost, undefined);
    if (verdict !== "ok") throw new GatewayError(verdict, FOREIGN[verdict]);
  }

  return {
    get isRequired() {
      return policy.current && takesCredentials(policy.current);
    },
    get jwks() {
      return policy.current?.jwks;
    },
    known: () => policy.known(FIRST_POLICY_MS),
    authenticate,
    expected(exchange) {
      const shown = shownBy(exchange);
      return shown === undefined ? undefined : recent.get(shown);
    },
    authenticateCall,
    confirm,
    refreshPolicy: () => policy.refresh(),
    follow: (stream) => followers.add(stream),
    unfollow: (stream) => followers.delete(stream),
    close() {
      policy.close();
      issuers.close();
      followers.close();
    },
  };
}

/** What shows who calls, in one text; undefined where it is a cookie, or longer than is worth remembering. */
function shownBy({ authorization, apiKey }: Exchange): string | undefined {
  const shown = authorization ?? apiKey;
  return shown === undefined || shown.length > SHOWN_CHARS_MAX ? undefined : shown;
}

const FOREIGN = {
  malformed_host: "the Host header is not a host and port",
  foreign_host: "no users are configured, so only requests for a loopback name (localhost, 127.0.0.1) are " +
    "answered; this one is for another host. Name the host in gateway.allowedHosts to accept it",
  foreign_origin:
    "no users are configured, so only pages of a loopback origin may call; this one is of another " +
    "origin. Name its host in gateway.allowedHosts to accept it",
} as const;

/** Where anybody may call, a credential that is none makes the caller nobody: a browser whose cookie has run out must be
 *  able to sign in. */
async function orNobody(caller: Caller | Promise<Caller>): Promise<Caller> {
  try {
    return await caller;
  } catch (error) {
    if (error instanceof GatewayError && error.code === "unauthenticated") return ANONYMOUS_CALLER;
    throw error;
  }
}

/** What stands behind `Bearer`; undefined for another scheme. */
function bearerOf(authorization: string): string | undefined {
  if (authorization.charCodeAt(6) !== 0x20) return undefined;
  if (authorization.slice(0, 6).toLowerCase() !== "bearer") return undefined;
  return authorization.slice(7).trim();
}

/** The key-value store's tokens are letters, a dot and a number. */
function isStoreToken(text: string): boolean {
  const dot = text.indexOf(".");
  if (dot <= 0 || dot === text.length - 1) return false;
  for (let i = dot + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}

/** Whether a request by cookie can change nothing, and starts no conversation. */
function isSafe({ method, headers }: Exchange): boolean {
  if (method !== "GET" && method !== "HEAD" && method !== "OPTIONS") return false;
  return headers.get("upgrade") === null;
}
