/** What the core costs without a socket: two endpoints on one thread, each datagram handed over by a function call. Divide by
 *  two for one side. `deno bench transport/quantum/core/endpoint_bench.ts` */

import type { QuantumEndpoint, QuantumEvent } from "../types.ts";
import { createQuantumEndpoint } from "./endpoint.ts";
import { SECRET, seededRandom } from "./_pipe.ts";

const A = { hostname: "127.0.0.1", port: 1 };
const B = { hostname: "127.0.0.1", port: 2 };
const MESSAGE = new Uint8Array(64);
const BULK = new Uint8Array(65_536);

const a = createQuantumEndpoint({ secret: SECRET, acceptConnections: false }, seededRandom(1));
const b = createQuantumEndpoint({ secret: SECRET, acceptConnections: true }, seededRandom(2));
let done = 0;
let received = 0;

function pass(from: QuantumEndpoint, fromAddress: typeof A, to: QuantumEndpoint, now: number): boolean {
  let passed = false;
  for (let next = from.pollTransmit(now); next !== undefined; next = from.pollTransmit(now)) {
    to.handleDatagram(next.bytes, fromAddress, now);
    passed = true;
  }
  return passed;
}

function onServerEvent(event: QuantumEvent): void {
  if (event.type !== "data") return;
  received += event.bytes.length;
  b.consumed(event.connection, event.stream, event.bytes.length);
  if (event.fin) b.write(event.connection, event.stream, MESSAGE, true);
}

function turn(): void {
  const now = performance.now();
  const sent = pass(a, A, b, now);
  for (let event = b.pollEvent(); event !== undefined; event = b.pollEvent()) onServerEvent(event);
  const answered = pass(b, B, a, now);
  for (let event = a.pollEvent(); event !== undefined; event = a.pollEvent()) {
    if (event.type === "data" && event.fin) done++;
  }
  if (sent || answered) return;
  a.handleTimeout(now);
  b.handleTimeout(now);
}

const handle = a.connect(B, performance.now());
while ((a.connectionStats(handle)?.datagramBytesMax ?? 0) < 32_768) turn();

function calls(count: number): void {
  const target = done + count;
  for (let i = 0; i < count; i++) a.write(handle, a.openStream(handle), MESSAGE, true);
  while (done < target) turn();
}

Deno.bench("1 call of 64 B", { group: "calls" }, () => calls(1));
Deno.bench("256 calls of 64 B at once", { group: "calls" }, () => calls(256));

const bulk = a.openStream(handle);
Deno.bench("1 MiB on one stream", { group: "bulk" }, () => {
  const target = received + 16 * BULK.length;
  for (let i = 0; i < 16; i++) a.write(handle, bulk, BULK, false);
  while (received < target) turn();
});
