import { assertEquals } from "@std/assert";
import { systemClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { startLeaseTimer } from "./lease_timer.ts";
import { createKvModule } from "../mod.ts";
import { ManualStore, newDisk } from "../testing/manual_store.ts";

const encoder = new TextEncoder();

Deno.test("startLeaseTimer() ends leases in the order in which they run out, one granted later but shorter first", async () => {
  const config = kvConfigSchema.parse({});
  const log = { info: () => {}, error: (message: string) => Promise.reject(new Error(message)) };
  const { service, leases, close } = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(newDisk(), replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config,
    random: createSeededRandom(1),
    log,
    clock: systemClock,
    pause: () => Promise.resolve(),
  });
  const stop = startLeaseTimer(leases, { clock: systemClock, log, checkpointIntervalMs: 60_000 });
  let wake = () => {};
  const stream = service.watches.openStream(() => wake());
  stream.create({
    key: encoder.encode("\0"),
    range: { start: encoder.encode("\0"), end: undefined },
    startRevision: 0,
    watchId: 0n,
    prevKv: false,
    progressNotify: false,
    fragmentBytes: 0,
    noPut: true,
    noDelete: false,
  });
  const put = (key: string, ttlMs: number) =>
    service.put({
      kind: "put",
      key: encoder.encode(key),
      value: new Uint8Array(0),
      lease: 0n,
      prevKv: false,
      ignoreValue: false,
      ignoreLease: false,
      ttlMs,
    });
  await Promise.all([put("slow", 60), put("never", 3e9), put("fast", 20)]);
  const gone: string[] = [];
  while (gone.length < 2) {
    const answer = stream.take();
    if (answer === undefined) await new Promise<void>((resolve) => wake = resolve);
    else if (answer !== "again") {
      gone.push(...answer.events.map(({ kv }) => new TextDecoder().decode(kv.key)));
    }
  }
  assertEquals([gone, leases.lessor.size], [["fast", "slow"], 1]);
  stop();
  await close();
});
