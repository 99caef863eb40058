import { assertEquals } from "@std/assert";
import { gatewayConfigSchema } from "../config.ts";
import { startTestGateway } from "../testing/harness.ts";
import { limitAddresses, rateLimitConfigSchema } from "./config.ts";
import type { LimitRedis } from "./shared_limits.ts";

const INTERVAL_MS = 123;

const limited = (burst: number, enabled = true) => ({
  rateLimit: {
    enabled,
    exemptLoopback: false,
    address: { rate: 1, burst },
    redis: { nodes: ["127.0.0.1:1"], syncIntervalMs: INTERVAL_MS },
  },
});

Deno.test("limits that were replaced while the gateway serves are shared as those before them", async () => {
  /** Capacity and what was taken, in tokens, of each bucket of an address that was told. */
  const told: [capacity: number, taken: number][] = [];
  let onTold = () => {};
  const limitRedis: LimitRedis = {
    run(_script, [key], [_gain, capacity, taken]) {
      if (key!.endsWith("address:127.0.0.1")) told.push([Number(capacity) / 1e9, Number(taken) / 1e9]);
      onTold();
      return Promise.resolve(String(0));
    },
    close: () => Promise.resolve(),
  };
  await using gateway = startTestGateway({ config: limited(20, false), limitRedis });
  const status = async () => {
    const response = await fetch(`${gateway.url}/api/v1/kv/absent`);
    await response.body?.cancel();
    return response.status;
  };
  const sync = async () => {
    const heard = new Promise<void>((resolve) => onTold = resolve);
    gateway.timer.fire(INTERVAL_MS);
    await heard;
    while (!gateway.timer.waiting.includes(INTERVAL_MS)) {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  };
  assertEquals(await status(), 404);
  for (const burst of [30, 40]) {
    gateway.module.reconfigure(gatewayConfigSchema.parse(limited(burst)));
    assertEquals([await status(), await status()], [404, 404]);
    await sync();
    // The others took all that there was.
    assertEquals(await status(), 429);
  }
  assertEquals(told, [[30, 2], [40, 2]]);
});

Deno.test("limitAddresses() names Redis of disabled limits too, which may be enabled later", () => {
  const config = rateLimitConfigSchema.parse(limited(1, false).rateLimit);
  assertEquals(limitAddresses(config), [{ hostname: "127.0.0.1", port: 1 }]);
});
