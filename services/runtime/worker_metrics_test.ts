import { assertEquals, assertStringIncludes } from "@std/assert";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createMetrics } from "./metrics.ts";
import { registerPeerMetrics, registerQuantumMetrics } from "./quantum_metrics.ts";
import { LOOP_PROBE_MS, registerWorkerMetrics } from "./worker_metrics.ts";

Deno.test("registerWorkerMetrics() tells how late the event loop is, and what is served", async () => {
  const metrics = createMetrics("w");
  let now = 0;
  let tick = () => {};
  registerWorkerMetrics(metrics, {
    rpc: () => ({ running: 2, accepted: 10, refused: 1, failed: 3, channels: 1 }),
    faults: () => 1,
    heapBytes: () => 4_096,
    now: () => now,
    every(ms, fn) {
      assertEquals(ms, LOOP_PROBE_MS);
      tick = fn;
    },
  });
  now += LOOP_PROBE_MS;
  tick(); // on time
  now += LOOP_PROBE_MS + 500;
  tick(); // half a second late
  const page = await metrics.metrics();
  for (
    const line of [
      'aetherflow_worker_event_loop_delay_seconds_bucket{le="0.001",worker="w"} 1',
      'aetherflow_worker_event_loop_delay_seconds_sum{worker="w"} 0.5',
      'aetherflow_worker_event_loop_delay_seconds_count{worker="w"} 2',
      'aetherflow_rpc_calls_total{worker="w"} 10',
      'aetherflow_rpc_failed_total{worker="w"} 3',
      'aetherflow_rpc_faults_total{worker="w"} 1',
      'aetherflow_worker_heap_bytes{worker="w"} 4096',
    ]
  ) assertStringIncludes(page, line);
});

Deno.test("registerQuantumMetrics() tells why datagrams are dropped, and of packets of channels that have closed", async () => {
  const secret = new Uint8Array(32).fill(5);
  const listen = { hostname: "127.0.0.1", port: 0 };
  const server = openQuantumNode({
    listen,
    secret,
    onChannel: (channel) => channel.onStream(() => ignoring),
  });
  const client = openQuantumNode({ listen, secret });
  const channel = await client.connect(server.address);
  const metrics = createMetrics("w");
  registerQuantumMetrics(metrics, client);
  registerPeerMetrics(metrics, {
    names: () => ["kv", "gone"],
    channelStats: (name) => name === "kv" ? channel.stats() : undefined,
  });
  const open = samplesOf(await metrics.metrics());
  assertEquals(open.get('aetherflow_quantum_dropped_total{reason="mac",worker="w"}'), 0);
  assertEquals(open.has('aetherflow_quantum_peer_cwnd_bytes{peer="kv",worker="w"}'), true);
  assertEquals(open.has('aetherflow_quantum_peer_cwnd_bytes{peer="gone",worker="w"}'), false);

  channel.openStream(ignoring).write(new Uint8Array(10_000), true);
  await client.close(); // sends what was written
  const closed = samplesOf(await metrics.metrics());
  assertEquals(closed.get('aetherflow_quantum_channels{worker="w"}'), 0);
  assertEquals(closed.get('aetherflow_quantum_packets_sent_total{worker="w"}')! >= 8, true);
  assertEquals(closed.get('aetherflow_quantum_cwnd_bytes{worker="w"}'), 0);
  await server.close();
});

const ignoring = { onData() {}, onReset() {}, onStop() {}, onDrain() {} };

function samplesOf(page: string): Map<string, number> {
  const lines = page.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => {
    const at = line.lastIndexOf(" ");
    return [line.slice(0, at), Number(line.slice(at + 1))];
  }));
}
