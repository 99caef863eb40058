import { assertEquals } from "@std/assert";
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { balancing, upstreamsConfigSchema } from "./config.ts";
import { hashField } from "./hash_key.ts";

Deno.test("balancing() sends calls about one document to one instance, unless the configuration says otherwise", () => {
  const config = upstreamsConfigSchema.parse({
    services: { kv: { hashBy: ["key"] }, statesync: { bulkhead: { maxConcurrent: 7 } } },
  });
  assertEquals(balancing(config, "session"), { balancer: "leastOutstanding", hashBy: [] });
  assertEquals(balancing(config, "kv"), { balancer: "leastOutstanding", hashBy: ["key"] });
  assertEquals(balancing(config, "statesync").balancer, "ringHash");
  const changed = upstreamsConfigSchema.parse({ services: { statesync: { balancer: "roundRobin" } } });
  assertEquals(balancing(changed, "statesync").balancer, "roundRobin");
});

Deno.test("every RPC about one document is told apart by its id", () => {
  const { hashBy } = balancing(upstreamsConfigSchema.parse({}), "statesync");
  const unhashed = StateSyncService.methods.filter((rpc) => hashField(rpc, hashBy) === undefined);
  assertEquals(unhashed.map(({ name }) => name), ["ListDocuments", "SubscribeEvents", "GetStats"]);
});
