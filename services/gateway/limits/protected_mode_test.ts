import { assertEquals } from "@std/assert";
import { ProtectedMode } from "./protected_mode.ts";
Deno.test("ProtectedMode.allow() counts at once, also for a Host that was accepted before", () => {
  const mode = new ProtectedMode(["a.example"], ["https://a.example"]);
  assertEquals(mode.check("a.example:8080", "https://a.example"), "ok");
  mode.allow(["b.example"], []);
  assertEquals(mode.check("a.example:8080", undefined), "foreign_host");
  assertEquals(mode.check("b.example", undefined), "ok");
  assertEquals(mode.check("b.example", "https://a.example"), "foreign_origin");
});
