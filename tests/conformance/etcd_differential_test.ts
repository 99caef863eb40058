/** The same operations to a real etcd and to AetherFlow, answers compared field by field. */
import { startProduct } from "../support/product.ts";
import { startEtcd } from "../support/server.ts";
import { compareServers } from "./differential.ts";

/** bcrypt at its cheapest: how passwords are hashed is not what is compared. */
const ETCD = { unsafeNoFsync: true, args: ["--bcrypt-cost=4"] };
const isSoak = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** Operations in all, in runs on fresh servers: every second run has leases whose ids the servers choose. */
const OPERATIONS = isSoak ? 1_000_000 : 20_000;
const RUN_OPERATIONS = 5_000;

/** History goes on command only, as etcd's does. What is compared is what is said, so the log need not be on disk. */
const SETTINGS = ["kv.durability=none", "kv.retainRevisions=100000000", "log.level=error"];

const replay = Deno.env.get("AETHERFLOW_SIM_SEED");
/** The same runs every time, so that a change is what makes them fail; others in a soak. */
const firstSeed = Number(replay ?? (isSoak ? crypto.getRandomValues(new Uint32Array(1))[0] : 1));
const runs = replay === undefined ? OPERATIONS / RUN_OPERATIONS : 1;

Deno.test(`AetherFlow answers ${OPERATIONS} random operations as etcd does`, async (t) => {
  for (let run = 0; run < runs; run++) {
    await using reference = await startEtcd(t, ETCD);
    if (reference === undefined) return;
    await using subject = await startProduct({ args: SETTINGS.flatMap((setting) => ["--set", setting]) });
    await compareServers({
      reference: reference.address,
      subject: subject.addresses.grpc ?? "",
      seed: firstSeed + run,
      operations: RUN_OPERATIONS,
    });
  }
});
