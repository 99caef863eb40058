/** Asks a document worker over Quantum, as a gateway does, and measures how long it takes. */
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { Transport } from "@connectrpc/connect";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import { answer, quantile } from "../transport/ask.ts";

/** What the worker is asked. */
export type StateSyncClientMessage =
  | { readonly do: "connect"; readonly port: number; readonly secret: Uint8Array }
  /** Makes text documents for so long; those of the last time are the ones that are edited. */
  | { readonly do: "create"; readonly inFlight: number; readonly seconds: number }
  /** Edits the first documents in turn, for so long. */
  | { readonly do: "apply"; readonly inFlight: number; readonly seconds: number; readonly documents: number };

/** What was measured. */
export interface CallTimes {
  readonly calls: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Calls whose times are kept: more than are made in the longest run. */
const CALLS_MAX = 2_000_000;
const OPTIONS = { timeoutMs: 10_000 };
const { applyOperation, createDocument } = StateSyncService.method;

let transport: Transport | undefined;
const documents: { readonly id: string; length: number }[] = [];
const clientId = crypto.randomUUID();

answer<StateSyncClientMessage>(async (message) => {
  switch (message.do) {
    case "connect": {
      const node = openQuantumNode({ listen: { hostname: "127.0.0.1", port: 0 }, secret: message.secret });
      const channel = await node.connect({ hostname: "127.0.0.1", port: message.port });
      transport = createChannelTransport({ channel: () => channel });
      return true;
    }
    case "create":
      return await measure(message.inFlight, message.seconds, create);
    case "apply":
      return await measure(
        message.inFlight,
        message.seconds,
        (i) => apply(documents[i % Math.min(message.documents, documents.length)]!),
      );
  }
});

async function create(i: number): Promise<void> {
  const { document } = await callUnary(transport!, createDocument, {
    name: `document ${i}`,
    type: "text",
    createdBy: "bench",
  }, OPTIONS);
  documents.push({ id: document!.id, length: 0 });
}

/** Types a few characters at the end of what this client has typed. */
async function apply(document: { readonly id: string; length: number }): Promise<void> {
  const insert = "lorem ipsum";
  const index = document.length;
  document.length += insert.length;
  const answer = await callUnary(transport!, applyOperation, {
    operation: {
      docId: document.id,
      type: "text",
      clientId,
      payload: { case: "text", value: { edits: [{ index, insert }] } },
    },
  }, OPTIONS);
  if (answer.operation?.status !== "applied") throw new Error(`an operation was ${answer.operation?.status}`);
}

async function measure(
  inFlight: number,
  seconds: number,
  call: (i: number) => Promise<void>,
): Promise<CallTimes> {
  const times = new Float64Array(CALLS_MAX);
  let calls = 0, begun = 0;
  const startMs = performance.now();
  const endMs = startMs + seconds * 1_000;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (performance.now() < endMs) {
      const beganMs = performance.now();
      await call(begun++);
      times[calls++ % CALLS_MAX] = performance.now() - beganMs;
    }
  }));
  const elapsedMs = performance.now() - startMs;
  const sorted = times.subarray(0, Math.min(calls, CALLS_MAX)).sort();
  return {
    calls,
    perSecond: calls * 1_000 / elapsedMs,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
  };
}
