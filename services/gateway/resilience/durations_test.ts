import { assertEquals } from "@std/assert";
import { Histogram, Registry } from "prom-client";
import { registerDurations } from "./durations.ts";

Deno.test("registerDurations() says what prom-client's own histogram would", async () => {
  const [ours, theirs] = [new Registry(), new Registry()];
  const labels = { service: "kv", method: 'a"b' };
  for (const registry of [ours, theirs]) registry.setDefaultLabels({ worker: "gateway" });
  const durations = registerDurations(ours, "d_seconds", "Help.")(labels);
  const histogram = new Histogram({
    name: "d_seconds",
    help: "Help.",
    labelNames: ["service", "method"],
    buckets: Array.from({ length: 17 }, (_, i) => 0.000125 * 2 ** i),
    registers: [theirs],
  }).labels(labels);
  for (const ms of [0, 0.125, 0.126, 1, 1.5, 4_096, 8_192, 8_193, 1e9]) {
    durations.observe(ms);
    histogram.observe(ms / 1000);
  }
  // In the order of their names: the order of labels means nothing.
  const lines = async (registry: Registry) =>
    (await registry.metrics()).split("\n").map((line) =>
      line.replace(/\{(.*)\}/, (_, all: string) => `{${all.split(",").toSorted().join(",")}}`)
    );
  assertEquals(await lines(ours), await lines(theirs));
});
