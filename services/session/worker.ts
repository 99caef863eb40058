/** The session worker: sessions, users and tokens, served to its peers. */
import { runWorker } from "../runtime/run_worker.ts";

runWorker({
  name: "session",
  start() {
    return Promise.resolve({ drain: () => Promise.resolve() });
  },
});
