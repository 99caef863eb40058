/** A worker that does on command what a worker should never do. The command is a message beside the host's own:
 *  `{type: "test", do: …}`, or the configuration of the worker's part where it must happen during the start. */
import { runWorker } from "../../runtime/run_worker.ts";

/** What the test asks for. */
export type Misdeed = "crash" | "stall" | "fail" | "sicken";

/** How long a stall lasts, in milliseconds: longer than the test's heartbeat timeout of 700, and short enough for the thread
 *  to end while the host waits for its ports. */
const STALL_MS = 740;

let fail: ((error: unknown) => never) | undefined;
let isSick = false;

globalThis.addEventListener("message", (event) => {
  const { data } = event as MessageEvent<{ type: string; do?: Misdeed }>;
  if (data.type !== "test") return;
  if (data.do === "crash") throw new Error("crashed on command");
  if (data.do === "fail") fail?.(new Error("failed on command"));
  if (data.do === "sicken") isSick = true;
  // The event loop does not turn meanwhile.
  const until = performance.now() + STALL_MS;
  while (data.do === "stall" && performance.now() < until);
});

runWorker({
  name: "test",
  start(context) {
    fail = context.fail;
    const { refuse } = context.config as { refuse?: string };
    if (refuse !== undefined) return Promise.reject(new Error(refuse));
    return Promise.resolve({
      addresses: { [context.name]: `test://${context.name}` },
      health: () => ({ ok: !isSick, detail: isSick ? "sick on command" : "" }),
      drain: () => Promise.resolve(),
    });
  },
});
