/** One measurement of the store in a process of its own, so that its memory is its own: `fill DIR` writes 1,000,000 keys
 *  through the service and its log, `open DIR` opens that again. Prints one line of JSON. */
import { plainPut } from "../../../services/kv/txn.ts";
import { kvConfigSchema } from "../../../services/kv/config.ts";
import { createKvModule } from "../../../services/kv/mod.ts";
import { openLogStore } from "../../../services/kv/stores/log.ts";
import { keyOf, KEYS, VALUE } from "./keys.ts";

/** What `fill` and `open` report. */
export interface StoreReport {
  readonly seconds: number;
  readonly keys: number;
  /** Memory of the process above what it had before, in MB. */
  readonly residentMb: number;
  readonly countedMb: number;
  readonly snapshots: number;
}

const [task, directory] = Deno.args as [string, string];
const before = Deno.memoryUsage().rss;
const startMs = performance.now();
const { service, store, close } = await createKvModule({
  openStore: (replay) => openLogStore({ directory, durability: "none" }, replay),
  config: kvConfigSchema.parse(undefined),
  random: { fill: (target) => crypto.getRandomValues(target as Uint8Array<ArrayBuffer>) },
  log: { info: () => {}, error: (message, fields) => fail(`${message}: ${fields?.error}`) },
  clock: performance,
  pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
});
if (task === "fill") {
  const group: Promise<unknown>[] = [];
  for (let i = 0; i < KEYS; i++) {
    group.push(service.put(plainPut(keyOf(i), VALUE)));
    if (group.length === 1_000) await Promise.all(group.splice(0));
  }
  await Promise.all(group);
}
const seconds = (performance.now() - startMs) / 1_000;
const figures = service.figures();
const report: StoreReport = {
  seconds,
  keys: figures.keys,
  residentMb: (Deno.memoryUsage().rss - before) / 1e6,
  countedMb: figures.bytes / 1e6,
  snapshots: store.stats().snapshots,
};
// deno-lint-ignore no-console -- the process's one answer
console.log(JSON.stringify(report));
await close();

function fail(message: string): never {
  throw new Error(message);
}
