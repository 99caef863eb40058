/** AuthService: what everybody does for themselves. */
import {
  type AuthService,
  type CreateApiKeyRequest,
  type Principal,
  Principal_Kind,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { formatGuuid, parseGuuid } from "../../runtime/guuid.ts";
import { isAdmin, principalOf } from "../../runtime/principal.ts";
import type { Accounts, User } from "./accounts.ts";
import type { Authenticator } from "./authenticator.ts";
import { AuthError } from "./errors.ts";
import { checkGrants } from "./grants.ts";
import type { Logins, SignedIn } from "./logins.ts";
import { keyMessage, userMessage } from "./messages.ts";
import type { AuthMetrics } from "./metrics.ts";
import type { RefreshTokens } from "./refresh_tokens.ts";
import { mapped } from "./rpc_errors.ts";
import type { Sessions } from "./sessions.ts";

/** What the handlers need. */
export interface AuthHandlersDeps {
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly authenticator: Authenticator;
  readonly logins: Logins;
  readonly refreshTokens: RefreshTokens;
  readonly metrics: AuthMetrics;
  readonly clock: { wallMs(): number };
}

/** Bytes of a key's name. */
const KEY_NAME_BYTES_MAX = 128;
/** Bytes of a password that is looked at at all: 256 characters of four. */
const PASSWORD_BYTES_MAX = 1_024;
const PAGE_DEFAULT = 100;
const PAGE_MAX = 1_000;
const LOGOUT_REASON = "signed out";

const encoder = new TextEncoder();

/** The implementation of AuthService. */
export function createAuthHandlers(deps: AuthHandlersDeps): ServiceImpl<typeof AuthService> {
  const { accounts, sessions, authenticator, logins, refreshTokens, metrics, clock } = deps;

  /** Who calls, as that is now. @throws {AuthError} `noCaller`, `badCredential` */
  async function callerOf(context: HandlerContext): Promise<Principal> {
    const principal = await authenticator.current(principalOf(context.requestHeader));
    // A worker of the product signs nobody in and owns nothing.
    if (principal === undefined) throw new AuthError("noCaller");
    return principal;
  }

  /** The user that calls with a session: keys do not change what keys are made from.
   *  @throws {AuthError} `needsSession`, `notLocal` */
  async function personOf(context: HandlerContext): Promise<{ principal: Principal; user: User }> {
    const principal = await callerOf(context);
    if (principal.kind === Principal_Kind.API_KEY) throw new AuthError("needsSession");
    if (principal.kind !== Principal_Kind.USER) throw new AuthError("notLocal");
    if (principal.sessionId === "") throw new AuthError("needsSession");
    const user = await accounts.user(principal.userId);
    if (user === undefined) throw new AuthError("badCredential");
    return { principal, user };
  }

  /** Whose sessions a caller sees. Keys that may not do everything their user may see none. */
  async function ownerOf(context: HandlerContext): Promise<Principal> {
    const principal = await callerOf(context);
    if (principal.kind === Principal_Kind.API_KEY) throw new AuthError("needsSession");
    if (principal.userId === "") throw new AuthError("notLocal");
    return principal;
  }

  return {
    async login(request, context) {
      try {
        const { username, password, clientIp, clientPort, metadata } = request;
        const signedIn = await mapped(() => {
          checkPasswordBytes(password);
          return logins.login({ username, password, clientIp, clientPort, metadata });
        });
        metrics.login("ok");
        // ASVS 7.2.4: who signs in anew leaves the session that it came with.
        const left = principalOf(context.requestHeader)?.sessionId ?? "";
        if (left !== "") await mapped(() => sessions.end(left, "signed in anew"));
        return {
          $typeName: "aetherflow.auth.v1.LoginResponse",
          ...tokensOf(signedIn),
          user: userMessage(signedIn.user),
        };
      } catch (error) {
        const kind = kindOf(error);
        metrics.login(kind === "badLogin" ? "refused" : kind === "tooManyAttempts" ? "throttled" : "failed");
        throw error;
      }
    },

    async refresh({ refreshToken }) {
      try {
        const signedIn = await mapped(() => logins.refresh(refreshToken));
        metrics.refresh(signedIn.isRepeat ? "repeat" : "ok");
        return { $typeName: "aetherflow.auth.v1.RefreshResponse", ...tokensOf(signedIn) };
      } catch (error) {
        metrics.refresh(kindOf(error) === "badRefreshToken" ? "refused" : "failed");
        throw error;
      }
    },

    logout: ({ refreshToken }, context) =>
      mapped(async () => {
        // What has ended already needs no end: whoever signs out twice is signed out.
        if (refreshToken !== "") {
          const session = await refreshTokens.sessionOf(refreshToken).catch(unlessEnded);
          if (session !== undefined) await sessions.end(session.id, LOGOUT_REASON);
        } else {
          const sessionId = principalOf(context.requestHeader)?.sessionId ?? "";
          if (sessionId !== "") await sessions.end(sessionId, LOGOUT_REASON);
        }
        return { $typeName: "aetherflow.auth.v1.LogoutResponse" as const };
      }),

    getMe: (_request, context) =>
      mapped(async () => {
        const principal = await callerOf(context);
        const isLocal = principal.kind === Principal_Kind.USER || principal.kind === Principal_Kind.API_KEY;
        const user = isLocal ? await accounts.user(principal.userId) : undefined;
        return {
          $typeName: "aetherflow.auth.v1.GetMeResponse" as const,
          principal,
          ...(user === undefined ? {} : { user: userMessage(user) }),
        };
      }),

    listMySessions: ({ pageSize, pageToken }, context) =>
      mapped(async () => {
        const principal = await ownerOf(context);
        const page = await sessions.list(principal.userId, {
          pageSize: checkPageSize(pageSize),
          pageToken: pageToken === "" ? "" : idOf(pageToken, "page_token"),
        });
        return {
          $typeName: "aetherflow.auth.v1.ListMySessionsResponse" as const,
          sessions: page.sessions.map((session) => sessions.messageOf(session)),
          nextPageToken: page.nextPageToken,
          currentSessionId: principal.sessionId,
        };
      }),

    endMySession: ({ sessionId }, context) =>
      mapped(async () => {
        const principal = await ownerOf(context);
        const session = await sessions.get(idOf(sessionId, "session_id"));
        if (session === undefined || session.userId !== principal.userId) {
          throw new AuthError("sessionNotFound");
        }
        await sessions.end(session.id, "ended by its user");
        return { $typeName: "aetherflow.auth.v1.EndMySessionResponse" as const };
      }),

    endMySessions: (_request, context) =>
      mapped(async () => {
        const principal = await ownerOf(context);
        const kept = principal.sessionId === "" ? undefined : principal.sessionId;
        const ended = await sessions.revokeUser(principal.userId, "ended by its user", kept);
        return { $typeName: "aetherflow.auth.v1.EndMySessionsResponse" as const, ended: BigInt(ended) };
      }),

    changePassword: ({ currentPassword, newPassword }, context) =>
      mapped(async () => {
        checkPasswordBytes(currentPassword);
        const { principal, user } = await personOf(context);
        await logins.changePassword(user.id, currentPassword, newPassword, principal.sessionId);
        return { $typeName: "aetherflow.auth.v1.ChangePasswordResponse" as const };
      }),

    createApiKey: (request, context) =>
      mapped(async () => {
        const { user } = await personOf(context);
        const wanted = checkKey(request, clock.wallMs());
        const { id, text, secretHash } = authenticator.makeApiKey();
        // Looked at again, with the user held still: somebody may end the session meanwhile.
        const isAllowed = async () => void await personOf(context);
        const key = await accounts.createKey(user.id, { id, secretHash, ...wanted }, isAllowed);
        return {
          $typeName: "aetherflow.auth.v1.CreateApiKeyResponse" as const,
          key: keyMessage(key, user.username),
          secret: text,
        };
      }),

    listApiKeys: ({ username }, context) =>
      mapped(async () => {
        const principal = await callerOf(context);
        const isOwn = username === "" || username === principal.username;
        if (!isOwn && !isAdmin(principal)) throw new AuthError("notAdmin");
        // A key with scopes is not its user.
        if (!isAdmin(principal) && principal.kind === Principal_Kind.API_KEY) {
          throw new AuthError("needsSession");
        }
        const user = username === ""
          ? await accounts.user(principal.userId)
          : await accounts.userByName(username);
        if (user === undefined) throw new AuthError(username === "" ? "notLocal" : "userNotFound");
        const keys = await accounts.keysOf(user);
        return {
          $typeName: "aetherflow.auth.v1.ListApiKeysResponse" as const,
          keys: keys.map((key) => keyMessage(key, user.username)),
        };
      }),

    deleteApiKey: ({ keyId }, context) =>
      mapped(async () => {
        const principal = await callerOf(context);
        const id = idOf(keyId, "key_id");
        // A key may end itself, and an administrator any.
        const mayAny = isAdmin(principal);
        const key = await accounts.key(id);
        const isOwn = key !== undefined && key.userId === principal.userId &&
          (principal.kind !== Principal_Kind.API_KEY || principal.keyId === id);
        const deleted = (mayAny || isOwn) && await accounts.removeKey(id);
        return { $typeName: "aetherflow.auth.v1.DeleteApiKeyResponse" as const, deleted };
      }),
  };
}

function tokensOf({ access, refresh, session }: SignedIn) {
  return {
    accessToken: access.text,
    tokenType: "Bearer",
    expiresIn: access.expiresInS,
    refreshToken: refresh.text,
    refreshExpiresIn: refresh.expiresInS,
    sessionId: session.id,
  };
}

function checkKey(request: CreateApiKeyRequest, nowMs: number) {
  const { name, scopes, expiresInSeconds } = request;
  const bytes = encoder.encode(name).length;
  if (bytes < 1 || bytes > KEY_NAME_BYTES_MAX) {
    throw new AuthError("invalid", `name has ${bytes} bytes, expected 1 to ${KEY_NAME_BYTES_MAX}`);
  }
  return {
    name,
    scopes: checkGrants(scopes, "scopes"),
    expiresAtMs: expiresInSeconds === 0 ? 0 : nowMs + expiresInSeconds * 1_000,
  };
}

/** @throws {AuthError} `invalid` */
export function checkPageSize(pageSize: number): number {
  if (pageSize >= 0 && pageSize <= PAGE_MAX) return pageSize || PAGE_DEFAULT;
  throw new AuthError("invalid", `page_size is ${pageSize}, expected 1 to ${PAGE_MAX}`);
}

/** A GUUID in its one spelling. @throws {AuthError} `invalid` */
function idOf(text: string, field: string): string {
  const bytes = parseGuuid(text);
  if (bytes === undefined) {
    throw new AuthError("invalid", `${field} is no GUUID: expected 26 characters, or a UUID`);
  }
  return formatGuuid(bytes);
}

/** A longer one is nobody's password: it is not worth a hash. Throws what a wrong one gives. */
function checkPasswordBytes(password: string): void {
  if (password === "" || encoder.encode(password).length > PASSWORD_BYTES_MAX) {
    throw new AuthError("invalid", `the password is empty or has more than ${PASSWORD_BYTES_MAX} bytes`);
  }
}

function unlessEnded(error: unknown): undefined {
  if (error instanceof AuthError && error.kind === "badRefreshToken") return undefined;
  throw error;
}

/** Which of our refusals an error of the wire is. */
function kindOf(error: unknown): string | undefined {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof AuthError ? cause.kind : undefined;
}
