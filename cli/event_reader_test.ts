import { assertEquals, assertThrows } from "@std/assert";
import { EventReader } from "./event_reader.ts";

const encoder = new TextEncoder();

Deno.test("EventReader.push() reads events, ids, comments and every line ending, however the bytes are cut", () => {
  const text = "id: 5\nretry: 1000\n: open\n\n" +
    'id: 7\r\nevent: change\r\ndata: {"a":\r\ndata: "ü"}\r\n\r\n' +
    "data\rdata:x\r\r" +
    "id: 9\ndata: cut off";
  const bytes = encoder.encode(text);
  for (const size of [1, 2, 3, 7, bytes.length]) {
    const reader = new EventReader();
    const events = [];
    for (let at = 0; at < bytes.length; at += size) {
      events.push(...reader.push(bytes.subarray(at, at + size)));
    }
    assertEquals(events, [
      { type: "change", data: '{"a":\n"ü"}' },
      { type: "message", data: "\nx" },
    ], `chunks of ${size}`);
    // What was cut off was not seen, so its id does not count.
    assertEquals(reader.lastEventId, "7");
  }
});

Deno.test("EventReader.push() takes the id of a block without data", () => {
  const reader = new EventReader();
  assertEquals(reader.lastEventId, undefined);
  assertEquals(reader.push(encoder.encode("id: 5\n: open\n\n")), []);
  assertEquals(reader.lastEventId, "5");
});

Deno.test("EventReader.push() refuses a line without an end", () => {
  const reader = new EventReader();
  const chunk = encoder.encode("x".repeat(16 * 1024 * 1024));
  for (let i = 0; i < 4; i++) reader.push(chunk);
  assertThrows(() => reader.push(chunk), RangeError, "longer than");
});
