/** A small session worker in memory: the credentials that the gateway asks about, and signing in. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createRouterTransport,
  type HandlerContext,
  type Transport,
} from "@connectrpc/connect";
import { type JWK, SignJWT } from "jose";
import { generateKeyPairSync } from "node:crypto";
import {
  AuthService,
  CredentialService,
  type LoginRequest,
  type LogoutRequest,
  type Principal,
  Principal_Kind,
  PrincipalSchema,
  UserService,
  WatchPolicyResponseSchema,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";

/** Name of the fake's issuer and audience. */
export const ISSUER = "aetherflow";

/** What a token may say differently. */
export interface TokenParts {
  readonly claims?: Record<string, unknown>;
  readonly header?: Record<string, unknown>;
}

/** The worker, and what tests do to it. */
export interface FakeCredentials {
  readonly transport: Transport;
  /** Sessions that are open: their ids (also session tokens) and who they are of. */
  readonly sessions: Map<string, Principal>;
  /** API keys that are good. */
  readonly keys: Map<string, Principal>;
  /** Users by `name password`. */
  readonly passwords: Map<string, Principal>;
  /** How often Authenticate and WatchPolicy were called. */
  readonly calls: { authenticate: number; watchPolicy: number };
  readonly logins: LoginRequest[];
  readonly logouts: LogoutRequest[];
  readonly seen: Map<string, Headers>;
  /** Makes every call fail this way until it is undefined again. */
  failure: ConnectError | undefined;
  /** Holds Authenticate back until it resolves. */
  gate: Promise<void> | undefined;
  /** Whether changes of the policy are told to those that watch it, besides to those that ask anew. */
  tellsChanges: boolean;
  /** Whether callers must show who they are. */
  require(isRequired?: boolean): void;
  /** Ends the open streams of the policy with an error. */
  breakStreams(): void;
  /** Signs with the present key. */
  token(sessionId: string, userId: string, parts?: TokenParts): Promise<string>;
  /** Makes a new signing key; the one before verifies on, unless it is `dropped`. */
  rotate(dropped?: boolean): void;
  /** Secrets of HS256 tokens, by key id. */
  readonly secrets: Record<string, Uint8Array>;
  /** The public key as JWK. */
  publicJwk(): JWK;
}

/** A principal of a test. */
export function principal(init: Omit<MessageInitShape<typeof PrincipalSchema>, "$typeName">): Principal {
  return create(PrincipalSchema, { kind: Principal_Kind.USER, userId: `id-of-${init.username}`, ...init });
}

