import { assertEquals } from "@std/assert";
import { mergeMetricPages } from "./metrics_page.ts";

Deno.test("mergeMetricPages() writes each family once and gives every sample its worker", () => {
  const a = [
    "# HELP rpc_seconds Time.",
    "# TYPE rpc_seconds histogram",
    'rpc_seconds_bucket{le="1"} 3',
    'rpc_seconds_bucket{le="+Inf"} 4',
    "rpc_seconds_sum 5.5",
    "rpc_seconds_count 4",
    "# HELP up Is up.",
    "# TYPE up gauge",
    "up 1",
    "",
  ].join("\n");
  const b = [
    "# HELP up Another text.",
    "# TYPE up gauge",
    "up{} 1 1700000000000",
    "# HELP rpc_seconds Time.",
    "# TYPE rpc_seconds histogram",
    "rpc_seconds_sum 1",
    "# a remark",
    "not a sample line",
    "plain_total 7",
  ].join("\n");
  assertEquals(
    mergeMetricPages([{ worker: "kv", text: a }, { worker: "gateway-2", text: b }]),
    [
      "# HELP rpc_seconds Time.",
      "# TYPE rpc_seconds histogram",
      'rpc_seconds_bucket{worker="kv",le="1"} 3',
      'rpc_seconds_bucket{worker="kv",le="+Inf"} 4',
      'rpc_seconds_sum{worker="kv"} 5.5',
      'rpc_seconds_count{worker="kv"} 4',
      'rpc_seconds_sum{worker="gateway-2"} 1',
      "# HELP up Is up.",
      "# TYPE up gauge",
      'up{worker="kv"} 1',
      'up{worker="gateway-2"} 1 1700000000000',
      'plain_total{worker="gateway-2"} 7',
      "",
    ].join("\n"),
  );
});

Deno.test("mergeMetricPages() keeps a label worker that is there, and is not taken in by values", () => {
  const text = [
    'x{worker="kv"} 1',
    'x{route="a",worker="kv"} 1',
    'x{route=",worker=",b="c"} 1',
    'x{route="\\",worker=\\"kv"} 1',
    'x{route="}{"} 1',
    'x{coworker="y"} 1',
  ].join("\n");
  assertEquals(mergeMetricPages([{ worker: "h", text }]).trimEnd().split("\n"), [
    'x{worker="kv"} 1',
    'x{route="a",worker="kv"} 1',
    'x{worker="h",route=",worker=",b="c"} 1',
    'x{worker="h",route="\\",worker=\\"kv"} 1',
    'x{worker="h",route="}{"} 1',
    'x{worker="h",coworker="y"} 1',
  ]);
});
