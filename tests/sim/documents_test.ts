/** Documents when everything breaks: nobody's acknowledged edit is lost, all come to the same content, operations are done once,
 *  and subscribers miss nothing unless they are told so. */
import { assert, assertEquals } from "@std/assert";
import { newDocumentsTally, runDocumentsWorld } from "./documents_world.ts";
import { simTest } from "./seeds.ts";

simTest("documents converge, keep what was acknowledged and tell every event, whatever dies or breaks", {
  seeds: 600,
  soakSeeds: 60_000,
}, async (seed) => {
  await runDocumentsWorld(seed);
});

Deno.test("documents' simulated worlds come to everything that they are about", async () => {
  const tally = newDocumentsTally();
  for (let seed = 1; seed <= 100; seed++) await runDocumentsWorld(seed, tally);
  for (const [what, count] of Object.entries(tally)) assert(count > 0, `no ${what} in 100 worlds`);
});

Deno.test("documents' simulated worlds are the same for the same seed", async () => {
  const [first, again] = [newDocumentsTally(), newDocumentsTally()];
  for (const tally of [first, again]) {
    for (let seed = 1; seed <= 5; seed++) await runDocumentsWorld(seed, tally);
  }
  assertEquals(first, again);
});