/** Creates one without users. */
export function createFakeCredentials(): FakeCredentials {
  let keys = [newKey(1)];
  let isRequired = false;
  let refreshes = 0;
  const watchers = new Set<{ changed: () => void; fail: boolean }>();

  const policy = () =>
    create(WatchPolicyResponseSchema, {
      isRequired,
      jwks: JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }),
      issuer: ISSUER,
      audience: ISSUER,
      secretKeys: fake.secrets,
    });
  const changed = () => {
    if (fake.tellsChanges) { for (const watcher of watchers) watcher.changed(); }
  };
  const enter = (method: string, context: HandlerContext) => {
    fake.seen.set(method, context.requestHeader);
    if (fake.failure !== undefined) throw fake.failure;
  };

  const transport = createRouterTransport((router) => {
    router.service(CredentialService, {
      async authenticate({ credential }, context) {
        fake.calls.authenticate++;
        enter("Authenticate", context);
        const found = credential.case === "apiKey"
          ? fake.keys.get(credential.value)
          : credential.case === "password"
          ? fake.passwords.get(`${credential.value.username} ${credential.value.password}`)
          : fake.sessions.get(String(credential.value));
        // What is answered is of the call's beginning.
        if (fake.gate !== undefined) await fake.gate;
        if (found === undefined) throw new ConnectError("no such credential", Code.Unauthenticated);
        return { principal: found };
      },
      async *watchPolicy(_, context) {
        fake.calls.watchPolicy++;
        enter("WatchPolicy", context);
        const watcher = { changed: () => {}, fail: false };
        watchers.add(watcher);
        try {
          for (;;) {
            const next = new Promise<void>((resolve) => watcher.changed = resolve);
            yield policy();
            const aborted = new Promise<void>((resolve) =>
              context.signal.addEventListener("abort", () => resolve(), { once: true })
            );
            await Promise.race([next, aborted]);
            if (context.signal.aborted) return;
            if (watcher.fail) throw new ConnectError("the worker has gone", Code.Unavailable);
          }
        } finally {
          watchers.delete(watcher);
        }
      },
    });
    router.service(AuthService, {
      async login(request, context) {
        enter("Login", context);
        fake.logins.push(request);
        const user = fake.passwords.get(`${request.username} ${request.password}`);
        if (user === undefined) {
          throw new ConnectError("the name or the password is wrong", Code.Unauthenticated);
        }
        const sessionId = `session-${fake.logins.length}`;
        fake.sessions.set(sessionId, { ...user, sessionId });
        return {
          accessToken: await fake.token(sessionId, user.userId),
          tokenType: "Bearer",
          expiresIn: 600,
          refreshToken: `refresh-of-${sessionId}`,
          refreshExpiresIn: 604_800,
          sessionId,
        };
      },
      async refresh({ refreshToken }, context) {
        enter("Refresh", context);
        const sessionId = refreshToken.replace(/^refresh-of-/, "");
        const user = fake.sessions.get(sessionId);
        if (user === undefined) throw new ConnectError("the token is not good", Code.Unauthenticated);
        return {
          accessToken: await fake.token(sessionId, user.userId, { claims: { jti: String(++refreshes) } }),
          tokenType: "Bearer",
          expiresIn: 600,
          refreshToken: `refresh-of-${sessionId}`,
          refreshExpiresIn: 604_800,
          sessionId,
        };
      },
      logout(request, context) {
        enter("Logout", context);
        fake.logouts.push(request);
        fake.sessions.delete(request.refreshToken.replace(/^refresh-of-/, ""));
        return {};
      },
      getMe(_, context) {
        enter("GetMe", context);
        return {};
      },
    });
    router.service(UserService, {
      createUser({ username }, context) {
        enter("CreateUser", context);
        fake.require();
        return { user: { username } };
      },
      listUsers(_, context) {
        enter("ListUsers", context);
        return {};
      },
    });
    router.service(SessionService, {
      createSession({ clientIp, clientPort }, context) {
        enter("CreateSession", context);
        return { session: { clientIp, clientPort } };
      },
      getSession({ sessionId }, context) {
        enter("GetSession", context);
        return { session: { sessionId } };
      },
    });
  });

  const fake: FakeCredentials = {
    transport,
    sessions: new Map(),
    keys: new Map(),
    passwords: new Map(),
    calls: { authenticate: 0, watchPolicy: 0 },
    logins: [],
    logouts: [],
    seen: new Map(),
    failure: undefined,
    gate: undefined,
    tellsChanges: true,
    require(required = true) {
      isRequired = required;
      changed();
    },
    breakStreams() {
      for (const watcher of watchers) {
        watcher.fail = true;
        watcher.changed();
      }
    },
    token(sessionId, userId, { claims = {}, header = {} } = {}) {
      const { privateKey, jwk } = keys[0]!;
      const now = Math.floor(Date.now() / 1_000);
      const all = {
        sub: userId,
        sid: sessionId,
        iss: ISSUER,
        aud: ISSUER,
        iat: now,
        exp: now + 600,
        ...claims,
      };
      return new SignJWT(all).setProtectedHeader({ alg: "EdDSA", typ: "at+jwt", kid: jwk.kid!, ...header })
        .sign(privateKey);
    },
    rotate(dropped = false) {
      const next = newKey(keys.length + 1);
      keys = dropped ? [next] : [next, ...keys];
      changed();
    },
    secrets: {},
    publicJwk: () => keys[0]!.jwk,
  };
  return fake;
}

function newKey(number: number) {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const jwk: JWK = {
    ...publicKey.export({ format: "jwk" }) as JWK,
    kid: `key-${number}`,
    alg: "EdDSA",
    use: "sig",
  };
  return { privateKey, jwk };
}
