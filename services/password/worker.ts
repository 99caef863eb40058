/** The password worker: hashes, which take a core for a while, away from everything that must answer at once. */
import { PasswordService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { registerFigures } from "../runtime/metrics.ts";
import { runWorker } from "../runtime/run_worker.ts";
import type { PasswordConfig } from "./config.ts";
import { createPasswordModule } from "./mod.ts";

runWorker({
  name: "password",
  start({ config, random, clock, metrics, rpc }) {
    const { hasher, handlers } = createPasswordModule({
      config: config as PasswordConfig,
      random,
      clock,
      pause: () => new Promise((resolve) => setImmediate(resolve)),
    });
    registerFigures(metrics, {
      gauges: {
        waiting: ["aetherflow_auth_password_waiting", "Passwords that wait to be hashed."],
      },
      counters: {
        hashes: ["aetherflow_auth_password_hashes_total", "Passwords hashed, to store or to compare."],
        refused: ["aetherflow_auth_password_refused_total", "Passwords refused since too many waited."],
        busySeconds: ["aetherflow_auth_password_busy_seconds_total", "Time spent on hashing."],
      },
    }, () => hasher.figures());
    rpc.service(PasswordService, handlers);
    return Promise.resolve({ drain: () => Promise.resolve() });
  },
});
