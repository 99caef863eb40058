/** Authentication on memory stores and a clock turned by hand, called as gateways call it. */
import { type Client, createClient, createRouterTransport, type Transport } from "@connectrpc/connect";
import {
  AuthService,
  CredentialService,
  type LoginResponse,
  type Principal,
  UserService,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { createManualClock, type ManualClock } from "../../../runtime/clock.ts";
import { encodePrincipal, PRINCIPAL_METADATA } from "../../../runtime/principal.ts";
import { createSeededRandom } from "../../../runtime/random.ts";
import { sessionConfigSchema } from "../../config.ts";
import { createSessionModule, type SessionService } from "../../mod.ts";
import { createMemoryStore } from "../../stores/memory.ts";
import { MemoryRecords } from "../../stores/records_memory.ts";
import { type AuthConfig, authConfigSchema } from "../config.ts";
import { type AuthMetrics, noMetrics } from "../metrics.ts";
import { createAuthModule, sessionsOf } from "../mod.ts";
import type { Passwords } from "../password_checks.ts";
import type { RecordStore } from "../records.ts";
import type { Sessions } from "../sessions.ts";

/** A password that may be chosen. */
export const PASSWORD = "correct horse battery";

/** What a world may be made of besides the usual. */
export interface WorldOptions {
  /** Keys of `session.auth`. */
  readonly auth?: Record<string, unknown>;
  /** Keys of `session`. */
  readonly session?: Record<string, unknown>;
  readonly records?: RecordStore;
  readonly passwords?: Passwords;
  /** Stands between authentication and sessions. */
  readonly wrap?: (sessions: Sessions) => Sessions;
  readonly metrics?: AuthMetrics;
  readonly clock?: ManualClock;
}

/** What was logged. */
export type LogLine = readonly [message: string, fields: Record<string, unknown> | undefined];

/** Passwords that are hashed by writing them down, at once. */
export function plainPasswords(): Passwords & { readonly verified: string[] } {
  const verified: string[] = [];
  return {
    verified,
    hash: (password) => Promise.resolve(`plain:${password}`),
    verify: (password, hash) => {
      verified.push(hash);
      return Promise.resolve({ matches: hash === `plain:${password}`, isOutdated: false });
    },
  };
}

/** The wired services and their clients. */
export interface World {
  readonly clock: ManualClock;
  readonly config: AuthConfig;
  readonly service: SessionService;
  readonly records: RecordStore;
  readonly log: LogLine[];
  readonly auth: Client<typeof AuthService>;
  readonly users: Client<typeof UserService>;
  readonly credentials: Client<typeof CredentialService>;
  readonly transport: Transport;
  tick(): Promise<void>;
  close(): Promise<void>;
}

/** Makes a world. */
export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const clock = options.clock ?? createManualClock();
  const random = createSeededRandom(7);
  const config = authConfigSchema.parse(options.auth ?? {});
  const sessionConfig = sessionConfigSchema.parse(options.session ?? {});
  const { service, close } = createSessionModule({
    store: createMemoryStore({ sessionsMax: 10_000, perUserMax: sessionConfig.perUserMax, seed: 1 }),
    config: sessionConfig,
    clock,
    random,
    pause: () => Promise.resolve(),
  });
  const records = options.records ?? new MemoryRecords();
  const log: LogLine[] = [];
  const write = (message: string, fields?: Record<string, unknown>) => void log.push([message, fields]);
  const sessions = sessionsOf(service);
  const module = await createAuthModule({
    config,
    absoluteTimeoutMs: sessionConfig.absoluteTimeoutMs,
    records,
    sessions: options.wrap?.(sessions) ?? sessions,
    passwords: options.passwords ?? plainPasswords(),
    random,
    clock: { now: () => clock.now(), wallMs: () => service.nowMs() },
    metrics: options.metrics ?? noMetrics,
    log: { info: write, warn: write },
  });
  const transport = createRouterTransport(({ service }) => {
    service(AuthService, module.handlers.auth);
    service(UserService, module.handlers.users);
    service(CredentialService, module.handlers.credentials);
  });
  return {
    clock,
    config,
    service,
    records,
    log,
    transport,
    auth: createClient(AuthService, transport),
    users: createClient(UserService, transport),
    credentials: createClient(CredentialService, transport),
    tick: () => module.tick(),
    async close() {
      await module.close();
      await close();
    },
  };
}

/** Options of a call in somebody's name, as a gateway sends it. */
export function as(principal: Principal): { headers: Record<string, string> } {
  return { headers: { [PRINCIPAL_METADATA]: encodePrincipal(principal) } };
}

/** Signs in, from an address of its own unless told. */
export function login(
  world: World,
  username: string,
  password = PASSWORD,
  clientIp = "192.0.2.1",
): Promise<LoginResponse> {
  return world.auth.login({ username, password, clientIp, clientPort: 1234 });
}

/** Who a session stands for, now. */
export async function principalOfSession(world: World, sessionId: string): Promise<Principal> {
  const { principal } = await world.credentials.authenticate({
    credential: { case: "sessionId", value: sessionId },
  });
  return principal!;
}

/** Signs in; the options of calls in that session's name. */
export async function signedIn(world: World, username: string, password = PASSWORD) {
  const answer = await login(world, username, password);
  const principal = await principalOfSession(world, answer.sessionId);
  return { ...answer, principal, options: as(principal) };
}
