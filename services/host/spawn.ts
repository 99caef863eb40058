import type { HostMessage, WorkerMessage } from "../runtime/worker_context.ts";
import type { ServiceName, WorkerPlan } from "./plan.ts";
import type { WorkerEvents, WorkerHandle } from "./supervisor.ts";

/** Starts the thread of a planned worker with exactly the planned permissions. */
export function spawnWorker(plan: WorkerPlan, events: WorkerEvents): WorkerHandle {
  return superviseWorker(ENTRIES[plan.service](optionsOf(plan)), events);
}

/** Connects a thread to the supervisor. */
export function superviseWorker(worker: Worker, events: WorkerEvents): WorkerHandle {
  worker.onmessage = ({ data }: MessageEvent<WorkerMessage>) => events.onMessage(data);
  worker.onerror = (event) => {
    // Without this the error would end the whole process.
    event.preventDefault();
    const where = event.filename ? ` (${event.filename}:${event.lineno})` : "";
    events.onError(`${event.message || "uncaught error"}${where}`);
  };
  return {
    post: (message: HostMessage) => worker.postMessage(message),
    terminate: () => worker.terminate(),
  };
}

/** What a thread is started with. */
export function optionsOf(plan: Pick<WorkerPlan, "name" | "permissions">): WorkerOptions {
  return { type: "module", name: plan.name, deno: { permissions: { ...plan.permissions } } };
}

// Written out one by one: bundlers and `deno compile` find a worker by `new Worker(new URL("…", import.meta.url))`.
const ENTRIES: Readonly<Record<ServiceName, (options: WorkerOptions) => Worker>> = {
  kv: (options) => new Worker(new URL("../kv/worker.ts", import.meta.url), options),
  session: (options) => new Worker(new URL("../session/worker.ts", import.meta.url), options),
  password: (options) => new Worker(new URL("../password/worker.ts", import.meta.url), options),
  statesync: (options) => new Worker(new URL("../statesync/worker.ts", import.meta.url), options),
  gateway: (options) => new Worker(new URL("../gateway/worker.ts", import.meta.url), options),
};
