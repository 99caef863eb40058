/** What a lease costs the lessor alone, among a million others. The baseline is the least that a table of objects costs:
 *  finding one and setting a field, without keeping any order. */
import { createSeededRandom } from "../../runtime/random.ts";
import { Lessor } from "./lease.ts";
import { encodeLeaseEntry, leaseEntryName } from "./lease_entry.ts";

const LEASES = 1_000_000;
const TTL_MS = 60_000;

const entry = encodeLeaseEntry({ ttlMs: TTL_MS, remainingMs: undefined, isOwn: false });
let now = 0;

function filled(): { readonly lessor: Lessor; readonly ids: bigint[] } {
  const lessor = new Lessor({
    clock: { now: () => now },
    random: createSeededRandom(1),
    minTtlSeconds: 2,
    leasesMax: 2 * LEASES,
  });
  const ids: bigint[] = [];
  for (let i = 0; i < LEASES; i++) {
    const { id } = lessor.plan(0n, 60n);
    lessor.load(leaseEntryName(id), entry);
    ids.push(id);
    now += 0.01;
  }
  return { lessor, ids };
}

const heapBefore = Deno.memoryUsage();
const { lessor, ids } = filled();
const heapAfter = Deno.memoryUsage();
const bytesEach = (key: "heapUsed" | "external") => Math.round((heapAfter[key] - heapBefore[key]) / LEASES);
const objects = new Map(ids.map((id) => [id, { expiryMs: 0 }]));

let at = 0;
const next = () => ids[at = (at + 7_919) % LEASES]!;

Deno.bench(
  `renew one of 1,000,000 (${bytesEach("heapUsed")} + ${
    bytesEach("external")
  } bytes each, ids list included)`,
  { group: "renew" },
  () => {
    now += 0.01;
    lessor.renew(next(), now);
  },
);

Deno.bench(
  "set a field of one of 1,000,000 objects in a Map, unordered",
  { group: "renew", baseline: true },
  () => {
    now += 0.01;
    objects.get(next())!.expiryMs = now;
  },
);

Deno.bench("grant and end one among 1,000,000", { group: "grant" }, () => {
  now += 0.01;
  const { id } = lessor.plan(0n, 30n);
  const name = leaseEntryName(id);
  lessor.load(name, entry);
  lessor.load(name, undefined);
});

Deno.bench("find and end the first of 1,000,000, grant another", { group: "expire" }, () => {
  const first = lessor.firstExpired(Infinity)!;
  lessor.load(leaseEntryName(first), undefined);
  lessor.load(leaseEntryName(first), entry);
});
