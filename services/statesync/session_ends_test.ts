import { create } from "@bufbuild/protobuf";
import {
  GetSessionResponseSchema,
  SessionEventType,
  SessionService,
  WatchSessionsResponseSchema,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import { followSessionEnds } from "./session_ends.ts";

type Step = { readonly offset: number; readonly ended?: string } | "lost" | "gone" | "hold";

/** Follows a scripted session worker until it holds. */
async function follow(scripts: Step[][], withLocks: string[], missing: string[]) {
  const told: string[] = [];
  const held = Promise.withResolvers<void>();
  const stopping = new AbortController();
  const transport = createRouterTransport(({ service }) => {
    service(SessionService, {
      getSession: ({ sessionId }) => {
        told.push(`get ${sessionId}`);
        if (missing.includes(sessionId)) throw new ConnectError("none", Code.NotFound);
        if (sessionId === "odd") throw new ConnectError("no GUUID", Code.InvalidArgument);
        return create(GetSessionResponseSchema);
      },
      async *watchSessions({ startOffset }, { signal }) {
        told.push(`watch ${startOffset}`);
        for (const step of scripts.shift() ?? []) {
          if (step === "lost") throw new ConnectError("lost", Code.Unavailable);
          if (step === "gone") throw new ConnectError("gone", Code.OutOfRange);
          if (step === "hold") {
            held.resolve();
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
            return;
          }
          yield create(WatchSessionsResponseSchema, {
            offset: BigInt(step.offset),
            ...(step.ended === undefined
              ? {}
              : { type: SessionEventType.ENDED, session: { sessionId: step.ended } }),
          });
        }
      },
    });
  });
  const following = followSessionEnds({
    sessions: createClient(SessionService, transport),
    service: {
      sessionsWithLocks: () => withLocks,
      endSession: (sessionId) => {
        told.push(`end ${sessionId}`);
        return Promise.resolve();
      },
    },
    pause: () => {
      told.push("pause");
      return Promise.resolve();
    },
    log: { debug: () => {} },
  }, stopping.signal);
  await held.promise;
  stopping.abort();
  await following;
  return told;
}

Deno.test("locks end with their sessions, and a lost watch goes on where it was", async () => {
  const told = await follow(
    [[{ offset: 10 }, { offset: 11, ended: "a" }, "lost"], [
      { offset: 11 },
      { offset: 12, ended: "b" },
      "hold",
    ]],
    [],
    [],
  );
  assertEquals(told, ["watch 0", "end a", "pause", "watch 12", "end b"]);
});

Deno.test("where events are not kept any more, each session that holds locks is asked for", async () => {
  const told = await follow(
    [[{ offset: 10 }, "lost"], ["gone"], [{ offset: 90 }, "hold"]],
    ["x", "odd", "y"],
    ["y"],
  );
  assertEquals(told, [
    "watch 0",
    "get x",
    "get odd",
    "get y",
    "end y",
    "pause",
    "watch 11",
    "watch 0",
    "get x",
    "get odd",
    "get y",
    "end y",
  ]);
});
