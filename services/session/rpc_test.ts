import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type CreateSessionRequestSchema,
  SessionEventType,
  SessionService,
  SessionState,
  type WatchSessionsResponse,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { createMemoryChannelPair } from "../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { createManualClock } from "../runtime/clock.ts";
import { formatGuuid, parseGuuid } from "../runtime/guuid.ts";
import { encodePrincipal, PRINCIPAL_METADATA } from "../runtime/principal.ts";
import { createSeededRandom } from "../runtime/random.ts";
import { sessionConfigSchema } from "./config.ts";
import { SESSION_ERRORS, SessionError, type SessionErrorKind } from "./errors.ts";
import { createSessionModule } from "./mod.ts";
import { toConnectError } from "./rpc_errors.ts";
import { createMemoryStore } from "./stores/memory.ts";

/** The service behind RPC on a memory channel. */
function open(config: Record<string, unknown> = {}) {
  const clock = createManualClock(1_800_000_000_000);
  const parsed = sessionConfigSchema.parse(config);
  const { service, handlers, close } = createSessionModule({
    store: createMemoryStore({ ...parsed, seed: 1 }),
    config: parsed,
    clock,
    random: createSeededRandom(9),
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  server.service(SessionService, handlers);
  server.accept(far);
  const client = createClient(SessionService, createChannelTransport({ channel: () => near }));
  return {
    service,
    clock,
    client,
    async [Symbol.asyncDispose]() {
      await close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

/** Who calls, as a gateway says it. */
function as(principal: MessageInitShape<typeof PrincipalSchema>): { headers: HeadersInit } {
  const message: Principal = create(PrincipalSchema, { kind: Principal_Kind.USER, ...principal });
  return { headers: { [PRINCIPAL_METADATA]: encodePrincipal(message) } };
}

const ANN = as({ userId: "ann", username: "Ann" });
const BOB = as({ userId: "bob", username: "Bob" });
const ADMIN = as({ userId: "root", roles: ["admin"] });

async function refusal(action: () => Promise<unknown>): Promise<[Code, string]> {
  try {
    await action();
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("it was not refused");
}

const REQUEST: MessageInitShape<typeof CreateSessionRequestSchema> = {
  userId: "ann",
  clientIp: "2001:db8::1",
  clientPort: 4_242,
  serverAddr: "edge-1:443",
  metadata: { device: "phone" },
};

Deno.test("SessionService opens, finds, uses, verifies and ends a session", async () => {
  await using opened = open();
  const { client, clock } = opened;
  const connectionId = "01890a5d-ac96-774b-bcce-b302099a8057";
  const { session, token } = await client.createSession({ ...REQUEST, timeoutSeconds: 90, connectionId });
  assert(session !== undefined);
  assertEquals(parseGuuid(session.sessionId)?.length, 16);
  assertEquals(
    [session.userId, session.clientIp, session.clientPort, session.serverAddr, session.state],
    ["ann", "2001:db8::1", 4_242, "edge-1:443", SessionState.CONNECTING],
  );
  assertEquals(session.connectionId, formatGuuid(parseGuuid(connectionId)!));
  assertEquals(timestampMs(session.expiresAt!) - timestampMs(session.createdAt!), 90_000);
  assertEquals({ ...session.metadata }, { device: "phone" });
  const { sessionId } = session;
  assertEquals((await client.getSession({ sessionId: sessionId.toLowerCase() })).session, session);
  clock.advance(30_500);
  const beat = await client.heartbeat({ sessionId });
  assertEquals([beat.remainingSeconds, timestampMs(beat.serverTimestamp!)], [90, clock.wallMs()]);
  const verified = await client.verifySession({ token });
  assertEquals([verified.session?.sessionId, verified.session?.state], [sessionId, SessionState.ACTIVE]);
  assertEquals((await client.deleteSession({ sessionId, reason: "logout" })).deleted, true);
  assertEquals((await client.deleteSession({ sessionId })).deleted, false);
  const gone: [Code, string] = [Code.NotFound, SESSION_ERRORS.notFound.text];
  assertEquals(await refusal(() => client.getSession({ sessionId })), gone);
  assertEquals(await refusal(() => client.heartbeat({ sessionId })), gone);
  assertEquals(await refusal(() => client.updateSession({ session: { sessionId } })), gone);
  const wrong: [Code, string] = [Code.Unauthenticated, SESSION_ERRORS.badToken.text];
  assertEquals(await refusal(() => client.verifySession({ token })), wrong);
  assertEquals(await refusal(() => client.verifySession({ token: "" })), wrong);
});

Deno.test("SessionService names the field that is wrong", async () => {
  await using opened = open({ absoluteTimeoutMs: 3_600_000 });
  const { client } = opened;
  const { session } = await client.createSession(REQUEST);
  const { sessionId } = session!;
  const cases: [() => Promise<unknown>, string][] = [
    [() => client.getSession({}), "session_id is no GUUID"],
    [() => client.heartbeat({ sessionId: "x" }), "session_id is no GUUID"],
    [() => client.updateSession({}), "session.session_id is no GUUID"],
    [() => client.createSession({ ...REQUEST, connectionId: "x" }), "connection_id is no GUUID"],
    [
      () => client.createSession({ ...REQUEST, timeoutSeconds: 3_601 }),
      "timeout is 3601 s, expected at most 3600 s (session.absoluteTimeoutMs)",
    ],
    [() => client.createSession({ ...REQUEST, userId: "" }), "user_id is empty"],
    [() => client.listSessions({ pageSize: 1_001 }), "page_size is 1001, expected 1 to 1000"],
    [() => client.listSessions({ pageSize: -1 }), "page_size is -1"],
    [() => client.listSessions({ connectionId: "x" }), "connection_id is no GUUID"],
    [() => client.listSessions({ state: 9 as SessionState }), "state is 9, which is none"],
    [() => client.revokeUserSessions({}), "user_id is empty"],
    [() => client.deleteSession({ sessionId, reason: "r".repeat(257) }), "reason has 257 bytes"],
    [
      () => client.updateSession({ session: { sessionId }, updateMask: { paths: ["user_id"] } }),
      "update_mask has user_id, expected state, metadata, metadata.<name> or stats",
    ],
    [
      () => client.updateSession({ session: { sessionId }, updateMask: { paths: ["state"] } }),
      "session.state is not set",
    ],
  ];
  for (const [call, detail] of cases) {
    const [code, message] = await refusal(call);
    assertEquals(code, Code.InvalidArgument, message);
    assert(message.includes(detail), message);
  }
  const [code] = await refusal(() => client.listSessions({ pageToken: "!" }));
  assertEquals(code, Code.InvalidArgument);
});

Deno.test("SessionService.UpdateSession changes what the mask names, or what is set", async () => {
  await using opened = open();
  const { client } = opened;
  const { session } = await client.createSession({ ...REQUEST, metadata: { a: "1", b: "2", c: "3" } });
  const { sessionId } = session!;
  const stats = { packetsSent: 2n ** 64n - 1n, retransmissions: 3n, currentRttMs: 42 };
  const all = { sessionId, state: SessionState.IDLE, metadata: { x: "y" }, stats };
  const masked = await client.updateSession({ session: all, updateMask: { paths: ["stats", "state"] } });
  assertEquals(masked.session?.state, SessionState.IDLE);
  assertEquals(masked.session?.stats?.packetsSent, 2n ** 64n - 1n);
  assertEquals({ ...masked.session?.metadata }, { a: "1", b: "2", c: "3" });
  const entries = await client.updateSession({
    session: { sessionId, metadata: { b: "two" } },
    updateMask: { paths: ["metadata.b", "metadata.c"] },
  });
  assertEquals({ ...entries.session?.metadata }, { a: "1", b: "two" });
  const whole = await client.updateSession({ session: { sessionId, metadata: { only: "this" } } });
  assertEquals({ ...whole.session?.metadata }, { only: "this" });
  assertEquals([whole.session?.state, whole.session?.stats?.currentRttMs], [SessionState.IDLE, 42]);
  const emptied = await client.updateSession({ session: { sessionId }, updateMask: { paths: ["metadata"] } });
  assertEquals({ ...emptied.session?.metadata }, {});
  const [code, message] = await refusal(() =>
    client.updateSession({ session: { sessionId, state: SessionState.CONNECTING } })
  );
  assertEquals([code, message.endsWith("idle is not followed by connecting")], [
    Code.FailedPrecondition,
    true,
  ]);
  const closed = await client.updateSession({ session: { sessionId, state: SessionState.CLOSED } });
  assertEquals(closed.session?.state, SessionState.CLOSED);
  assertEquals((await refusal(() => client.getSession({ sessionId })))[0], Code.NotFound);
});

Deno.test("a session's state has the contract's number, both ways, and no other is one", async () => {
  await using world = open();
  const { session } = await world.client.createSession({ userId: "ann" });
  const { sessionId } = session!;
  const walk: SessionState[] = [session!.state];
  await world.client.heartbeat({ sessionId });
  for (const state of [SessionState.IDLE, SessionState.ACTIVE, SessionState.DISCONNECTING]) {
    walk.push((await world.client.getSession({ sessionId })).session!.state);
    await world.client.updateSession({ session: { sessionId, state } });
    const { sessions } = await world.client.listSessions({ state });
    assertEquals(sessions.map((each) => [each.sessionId, each.state]), [[sessionId, state]]);
  }
  const { CONNECTING, ACTIVE, IDLE } = SessionState;
  assertEquals(walk, [CONNECTING, ACTIVE, IDLE, ACTIVE]);
  assertEquals([CONNECTING, ACTIVE, IDLE, SessionState.DISCONNECTING, SessionState.CLOSED], [1, 2, 3, 4, 5]);
  const [code] = await refusal(() => world.client.listSessions({ state: 6 as SessionState }));
  assertEquals(code, Code.InvalidArgument);
});

Deno.test("SessionService.ListSessions pages through everything once, and counts", async () => {
  await using opened = open();
  const { client, clock } = opened;
  const ids: string[] = [];
  for (let i = 0; i < 25; i++) {
    const timeoutSeconds = i === 24 ? 5 : 60;
    const { session } = await client.createSession({ ...REQUEST, userId: `u${i % 2}`, timeoutSeconds });
    ids.push(session!.sessionId);
  }
  const walk = async (request: { userId?: string; pageSize: number; state?: SessionState }) => {
    const found: string[] = [];
    for (let pageToken = "";;) {
      const page = await client.listSessions({ ...request, pageToken });
      found.push(...page.sessions.map(({ sessionId }) => sessionId));
      if (page.nextPageToken === "") return { found, total: page.totalSize };
      pageToken = page.nextPageToken;
    }
  };
  assertEquals(await walk({ pageSize: 7 }), { found: ids, total: 25n });
  assertEquals(await walk({ pageSize: 25 }), { found: ids, total: 25n });
  assertEquals(await walk({ userId: "u1", pageSize: 5 }), {
    found: ids.filter((_, i) => i % 2 === 1),
    total: 12n,
  });
  await client.heartbeat({ sessionId: ids[3]! });
  assertEquals(await walk({ state: SessionState.ACTIVE, pageSize: 5 }), { found: [ids[3]!], total: 1n });
  assertEquals((await client.listSessions({})).sessions.length, 25);
  assertEquals({ ...(await client.countSessions({})).byState }, { connecting: 24n, active: 1n });
  clock.advance(5_000);
  assertEquals((await client.countSessions({})).total, 24n);
  assertEquals((await client.listSessions({ pageSize: 1 })).totalSize, 24n);
  assertEquals((await client.revokeUserSessions({ userId: "u0", reason: "" })).revoked, 12n);
  assertEquals((await client.countSessions({})).total, 12n);
});

Deno.test("SessionService shows and changes only one's own sessions, unless one is an administrator", async () => {
  await using opened = open();
  const { client } = opened;
  const own = await client.createSession({ clientIp: "192.0.2.1" }, ANN);
  assertEquals(own.session?.userId, "ann");
  const other = await client.createSession({ ...REQUEST, userId: "bob" }, ADMIN);
  const { sessionId } = other.session!;
  const denied: [Code, string] = [Code.PermissionDenied, SESSION_ERRORS.denied.text];
  const gone: [Code, string] = [Code.NotFound, SESSION_ERRORS.notFound.text];
  assertEquals(await refusal(() => client.createSession({ userId: "bob" }, ANN)), denied);
  assertEquals(await refusal(() => client.getSession({ sessionId }, ANN)), gone);
  assertEquals(await refusal(() => client.heartbeat({ sessionId }, ANN)), gone);
  assertEquals(await refusal(() => client.updateSession({ session: { sessionId } }, ANN)), gone);
  assertEquals((await client.deleteSession({ sessionId }, ANN)).deleted, false);
  assertEquals(await refusal(() => client.listSessions({ userId: "bob" }, ANN)), denied);
  assertEquals(await refusal(() => client.revokeUserSessions({ userId: "bob" }, ANN)), denied);
  assertEquals(
    (await refusal(() => client.verifySession({ token: other.token }, ANN)))[0],
    Code.Unauthenticated,
  );
  const watch = client.watchSessions({ userId: "bob" }, ANN)[Symbol.asyncIterator]();
  assertEquals(await refusal(() => watch.next()), denied);
  assertEquals((await client.listSessions({}, ANN)).sessions.map(({ userId }) => userId), ["ann"]);
  assertEquals((await client.countSessions({}, ANN)).total, 1n);
  assertEquals((await client.countSessions({}, ADMIN)).total, 2n);
  assertEquals((await client.listSessions({}, ADMIN)).totalSize, 2n);
  assertEquals((await client.getSession({ sessionId }, BOB)).session?.userId, "bob");
  assertEquals((await client.heartbeat({ sessionId }, BOB)).remainingSeconds, 1_800);
  // Grants widen it, for reading or for both.
  const reader = as({ userId: "eve", grants: [{ service: "sessions", prefix: "bo", write: false }] });
  assertEquals((await client.getSession({ sessionId }, reader)).session?.userId, "bob");
  assertEquals((await client.listSessions({ userId: "bob" }, reader)).totalSize, 1n);
  assertEquals((await client.listSessions({}, reader)).totalSize, 0n);
  assertEquals((await client.deleteSession({ sessionId }, reader)).deleted, false);
  assertEquals(await refusal(() => client.listSessions({ userId: "ann" }, reader)), denied);
  const all = as({ userId: "eve", grants: [{ service: "*", prefix: "", write: true }] });
  assertEquals((await client.listSessions({}, all)).totalSize, 2n);
  assertEquals((await client.deleteSession({ sessionId }, all)).deleted, true);
  assertEquals((await client.revokeUserSessions({ userId: "ann" }, ANN)).revoked, 1n);
  const nobody = as({ kind: Principal_Kind.ANONYMOUS });
  assertEquals(await refusal(() => client.listSessions({}, nobody)), denied);
  assertEquals((await refusal(() => client.createSession({}, nobody)))[0], Code.InvalidArgument);
});

Deno.test("SessionService.WatchSessions tells from an offset on, of those one may see", async () => {
  await using opened = open({ eventsKept: 4 });
  const { client, service } = opened;
  const leaving = new AbortController();
  const { signal } = leaving;
  const anns = client.watchSessions({}, { ...ANN, signal })[Symbol.asyncIterator]();
  const everybodys = client.watchSessions({}, { signal })[Symbol.asyncIterator]();
  const first: WatchSessionsResponse = (await everybodys.next()).value;
  assertEquals([first.type, first.session], [SessionEventType.UNSPECIFIED, undefined]);
  await anns.next();
  const bob = await client.createSession({ ...REQUEST, userId: "bob" });
  const ann = await client.createSession(REQUEST);
  await client.deleteSession({ sessionId: ann.session!.sessionId, reason: "bye" });
  const take = async (stream: AsyncIterator<WatchSessionsResponse>, count: number) => {
    const events: [bigint, SessionEventType, string | undefined, string][] = [];
    for (let i = 0; i < count; i++) {
      const { offset, type, session, reason } = (await stream.next()).value;
      events.push([offset - first.offset, type, session?.sessionId, reason]);
    }
    return events;
  };
  const annsEvents: [bigint, SessionEventType, string, string][] = [
    [2n, SessionEventType.CREATED, ann.session!.sessionId, ""],
    [3n, SessionEventType.ENDED, ann.session!.sessionId, "bye"],
  ];
  assertEquals(await take(everybodys, 3), [
    [1n, SessionEventType.CREATED, bob.session!.sessionId, ""],
    ...annsEvents,
  ]);
  assertEquals(await take(anns, 2), annsEvents);
  const resumed = client.watchSessions({ startOffset: first.offset + 2n }, { signal })
    [Symbol.asyncIterator]();
  assertEquals((await resumed.next()).value.offset, first.offset + 1n);
  assertEquals(await take(resumed, 2), annsEvents);
  for (let i = 0; i < 5; i++) await client.createSession(REQUEST);
  const late = client.watchSessions({ startOffset: first.offset + 2n })[Symbol.asyncIterator]();
  assertEquals((await refusal(() => late.next()))[0], Code.OutOfRange);
  leaving.abort();
  while (service.figures().watchers > 0) await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("SessionService.WatchSessions ends when the service stops", async () => {
  await using opened = open();
  const stream = opened.client.watchSessions({})[Symbol.asyncIterator]();
  await stream.next();
  const next = stream.next();
  await opened.service.close();
  assertEquals(await refusal(() => next), [Code.Unavailable, SESSION_ERRORS.stopped.text]);
});

Deno.test("every outcome of the table has its code on the wire", () => {
  for (const kind of Object.keys(SESSION_ERRORS) as SessionErrorKind[]) {
    const error = toConnectError(new SessionError(kind, "why"));
    assertInstanceOf(error, ConnectError);
    assertEquals(error.rawMessage, `${SESSION_ERRORS[kind].text}: why`);
    assertEquals(Code[error.code]?.toLowerCase(), SESSION_ERRORS[kind].code.replaceAll("_", ""));
  }
  const other = new Error("other");
  assertEquals(toConnectError(other), other);
});
