/** SessionService on the wire. Messages are made as plain literals with their type name, which serialise as they are:
 *  `create` would copy each one. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  type CountSessionsResponse,
  type CreateSessionRequest,
  type CreateSessionResponse,
  type HeartbeatResponse,
  type ListSessionsRequest,
  type ListSessionsResponse,
  type Session as SessionMessage,
  SessionEventType as EventTypeOnWire,
  SessionService as SessionServiceDesc,
  SessionState as StateOnWire,
  type SessionStats as StatsMessage,
  type UpdateSessionRequest,
  type WatchSessionsRequest,
  type WatchSessionsResponse,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import { formatGuuid, parseGuuid } from "../runtime/guuid.ts";
import { principalOf } from "../runtime/principal.ts";
import { mayTouch, ownerOf, userMeant } from "./access.ts";
import { hiddenOf } from "./auth/vouched.ts";
import { SessionError } from "./errors.ts";
import type { SessionEvent, SessionEventType, SessionWatch } from "./events.ts";
import { mapped, toConnectError } from "./rpc_errors.ts";
import type { SessionChange, SessionService } from "./service.ts";
import type { Session, SessionStats } from "./session.ts";
import type { SessionState } from "./state.ts";
import type { Awaitable, SessionCounts } from "./store.ts";

const PAGE_DEFAULT = 100;
const PAGE_MAX = 1_000;
/** Events after which a watcher lets others run. */
const EVENTS_PER_TURN = 256;

