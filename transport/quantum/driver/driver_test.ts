import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Address, QuantumEndpoint, QuantumEvent, Transmit } from "../types.ts";
import { QuantumDriver } from "./driver.ts";
import { MAX_SENDS_IN_FLIGHT, UdpSocket } from "./socket.ts";

const ANY: Address = { hostname: "127.0.0.1", port: 0 };

/** The parts of an endpoint that a driver drives, scripted: it echoes datagrams and asks for timers. */
class ScriptedEndpoint {
  readonly received: Uint8Array[] = [];
  readonly timeouts: number[] = [];
  deadline: number | undefined;
  out: Transmit[] = [];
  events: QuantumEvent[] = [];
  onTimeout: () => void = () => {};
  onDatagram: (bytes: Uint8Array, from: Address) => void = () => {};
  polls = 0;
  readonly recycled: number[] = [];

  handleDatagram(bytes: Uint8Array, from: Address): void {
    this.received.push(bytes.slice());
    this.onDatagram(bytes, from);
  }
  handleTimeout(now: number): void {
    if (this.deadline === undefined || now < this.deadline) return;
    this.timeouts.push(now);
    this.deadline = undefined;
    this.onTimeout();
  }
  nextTimeout(): number | undefined {
    return this.deadline;
  }
  pollTransmit(): Transmit | undefined {
    this.polls++;
    return this.out.shift();
  }
  recycle(bytes: Uint8Array): void {
    this.recycled.push(bytes.length);
  }
  pollEvent(): QuantumEvent | undefined {
    return this.events.shift();
  }
}

interface Rig {
  readonly endpoint: ScriptedEndpoint;
  readonly driver: QuantumDriver;
  readonly events: QuantumEvent[];
}

function rig(onEvent?: (event: QuantumEvent, driver: QuantumDriver) => void): Rig {
  const endpoint = new ScriptedEndpoint();
  const events: QuantumEvent[] = [];
  const driver: QuantumDriver = new QuantumDriver({
    listen: ANY,
    endpoint: endpoint as unknown as QuantumEndpoint,
    onEvent: (event) => {
      events.push(event);
      onEvent?.(event, driver);
    },
    onBroken: (error) => {
      throw error;
    },
  });
  return { endpoint, driver, events };
}

/** A promise and the function that resolves it after `count` calls. */
function after(count: number): { done: Promise<void>; tick: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { done: promise, tick: () => --count === 0 && resolve() };
}

Deno.test("QuantumDriver carries datagrams both ways and counts their bytes", async () => {
  const [a, b] = [rig(), rig()];
  const { done, tick } = after(3);
  b.endpoint.onDatagram = (bytes, to) => b.endpoint.out.push({ to, bytes: bytes.slice() });
  a.endpoint.onDatagram = tick;
  for (const length of [1, 1_200, 65_507]) {
    a.endpoint.out.push({ to: b.driver.address, bytes: new Uint8Array(length).fill(length & 0xff) });
  }
  a.driver.requestFlush();
  await done;
  assertEquals(a.endpoint.received.map((bytes) => bytes.length).sort((x, y) => x - y), [1, 1_200, 65_507]);
  const total = 66_708;
  assertEquals([a.driver.counters.bytesSent, a.driver.counters.bytesReceived], [total, total]);
  assertEquals(a.endpoint.recycled, [65_507]);
  assertEquals([b.driver.counters.datagramsSent, b.driver.counters.datagramsReceived], [3, 3]);
  await Promise.all([a.driver.close(), b.driver.close()]);
});

Deno.test("QuantumDriver polls for sends once per turn, though commands come many awaits apart", async () => {
  const { endpoint, driver } = rig();
  for (let i = 0; i < 30; i++) {
    driver.requestFlush();
    for (let step = 0; step < 10; step++) await Promise.resolve();
  }
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(endpoint.polls, 1);
  await driver.close();
});

Deno.test("QuantumDriver wakes the endpoint at its deadline, also when an earlier one comes up", async () => {
  const { endpoint, driver } = rig();
  const { done, tick } = after(1);
  endpoint.onTimeout = tick;
  endpoint.deadline = driver.now() + 60_000;
  driver.requestFlush();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const dueMs = driver.now() + 3;
  endpoint.deadline = dueMs;
  driver.requestFlush();
  await done;
  assert((endpoint.timeouts[0] ?? 0) >= dueMs);
  await driver.close();
});

Deno.test("QuantumDriver meets a deadline that moved later with the timer it has", async () => {
  const { endpoint, driver } = rig();
  const { done, tick } = after(1);
  endpoint.onTimeout = tick;
  endpoint.deadline = driver.now() + 3;
  driver.requestFlush();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const dueMs = driver.now() + 12;
  endpoint.deadline = dueMs;
  driver.requestFlush();
  await done;
  assert((endpoint.timeouts[0] ?? 0) >= dueMs);
  await driver.close();
});

Deno.test("QuantumDriver does not re-enter its handler when the handler gives commands", async () => {
  let depth = 0;
  const { endpoint, driver, events } = rig((event, driver) => {
    assertEquals(++depth, 1);
    if (event.type === "drain" && event.stream < 5) {
      endpoint.events.push({ ...event, stream: event.stream + 1 });
      driver.requestFlush();
    }
    depth--;
  });
  endpoint.events.push({ type: "drain", connection: 1, stream: 0 });
  driver.requestFlush();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(events.length, 6);
  await driver.close();
});

Deno.test("QuantumDriver.close() sends what is left and waits for it", async () => {
  const [a, b] = [rig(), rig()];
  const { done, tick } = after(1);
  b.endpoint.onDatagram = tick;
  a.endpoint.out.push({ to: b.driver.address, bytes: new Uint8Array(10) });
  await a.driver.close();
  await done;
  await b.driver.close();
});

Deno.test("UdpSocket stops offering sends at its bound and says when it takes more", async () => {
  let writable = 0;
  const socket = new UdpSocket(ANY, {
    onDatagram() {},
    onReusable() {},
    onWritable: () => writable++,
    onBroken() {},
  });
  let sent = 0;
  while (socket.canSend) {
    socket.send({ to: socket.address, bytes: new Uint8Array(10) });
    sent++;
  }
  assertEquals([sent, writable], [MAX_SENDS_IN_FLIGHT, 0]);
  await socket.close();
  assertEquals(writable, 1);
});

Deno.test("UdpSocket counts refused sends and goes on", async () => {
  const { done, tick } = after(1);
  const socket = new UdpSocket(ANY, { onDatagram: tick, onWritable() {}, onReusable() {}, onBroken() {} });
  // Larger than UDP can carry.
  socket.send({ to: socket.address, bytes: new Uint8Array(65_530) });
  socket.send({ to: socket.address, bytes: new Uint8Array(20) });
  await done;
  await socket.close();
  assertEquals([socket.counters.sendErrors, socket.counters.datagramsReceived], [1, 1]);
});

Deno.test("UdpSocket refuses an address that is taken", async () => {
  const handler = { onDatagram() {}, onWritable() {}, onReusable() {}, onBroken() {} };
  const socket = new UdpSocket(ANY, handler);
  assertThrows(() => new UdpSocket(socket.address, handler), Deno.errors.AddrInUse);
  await socket.close();
});
