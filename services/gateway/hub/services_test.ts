import { assertEquals, assertRejects } from "@std/assert";
import { Code, ConnectError, createRouterTransport, type Transport } from "@connectrpc/connect";
import { Change_Kind, KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { SessionEventType, SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { Maintenance } from "$proto/etcdserverpb/rpc_pb.ts";
import { encodePrincipal, principalOf, SYSTEM_KEYS } from "../../runtime/principal.ts";
import type { Caller } from "../stages.ts";
import { principal } from "../testing/fake_credentials.ts";
import { createManualTimer } from "../testing/harness.ts";
import { parseChannelName } from "./channel_name.ts";
import type { SourceEvent, SourceStream } from "./followed_channel.ts";
import { createHubServices } from "./services.ts";

function callerOf(init: Parameters<typeof principal>[0]): Caller {
  const found = principal(init);
  return { principal: found, encoded: encodePrincipal(found), credential: "session_token" };
}

const timer = createManualTimer();
const bytes = (text: string) => new TextEncoder().encode(text);

function services(transport: Transport) {
  return createHubServices({ transport: () => transport, timer });
}

async function all(stream: SourceStream): Promise<SourceEvent[]> {
  const found: SourceEvent[] = [];
  for await (const event of stream.events) found.push(event);
  return found;
}

const NEVER = new AbortController().signal;

/** A store whose watch says the given. */
function store(answers: { revision: bigint; keys: [key: string, modRevision: bigint][] }[]) {
  const asked: unknown[] = [];
  const transport = createRouterTransport((router) => {
    router.service(Maintenance, { status: () => ({ header: { clusterId: 255n, revision: 50n } }) });
    router.service(KeyValueService, {
      async *watch({ key, prefix, startRevision }) {
        asked.push([new TextDecoder().decode(key), new TextDecoder().decode(prefix), startRevision]);
        yield { revision: startRevision > 0n ? startRevision - 1n : 50n };
        for (const { revision, keys } of answers) {
          yield {
            revision,
            changes: keys.map(([name, modRevision]) => ({
              kind: Change_Kind.PUT,
              entry: { key: bytes(name), modRevision },
            })),
          };
        }
      },
    });
  });
  return { asked, source: (name: string) => services(transport).source(parseChannelName(name), name) };
}

const keysOf = ({ data }: SourceEvent) =>
  (JSON.parse(data).changes as { entry: { key: string } }[]).map(({ entry }) => atob(entry.key));

Deno.test("a store channel is one key, or with a slash all under it; a revision in pieces is one event", async () => {
  const { asked, source } = store([
    { revision: 60n, keys: [["a/1", 61n]] },
    { revision: 60n, keys: [["a/2", 61n]] },
    { revision: 61n, keys: [["a/3", 61n]] },
    { revision: 62n, keys: [["a/4", 62n]] },
  ]);
  const stream = await source("kv:a/").open(undefined, NEVER);
  assertEquals(stream.position, { epoch: "ff", offset: 50 });
  const events = await all(stream);
  assertEquals(events.map(({ epoch, offset, event }) => [epoch, offset, event]), [
    ["ff", 61, "changed"],
    ["ff", 62, "changed"],
  ]);
  assertEquals(events.map(keysOf), [["a/1", "a/2", "a/3"], ["a/4"]]);
  assertEquals((await source("kv:a").open({ epoch: "ff", offset: 7 }, NEVER)).position.offset, 7);
  await source("kv:").open(undefined, NEVER);
  assertEquals(asked, [["", "a/", 0n], ["a", "", 8n], ["", "", 0n]]);
});

Deno.test("keys that workers keep for themselves are in no channel", async () => {
  const { source } = store([
    { revision: 60n, keys: [[`${SYSTEM_KEYS}secret`, 60n]] },
    { revision: 61n, keys: [["a", 61n], [`${SYSTEM_KEYS}secret`, 61n]] },
  ]);
  const events = await all(await source("kv:").open(undefined, NEVER));
  assertEquals(events.map(keysOf), [["a"]]);
});

Deno.test("a position of another store, or one that the store has not come to, is none", async () => {
  const { source } = store([]);
  assertEquals((await source("kv:a").open({ epoch: "fe", offset: 7 }, NEVER)).position, {
    epoch: "ff",
    offset: 50,
  });
  await assertRejects(
    () => source("kv:a").open({ epoch: "ff", offset: 51 }, NEVER),
    Error,
    "not come that far",
  );
});

Deno.test("a session channel has its own events, or with * those of its caller", async () => {
  const asked: string[] = [];
  const transport = createRouterTransport((router) => {
    router.service(SessionService, {
      async *watchSessions({ userId }) {
        asked.push(userId);
        yield { offset: 9n };
        for (const [offset, sessionId] of [[10n, "s1"], [11n, "s2"], [12n, "s1"]] as const) {
          yield { offset, type: SessionEventType.ENDED, session: { sessionId } };
        }
      },
      getSession({ sessionId }, { requestHeader }) {
        if (sessionId !== `session-of-${principalOf(requestHeader)?.username}`) {
          throw new ConnectError("no such session", Code.NotFound);
        }
        return { session: { sessionId } };
      },
    });
  });
  const found = services(transport);
  const offsets = async (name: string, key: string) => {
    const events = await all(await found.source(parseChannelName(name), key).open(undefined, NEVER));
    return events.map(({ offset, event }) => `${offset} ${event}`);
  };
  const [ada, root] = [callerOf({ username: "ada" }), callerOf({ username: "root", roles: ["admin"] })];
  const everything = parseChannelName("session:*");
  const own = await found.authorize(everything, ada, false);
  assertEquals(await offsets("session:*", own), ["10 ended", "11 ended", "12 ended"]);
  await offsets("session:*", await found.authorize(everything, root, false));
  assertEquals(await offsets("session:s1", "session:s1"), ["10 ended", "12 ended"]);
  assertEquals(asked, ["id-of-ada", "", ""]);
  await found.authorize(parseChannelName("session:session-of-ada"), ada, false);
  await assertRejects(
    () => Promise.resolve(found.authorize(parseChannelName("session:session-of-bob"), ada, false)),
    ConnectError,
    "no such session",
  );
});

Deno.test("grants decide about keys, and about everything for a scoped key", async () => {
  const found = services(createRouterTransport(() => {}));
  const grants = (service: string, prefix: string, write = false) => [
    { $typeName: "aetherflow.auth.v1.Grant" as const, service, prefix, write },
  ];
  const member = callerOf({ username: "ada", grants: grants("kv", "a/") });
  const scoped = callerOf({ username: "key", isScoped: true, grants: grants("channels", "news.") });
  const writes = callerOf({ username: "key", isScoped: true, grants: grants("channels", "news.", true) });
  const cases: [caller: Caller, name: string, isWrite: boolean, may: boolean][] = [
    [member, "kv:a/", false, true],
    [member, "kv:a/b", false, true],
    [member, "kv:a", false, false],
    [member, "kv:", false, false],
    [member, "kv:b", false, false],
    [member, "anything", true, true],
    [scoped, "news.today", false, true],
    [scoped, "news.today", true, false],
    [scoped, "other", false, false],
    [scoped, "session:*", false, false],
    [scoped, "kv:a/", false, false],
    [writes, "news.today", true, true],
  ];
  for (const [caller, name, isWrite, may] of cases) {
    const outcome = await Promise.resolve(found.authorize(parseChannelName(name), caller, isWrite)).then(
      () => true,
      (error) => error.code === "permission_denied" ? false : String(error),
    );
    assertEquals(outcome, may, `${caller.principal.username} ${name} ${isWrite}`);
  }
});

Deno.test("a document channel follows its events in the gateway's name, and marks what may change who reads it", async () => {
  const asked: unknown[] = [];
  const transport = createRouterTransport((router) => {
    router.service(StateSyncService, {
      getAccess({ docId }, { requestHeader }) {
        asked.push([docId, principalOf(requestHeader)?.username]);
        return {};
      },
      async *subscribeDocument({ docId, startOffset, epoch }, { requestHeader }) {
        asked.push([docId, startOffset, epoch, principalOf(requestHeader)]);
        yield { offset: 4n, epoch: "e", subscriberId: "s" };
        const row = (offset: bigint, type: string, change?: string) => ({
          offset,
          epoch: "e",
          event: { type, offset, data: change === undefined ? {} : { change } },
        });
        yield row(5n, "operation_applied");
        for (
          const [i, change] of ["content", "named", "permissions", "state", "metadata", "deleted"].entries()
        ) {
          yield row(BigInt(6 + i), "document_updated", change);
        }
      },
    });
  });
  const found = services(transport);
  const name = parseChannelName("doc:a:b/*");
  assertEquals(await found.authorize(name, callerOf({ username: "ada" }), false), "doc:a:b/*");
  const stream = await found.source(name, name.text).open({ epoch: "e", offset: 4 }, NEVER);
  assertEquals(stream.position, { epoch: "e", offset: 4 });
  const events = await all(stream);
  assertEquals(events.map(({ offset, changesAccess }) => [offset, changesAccess]), [
    [5, false],
    [6, false],
    [7, false],
    [8, true],
    [9, true],
    [10, true],
    [11, true],
  ]);
  assertEquals(JSON.parse(events[0]!.data).type, "operation_applied");
  assertEquals(asked, [["a:b/*", "ada"], ["a:b/*", 5n, "e", undefined]]);
});

Deno.test("an operation is read as the REST API reads it, and refused where that would", async () => {
  const transport = createRouterTransport((router) => {
    router.service(StateSyncService, {
      applyOperation: ({ operation }, { requestHeader }) => ({
        operation: {
          docId: operation!.docId,
          userId: principalOf(requestHeader)!.username,
          status: "applied",
        },
        version: 7n,
      }),
    });
  });
  const found = services(transport);
  const ada = callerOf({ username: "ada" });
  const answer = JSON.parse(await found.operate({ doc_id: "d", type: "text" }, ada, "r\n1"));
  const { docId, userId, status } = answer.operation;
  assertEquals([answer.success, answer.version, docId, userId, status], [true, "7", "d", "ada", "applied"]);
  await assertRejects(() => found.operate({ type: "text" }, ada, ""), Error, "doc_id is required");
  await assertRejects(() => found.operate({ docId: "d", nonsense: 1 }, ada, ""), Error, "nonsense");
});

Deno.test("a service that does not begin a stream in time is unavailable", async () => {
  const transport = createRouterTransport((router) => {
    router.service(StateSyncService, {
      async *subscribeDocument(_, { signal }) {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        yield {};
      },
    });
  });
  const name = parseChannelName("doc:d");
  const opening = services(transport).source(name, name.text).open(undefined, NEVER);
  await Promise.resolve();
  timer.fire(5_000);
  await assertRejects(() => opening, Error, "did not begin the stream in time");
});
