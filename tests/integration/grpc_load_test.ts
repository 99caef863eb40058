/** The gRPC port under a load generator that nobody here wrote. */
import { create, toBinary } from "@bufbuild/protobuf";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { RangeRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { startProduct } from "../support/product.ts";
import { requireBinary } from "../support/server.ts";

const CALLS = 100_000;

Deno.test("100,000 calls of h2load, 10 connections of 32 streams, end well", async (t) => {
  if (!await requireBinary(t, "h2load", "nghttp2-client")) return;
  await using product = await startProduct();
  const message = toBinary(
    RangeRequestSchema,
    create(RangeRequestSchema, { key: new TextEncoder().encode("a") }),
  );
  const body = `${product.data}.body`;
  await Deno.writeFile(body, Uint8Array.of(0, 0, 0, 0, message.length, ...message));
  try {
    const { stdout } = await new Deno.Command("h2load", {
      args: ["-n", `${CALLS}`, "-c", "10", "-m", "32", "-d", body].concat(
        ["-H", "content-type: application/grpc", "-H", "te: trailers"],
        [`http://${product.grpc}/etcdserverpb.KV/Range`],
      ),
    }).output();
    assertStringIncludes(
      new TextDecoder().decode(stdout),
      `requests: ${CALLS} total, ${CALLS} started, ${CALLS} done, ${CALLS} succeeded, 0 failed, 0 errored, 0 timeout`,
    );
    const metrics = await (await fetch(`${product.url}/metrics`)).text();
    const counted = /grpc_calls_total\{[^}]*\/Range"[^}]*code="OK"[^}]*\} (\d+)/.exec(metrics)?.[1];
    assertEquals(counted, String(CALLS));
  } finally {
    await Deno.remove(body);
  }
  assertEquals(await product.stop(), 0);
});
