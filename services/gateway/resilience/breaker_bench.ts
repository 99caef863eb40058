/** What a call costs for being counted, chosen a target for and let through, beside cockatiel's own policy object. */
import { circuitBreaker, ConsecutiveBreaker, handleAll } from "cockatiel";
import type { Transport } from "@connectrpc/connect";
import { createTestUpstreams } from "../testing/upstreams.ts";
import { Breaker, BREAKER_PRESETS } from "./breaker.ts";

const breaker = new Breaker(BREAKER_PRESETS.default);
const { upstream } = createTestUpstreams({} as Transport, { clock: { now: () => 1 } }).caller("kv");
const policy = circuitBreaker(handleAll, { breaker: new ConsecutiveBreaker(5), halfOpenAfter: 60_000 });
const answer = () => Promise.resolve(1);

Deno.bench("Breaker: enter, leave", { group: "breaker" }, () => {
  breaker.leave(breaker.enter(1), "success", 1);
});
Deno.bench("Upstream: begin, end (one instance)", { group: "breaker" }, () => {
  upstream.end(upstream.begin(1), "success", 1);
});
Deno.bench("a promise alone", { group: "breaker", baseline: true }, async () => {
  await answer();
});
Deno.bench("cockatiel: policy.execute", { group: "breaker" }, async () => {
  await policy.execute(answer);
});
