/** The real worker, with the permissions it has in the product, asked over Quantum. */
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { createClient } from "@connectrpc/connect";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createChannelTransport } from "../../transport/rpc/mod.ts";
import { startRedis } from "../../tests/support/server.ts";
import type { HostMessage, WorkerMessage } from "../runtime/worker_context.ts";
import { sessionConfigSchema } from "./config.ts";

interface Running extends AsyncDisposable {
  readonly sessions: ReturnType<typeof createClient<typeof SessionService>>;
  readonly worker: ReturnType<typeof createClient<typeof WorkerService>>;
}

/** Starts the worker on a folder; disposing drains it. */
async function start(
  directory: string,
  config: Record<string, unknown>,
  servers: string[],
): Promise<Running> {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const port = freePort();
  const node = openQuantumNode({ listen: { hostname: "127.0.0.1", port: 0 }, secret });
  const thread = new Worker(new URL("./worker.ts", import.meta.url), {
    type: "module",
    deno: {
      permissions: {
        env: false,
        ffi: false,
        import: false,
        net: [`127.0.0.1:${port}`, `127.0.0.1:${node.address.port}`, ...servers],
        read: [directory],
        run: false,
        sys: false,
        write: [directory],
      },
    },
  } as WorkerOptions);
  const message: HostMessage = {
    type: "boot",
    name: "session",
    instance: 1,
    secret,
    listen: { hostname: "127.0.0.1", port },
    peers: [],
    config: sessionConfigSchema.parse(config),
    dataDirectory: directory,
    log: { level: "error", format: "json" },
  };
  await new Promise<void>((resolve, reject) => {
    thread.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
      if (data.type === "ready") resolve();
      else if (data.type === "failed") reject(new Error(data.message));
    };
    thread.onerror = (event) => reject(new Error(event.message));
    thread.postMessage(message);
  });
  const channel = await node.connect({ hostname: "127.0.0.1", port });
  const transport = createChannelTransport({ channel: () => channel });
  const worker = createClient(WorkerService, transport);
  return {
    sessions: createClient(SessionService, transport),
    worker,
    async [Symbol.asyncDispose]() {
      await worker.drain({ deadlineMs: 1_000 });
      await node.close();
      thread.terminate();
    },
  };
}

/** A UDP port that was free a moment ago. */
function freePort(): number {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-session-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("the session worker keeps sessions over a restart, sweeps, and measures", () =>
  inDirectory(async (directory) => {
    const config = { sweepIntervalMs: 10 };
    let token: string;
    {
      await using first = await start(directory, config, []);
      const created = await first.sessions.createSession({ userId: "ann" });
      token = created.token;
      const watch = first.sessions.watchSessions({})[Symbol.asyncIterator]();
      await watch.next();
      await first.sessions.createSession({ userId: "bob", timeoutSeconds: 1 });
      assertEquals((await watch.next()).value.session?.userId, "bob");
      const expired = (await watch.next()).value;
      assertEquals([expired.session?.userId, expired.session?.state], ["bob", 1]);
      const { text } = await first.worker.stats({});
      assertMatch(text, /aetherflow_session_created_total\{[^}]*\} 2/);
      assertMatch(text, /aetherflow_session_expired_total\{[^}]*\} 1/);
      assertMatch(text, /aetherflow_session_sessions\{state="connecting",[^}]*\} 1/);
      assertMatch(text, /aetherflow_session_watchers\{[^}]*\} 1/);
      assertEquals((await first.worker.health({})).ok, true);
    }
    await using second = await start(directory, config, []);
    assertEquals((await second.sessions.verifySession({ token })).session?.userId, "ann");
    assertEquals((await second.sessions.countSessions({})).total, 1n);
  }));

Deno.test("the session worker in memory forgets", () =>
  inDirectory(async (directory) => {
    {
      await using first = await start(directory, { engine: "memory" }, []);
      await first.sessions.createSession({ userId: "ann" });
      assertEquals((await first.sessions.countSessions({})).total, 1n);
    }
    await using second = await start(directory, { engine: "memory" }, []);
    assertEquals((await second.sessions.countSessions({})).total, 0n);
  }));

Deno.test("the session worker in Redis needs no right but its server's address", async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  await inDirectory(async (directory) => {
    const config = { engine: "redis", redis: { nodes: [server.address] } };
    await using one = await start(directory, config, [server.address]);
    const { token, session } = await one.sessions.createSession({ userId: "ann" });
    {
      await using two = await start(`${directory}/two`, config, [server.address]);
      assertEquals((await two.sessions.verifySession({ token })).session?.userId, "ann");
      assertEquals((await two.sessions.deleteSession({ sessionId: session!.sessionId })).deleted, true);
    }
    assertEquals((await one.sessions.countSessions({})).total, 0n);
    await server.kill();
    while ((await one.worker.health({})).ok) await new Promise((resolve) => setTimeout(resolve, 5));
    const answer = await one.sessions.countSessions({}).catch((error) => String(error));
    assert(String(answer).includes("unavailable"), String(answer));
  });
});
