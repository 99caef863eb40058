/** The password worker: hashes, which take a core for a while, away from everything that must answer at once. */
import { runWorker } from "../runtime/run_worker.ts";

runWorker({
  name: "password",
  start() {
    return Promise.resolve({ drain: () => Promise.resolve() });
  },
});
