/** The real worker, with the permissions it has in the product, asked over Quantum. */
import { WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { SyncService } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { createClient } from "@connectrpc/connect";
import { assertEquals, assertMatch } from "@std/assert";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createChannelTransport } from "../../transport/rpc/mod.ts";
import { POSTGRES_LOGIN, startPostgres } from "../../tests/support/server.ts";
import type { HostMessage, WorkerMessage } from "../runtime/worker_context.ts";
import { statesyncConfigSchema } from "./config.ts";

interface Running extends AsyncDisposable {
  readonly documents: ReturnType<typeof createClient<typeof StateSyncService>>;
  readonly sync: ReturnType<typeof createClient<typeof SyncService>>;
  readonly worker: ReturnType<typeof createClient<typeof WorkerService>>;
}

/** Starts the worker on a folder; disposing drains it. */
async function start(
  directory: string,
  config: Record<string, unknown>,
  servers: readonly string[] = [],
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
    name: "statesync",
    instance: 1,
    secret,
    listen: { hostname: "127.0.0.1", port },
    peers: [],
    config: statesyncConfigSchema.parse(config),
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
    documents: createClient(StateSyncService, transport),
    sync: createClient(SyncService, transport),
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
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-statesync-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const insert = (docId: string, value: string) => ({
  operation: {
    docId,
    type: "text",
    payload: { case: "text" as const, value: { edits: [{ insert: value }] } },
  },
});

Deno.test("the document worker keeps documents and locks over a restart, sweeps, serves links, and measures", () =>
  inDirectory(async (directory) => {
    {
      await using first = await start(directory, {});
      await first.documents.createDocument({ docId: "d", type: "text" });
      await first.documents.applyOperation(insert("d", "hello"));
      const { lock } = await first.documents.acquireLock({ docId: "d", ttlMs: 1_000 });
      const events = first.documents.subscribeDocument({ docId: "d", startOffset: 3n })
        [Symbol.asyncIterator]();
      await events.next();
      assertEquals((await events.next()).value?.event?.lock?.id, lock!.id);
      assertEquals((await events.next()).value?.event?.data, { reason: "expired" });
      const links = first.sync.link((async function* () {})())[Symbol.asyncIterator]();
      assertEquals((await links.next()).done, false);
      await links.return?.();
      await events.return?.();
      await first.documents.acquireLock({ docId: "d", ttlMs: 60_000 });
      const { text } = await first.worker.stats({});
      assertMatch(text, /aetherflow_statesync_documents_created_total\{[^}]*\} 1/);
      assertMatch(text, /aetherflow_statesync_operations_total\{type="text",status="applied",[^}]*\} 1/);
      assertMatch(text, /aetherflow_statesync_documents\{state="active",[^}]*\} 1/);
      assertMatch(text, /aetherflow_statesync_active_locks\{[^}]*\} 1/);
      assertEquals((await first.worker.health({})).ok, true);
    }
    await using second = await start(directory, {});
    const { document } = await second.documents.getDocument({ docId: "d" });
    assertEquals(new TextDecoder().decode(document!.content), "hello");
    assertEquals((await second.documents.isLocked({ docId: "d" })).locked, true);
    assertMatch((await second.worker.stats({})).text, /aetherflow_statesync_active_locks\{[^}]*\} 1/);
  }));

Deno.test("the document worker in memory forgets", () =>
  inDirectory(async (directory) => {
    {
      await using first = await start(directory, { engine: "memory" });
      await first.documents.createDocument({ docId: "d", type: "text" });
    }
    await using second = await start(directory, { engine: "memory" });
    assertEquals((await second.documents.listDocuments({})).documents, []);
  }));

Deno.test("document workers in PostgreSQL share documents, and need no right but its server's address", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await inDirectory(async (directory) => {
    const config = { engine: "postgres", postgres: { port: server.port, ...POSTGRES_LOGIN } };
    await using one = await start(directory, config, [server.address]);
    await using two = await start(directory, config, [server.address]);
    await one.documents.createDocument({ docId: "d", type: "text" });
    const events = two.documents.subscribeDocument({ docId: "d" })[Symbol.asyncIterator]();
    await events.next();
    await Promise.all(
      [one, two, one, two].map(({ documents }) => documents.applyOperation(insert("d", "x"))),
    );
    for (let offset = 2n; offset <= 5n; offset++) assertEquals((await events.next()).value?.offset, offset);
    await events.return?.();
    const { document } = await one.documents.getDocument({ docId: "d" });
    assertEquals([new TextDecoder().decode(document!.content), document!.version], ["xxxx", 5n]);
  });
});
