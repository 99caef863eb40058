import { assertEquals, assertNotEquals } from "@std/assert";
import { textBytes } from "./reply.ts";
import { CursorTable } from "./scan.ts";
import { testServer } from "./testing/gateway.ts";

Deno.test("CursorTable keeps a cursor's place, and forgets the oldest when it is full", () => {
  const table = new CursorTable(3);
  const first = table.add(textBytes("first"));
  assertEquals(table.add(textBytes("first")), first);
  for (let i = 0; i < 65_535; i++) table.add(textBytes(`key ${i}`));
  assertEquals(table.get(first), textBytes("first"));
  const last = table.add(textBytes("last"));
  assertEquals(table.get(first), undefined);
  assertEquals(table.get(last), textBytes("last"));
});

Deno.test("CursorTable gives other numbers in another life", () => {
  assertNotEquals(new CursorTable(1).add(textBytes("a")), new CursorTable(2).add(textBytes("a")));
});

Deno.test("SCAN returns every key that was there all the time exactly once, while others come and go", async () => {
  const { gateway } = testServer();
  const client = gateway.connect();
  const stay = Array.from({ length: 100 }, (_, i) => `stay:${String(i).padStart(3, "0")}`);
  for (const key of stay) await client.call("SET", key, "x");
  const seen: string[] = [];
  let cursor = "0";
  let round = 0;
  do {
    await client.call("SET", `come:${round}`, "x");
    await client.call("DEL", `come:${round - 1}`);
    const reply = (await client.call("SCAN", cursor, "COUNT", "7")).split("\r\n");
    cursor = reply[2]!;
    seen.push(...reply.filter((line) => line.startsWith("stay:")));
    round++;
  } while (cursor !== "0");
  assertEquals(seen, stay);
  assertEquals(await client.call("SCAN", "12345"), "-ERR invalid cursor\r\n");
  await gateway.close();
});
