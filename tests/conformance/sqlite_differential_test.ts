/** The same operations to a real etcd and to AetherFlow on SQLite: the engine is not to be seen from outside. */
import { startProduct } from "../support/product.ts";
import { startEtcd } from "../support/server.ts";
import { compareServers } from "./differential.ts";

const ETCD = { unsafeNoFsync: true, args: ["--bcrypt-cost=4"] };
const OPERATIONS = 1_500;
/** As for the engine in memory: history goes on command only. */
const SETTINGS = [
  "kv.engine=sqlite",
  "kv.durability=none",
  "kv.retainRevisions=100000000",
  "log.level=error",
];

const replay = Deno.env.get("AETHERFLOW_SIM_SEED");
const isSoak = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** The same run every time, so that a change is what makes it fail; another in a soak. */
const seed = Number(replay ?? (isSoak ? crypto.getRandomValues(new Uint32Array(1))[0] : 1));

for (const index of ["memory", "disk"]) {
  Deno.test(`AetherFlow on SQLite, index ${index}, answers ${OPERATIONS} random operations as etcd does`, async (t) => {
    await using reference = await startEtcd(t, ETCD);
    if (reference === undefined) return;
    const settings = [...SETTINGS, `kv.sqlite.index=${index}`];
    await using subject = await startProduct({ args: settings.flatMap((setting) => ["--set", setting]) });
    await compareServers({
      reference: reference.address,
      subject: subject.addresses.grpc ?? "",
      seed,
      operations: OPERATIONS,
    });
  });
}
