import { assertEquals } from "@std/assert";
import { isWithin } from "./networks.ts";

Deno.test("isWithin() judges addresses as the permissions of a worker do", () => {
  const networks = ["10.1.0.0/16", "192.168.0.7", "[fd00::1]"];
  const cases: [string, boolean][] = [
    ["10.1.255.255", true],
    ["10.2.0.0", false],
    ["192.168.0.7", true],
    ["192.168.0.8", false],
    ["fd00::1", true],
    ["[fd00:0::1]", true],
    ["fd00::2", false],
    ["kv.example", false],
    ["", false],
  ];
  for (const [address, expected] of cases) {
    assertEquals([address, isWithin(networks, address)], [address, expected]);
  }
  assertEquals(isWithin([], "127.0.0.1"), false);
});
