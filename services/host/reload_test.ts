import { assertEquals, assertThrows } from "@std/assert";
import { loadConfig } from "./config.ts";
import { ConfigError } from "./config_sources.ts";
import { changedKeys, planChange } from "./reload.ts";

const yaml = (text: string) => loadConfig({ file: { name: "aetherflow.yaml", text } });
const always = () => true;

Deno.test("planChange() applies what may change now and names what waits for a restart", () => {
  const present = yaml("gateway: { allowedHosts: [a.example], http: { port: 1 } }");
  const next = yaml("log: { level: warn }\ngateway: { allowedHosts: [b.example], http: { port: 2 } }");
  const { config, applied, needsRestart } = planChange(present, next, always);
  assertEquals([applied, needsRestart], [["log.level", "gateway.allowedHosts"], ["gateway.http.port"]]);
  assertEquals([config.log.level, config.gateway.allowedHosts, config.gateway.http.port], [
    "warn",
    ["b.example"],
    1,
  ]);
  assertEquals(present.gateway.allowedHosts, ["a.example"]);
  // What waits is named again the next time, what took effect is not.
  assertEquals(planChange(config, next, always).applied, []);
  assertEquals(planChange(config, next, always).needsRestart, ["gateway.http.port"]);
});

Deno.test("planChange() leaves for a restart what the running workers may not do", () => {
  const next = yaml("log: { level: warn }\ngateway: { allowedHosts: [b.example] }");
  const { applied, needsRestart } = planChange(yaml(""), next, ({ log }) => log.level !== "warn");
  assertEquals([applied, needsRestart], [["gateway.allowedHosts"], ["log.level"]]);
});

Deno.test("planChange() refuses values that are valid only with others that wait for a restart", () => {
  // As two keys would be of which one may change now: here the present configuration has its fault already.
  const broken = { ...yaml(""), data: "" };
  assertThrows(
    () => planChange(broken, yaml("log: { level: warn }"), always),
    ConfigError,
    "log.level cannot change before data, which needs a restart",
  );
});

Deno.test("planChange() changes nothing when both configurations are the same", () => {
  const present = yaml("");
  assertEquals(planChange(present, yaml(""), always), { config: present, applied: [], needsRestart: [] });
});

Deno.test("changedKeys() walks groups, takes lists as values, and sees keys that come and go", () => {
  assertEquals(changedKeys({ a: { b: 1, c: [1] }, d: 1 }, { a: { b: 1, c: [2] }, e: 2 }), ["a.c", "d", "e"]);
  assertEquals(changedKeys({ a: 1 }, { a: { b: 1 } }), ["a"]);
});
