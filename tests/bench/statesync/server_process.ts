/** The document worker alone in a process, so that its time is its own. */
import { statesyncConfigSchema } from "../../../services/statesync/config.ts";
import { bootWorker, freeUdpPort } from "../boot_worker.ts";
import { answerLines } from "../sockets/process.ts";

/** What the process is asked, once: to serve from a folder. The answer is the Quantum port. */
export interface ServeMessage {
  readonly directory: string;
  /** The Quantum secret in hexadecimal digits. */
  readonly secret: string;
}

await answerLines<ServeMessage>(async ({ directory, secret }) => {
  const port = freeUdpPort();
  const worker = new Worker(new URL("../../../services/statesync/worker.ts", import.meta.url), {
    type: "module",
  });
  await bootWorker(worker, {
    name: "statesync",
    config: statesyncConfigSchema.parse(undefined),
    directory,
    secret: Uint8Array.fromHex(secret),
    port,
  });
  return port;
});