/** What the handlers need. */
export interface SessionHandlersDeps {
  readonly service: SessionService;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** The implementation of SessionService. */
export function createSessionHandlers(
  { service, pause }: SessionHandlersDeps,
): ServiceImpl<typeof SessionServiceDesc> {
  /** Goes on with the session if it exists and the caller may have it; else it does not exist, for this caller. */
  function withOwn<T>(
    context: HandlerContext,
    id: string,
    isWrite: boolean,
    go: (session: Session) => Awaitable<T>,
  ): Awaitable<T> {
    const principal = callerOf(context);
    return then(service.get(id), (session) => {
      if (session === undefined || !mayTouch(principal, session.userId, isWrite)) {
        throw new SessionError("notFound");
      }
      return go(session);
    });
  }

  return {
    createSession: (request, context) => mapped(() => createSession(service, request, callerOf(context))),
    getSession: (request, context) =>
      mapped(() =>
        withOwn(context, idOf(request.sessionId), false, (session) => ({
          $typeName: "aetherflow.session.v1.GetSessionResponse" as const,
          session: sessionMessage(session),
        }))
      ),
    updateSession: (request, context) =>
      mapped(() => {
        const id = idOf(request.session?.sessionId ?? "", "session.session_id");
        const change = changeOf(request);
        return withOwn(context, id, true, async () => ({
          $typeName: "aetherflow.session.v1.UpdateSessionResponse" as const,
          session: sessionMessage(await service.update(id, change)),
        }));
      }),
    deleteSession: (request, context) =>
      mapped(async () => ({
        $typeName: "aetherflow.session.v1.DeleteSessionResponse" as const,
        deleted: await deleteSession(service, idOf(request.sessionId), request.reason, callerOf(context)),
      })),
    listSessions: (request, context) => mapped(() => listSessions(service, request, callerOf(context))),
    heartbeat: (request, context) =>
      mapped(() => {
        const id = idOf(request.sessionId);
        const beat = () =>
          then(service.heartbeat(id), (session) => heartbeatMessage(session, service.nowMs()));
        // A worker may have any session: no need to look whose it is.
        return callerOf(context) === undefined ? beat() : withOwn(context, id, true, beat);
      }),
    verifySession: (request, context) =>
      mapped(() => {
        const principal = callerOf(context);
        return then(service.verify(request.token), (session) => {
          if (session === undefined || !mayTouch(principal, session.userId, false)) {
            throw new SessionError("badToken");
          }
          return {
            $typeName: "aetherflow.session.v1.VerifySessionResponse" as const,
            session: sessionMessage(session),
          };
        });
      }),
    revokeUserSessions: (request, context) =>
      mapped(async () => {
        if (request.userId === "") throw new SessionError("invalid", "user_id is empty");
        if (!mayTouch(callerOf(context), request.userId, true)) throw new SessionError("denied");
        const revoked = await service.revokeUser(request.userId, request.reason);
        return {
          $typeName: "aetherflow.session.v1.RevokeUserSessionsResponse" as const,
          revoked: BigInt(revoked),
        };
      }),
    watchSessions: (request, context) => watchSessions(service, pause, request, context),
    countSessions: (_request, context) =>
      mapped(() => then(service.count(userMeant(callerOf(context), "")), countMessage)),
  };
}

// ---- calls ----

async function createSession(
  service: SessionService,
  request: CreateSessionRequest,
  principal: Principal | undefined,
): Promise<CreateSessionResponse> {
  const userId = ownerOf(principal, request.userId);
  const { session, token } = await service.create({
    userId,
    hidden: hiddenOf(principal, userId),
    clientIp: request.clientIp,
    clientPort: request.clientPort,
    serverAddr: request.serverAddr,
    connectionId: request.connectionId === "" ? undefined : idOf(request.connectionId, "connection_id"),
    metadata: request.metadata,
    idleTimeoutMs: request.timeoutSeconds * 1_000,
  });
  return {
    $typeName: "aetherflow.session.v1.CreateSessionResponse",
    session: sessionMessage(session),
    token,
  };
}

/** Whether it was there, for this caller. */
async function deleteSession(
  service: SessionService,
  id: string,
  reason: string,
  principal: Principal | undefined,
): Promise<boolean> {
  if (principal !== undefined) {
    const session = await service.get(id);
    if (session !== undefined && !mayTouch(principal, session.userId, true)) return false;
  }
  return await service.end(id, reason);
}

async function listSessions(
  service: SessionService,
  request: ListSessionsRequest,
  principal: Principal | undefined,
): Promise<ListSessionsResponse> {
  const limit = request.pageSize === 0 ? PAGE_DEFAULT : request.pageSize;
  if (!(limit >= 1 && limit <= PAGE_MAX)) {
    throw new SessionError("invalid", `page_size is ${request.pageSize}, expected 1 to ${PAGE_MAX}`);
  }
  const { connectionId } = request;
  const page = await service.list(
    {
      userId: userMeant(principal, request.userId),
      state: stateOf(request.state),
      connectionId: connectionId === "" ? undefined : idOf(connectionId, "connection_id"),
    },
    afterToken(request.pageToken),
    limit,
  );
  return {
    $typeName: "aetherflow.session.v1.ListSessionsResponse",
    sessions: page.sessions.map(sessionMessage),
    nextPageToken: page.more ? page.sessions.at(-1)!.id : "",
    totalSize: BigInt(page.total),
  };
}

/** The first message has no session: its offset is the one before the first event that will be told, so that a client
 *  which then lists, and goes on from that offset, misses nothing. */
async function* watchSessions(
  service: SessionService,
  pause: () => Promise<void>,
  request: WatchSessionsRequest,
  context: HandlerContext,
): AsyncGenerator<WatchSessionsResponse, void, void> {
  const { signal } = context;
  let watch: SessionWatch | undefined;
  const leave = () => watch?.close();
  signal.addEventListener("abort", leave);
  try {
    const userId = userMeant(callerOf(context), request.userId);
    watch = service.watch(Number(request.startOffset));
    yield eventMessage({
      offset: watch.offset - 1,
      type: undefined,
      session: undefined,
      reason: "",
      atMs: service.nowMs(),
    });
    for (let i = 1; !signal.aborted; i++) {
      const event = watch.take();
      if (event !== undefined) {
        if (userId === undefined || event.session.userId === userId) yield eventMessage(event);
        if (i % EVENTS_PER_TURN === 0) await pause();
      } else if (service.events.isClosed) {
        throw new SessionError("stopped");
      } else {
        await watch.changed();
      }
    }
  } catch (error) {
    throw toConnectError(error);
  } finally {
    signal.removeEventListener("abort", leave);
    watch?.close();
  }
}

// ---- what requests say ----

/** Who calls. A caller that names nobody is a worker of the product. */
function callerOf(context: HandlerContext): Principal | undefined {
  return principalOf(context.requestHeader);
}

/** A GUUID in its one spelling. @throws {SessionError} `invalid` */
function idOf(text: string, field = "session_id"): string {
  const bytes = parseGuuid(text);
  if (bytes === undefined) {
    throw new SessionError("invalid", `${field} is no GUUID: expected 26 characters, or a UUID`);
  }
  return formatGuuid(bytes);
}

/** Where a page begins: its token is the last id of the page before. */
function afterToken(token: string): string {
  if (token === "") return "";
  const bytes = parseGuuid(token);
  if (bytes === undefined) throw new SessionError("badPageToken");
  return formatGuuid(bytes);
}

const STATES: Readonly<Record<StateOnWire, SessionState | undefined>> = {
  [StateOnWire.UNSPECIFIED]: undefined,
  [StateOnWire.CONNECTING]: "connecting",
  [StateOnWire.ACTIVE]: "active",
  [StateOnWire.IDLE]: "idle",
  [StateOnWire.DISCONNECTING]: "disconnecting",
  [StateOnWire.CLOSED]: "closed",
};

/** @throws {SessionError} `invalid` for a number that is no state. */
function stateOf(state: StateOnWire): SessionState | undefined {
  if (!(state in STATES)) throw new SessionError("invalid", `state is ${state}, which is none`);
  return STATES[state];
}

const METADATA_PATH = "metadata.";

/** @throws {SessionError} `invalid` */
function changeOf({ session, updateMask }: UpdateSessionRequest): SessionChange {
  const { state, metadata, stats } = session!;
  const paths = updateMask?.paths ?? [];
  if (paths.length === 0) {
    return {
      state: stateOf(state),
      metadata: Object.keys(metadata).length === 0 ? undefined : metadata,
      stats: stats === undefined ? undefined : statsOf(stats),
    };
  }
  const change: { -readonly [Field in keyof SessionChange]: SessionChange[Field] } = {};
  for (const path of paths) {
    if (path === "state") {
      change.state = stateOf(state);
      if (change.state === undefined) throw new SessionError("invalid", "session.state is not set");
    } else if (path === "metadata") change.metadata = metadata;
    else if (path === "stats") change.stats = statsOf(stats);
    else if (path.startsWith(METADATA_PATH)) {
      const name = path.slice(METADATA_PATH.length);
      change.metadataEntries = { ...change.metadataEntries, [name]: metadata[name] };
    } else {
      throw new SessionError(
        "invalid",
        `update_mask has ${path}, expected state, metadata, metadata.<name> or stats`,
      );
    }
  }
  return change;
}

function statsOf(stats: StatsMessage | undefined): SessionStats {
  return {
    packetsSent: stats?.packetsSent ?? 0n,
    packetsReceived: stats?.packetsReceived ?? 0n,
    bytesSent: stats?.bytesSent ?? 0n,
    bytesReceived: stats?.bytesReceived ?? 0n,
    retransmissions: stats?.retransmissions ?? 0n,
    currentRttMs: stats?.currentRttMs ?? 0,
  };
}

// ---- messages ----

const STATES_ON_WIRE: Readonly<Record<SessionState, StateOnWire>> = {
  connecting: StateOnWire.CONNECTING,
  active: StateOnWire.ACTIVE,
  idle: StateOnWire.IDLE,
  disconnecting: StateOnWire.DISCONNECTING,
  closed: StateOnWire.CLOSED,
};

const EVENT_TYPES: Readonly<Record<SessionEventType, EventTypeOnWire>> = {
  created: EventTypeOnWire.CREATED,
  updated: EventTypeOnWire.UPDATED,
  ended: EventTypeOnWire.ENDED,
  expired: EventTypeOnWire.EXPIRED,
};

/** A session as the wire has it. */
export function sessionMessage(session: Session): SessionMessage {
  return {
    $typeName: "aetherflow.session.v1.Session",
    sessionId: session.id,
    userId: session.userId,
    connectionId: session.connectionId,
    clientIp: session.clientIp,
    clientPort: session.clientPort,
    serverAddr: session.serverAddr,
    state: STATES_ON_WIRE[session.state],
    createdAt: timestamp(session.createdAtMs),
    lastActiveAt: timestamp(session.lastActiveMs),
    expiresAt: timestamp(session.expiresAtMs),
    metadata: session.metadata,
    stats: session.stats === undefined
      ? undefined
      : { $typeName: "aetherflow.session.v1.SessionStats", ...session.stats },
  };
}

function heartbeatMessage(session: Session, nowMs: number): HeartbeatResponse {
  return {
    $typeName: "aetherflow.session.v1.HeartbeatResponse",
    serverTimestamp: timestamp(nowMs),
    remainingSeconds: Math.max(0, Math.floor((session.expiresAtMs - nowMs) / 1_000)),
  };
}

function countMessage(counts: SessionCounts): CountSessionsResponse {
  const byState: Record<string, bigint> = {};
  let total = 0;
  for (const [state, count] of Object.entries(counts)) {
    if (count === 0) continue;
    byState[state] = BigInt(count);
    total += count;
  }
  return { $typeName: "aetherflow.session.v1.CountSessionsResponse", total: BigInt(total), byState };
}

type ToldEvent = Omit<SessionEvent, "type" | "session"> & {
  readonly type: SessionEventType | undefined;
  readonly session: Session | undefined;
};

function eventMessage({ offset, type, session, reason, atMs }: ToldEvent): WatchSessionsResponse {
  return {
    $typeName: "aetherflow.session.v1.WatchSessionsResponse",
    offset: BigInt(offset),
    type: type === undefined ? EventTypeOnWire.UNSPECIFIED : EVENT_TYPES[type],
    session: session === undefined ? undefined : sessionMessage(session),
    reason,
    at: timestamp(atMs),
  };
}

function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1_000);
  return {
    $typeName: "google.protobuf.Timestamp",
    seconds: BigInt(seconds),
    nanos: (ms - seconds * 1_000) * 1_000_000,
  };
}

/** Goes on with a value, now or when it is there. */
function then<T, U>(value: Awaitable<T>, go: (value: T) => Awaitable<U>): Awaitable<U> {
  return value instanceof Promise ? value.then(go) : go(value);
}
