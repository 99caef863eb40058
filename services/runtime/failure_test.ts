import { assertEquals } from "@std/assert";
import { LogError } from "../../storage/log/errors.ts";
import { ConfigError, describeFailure } from "./failure.ts";

Deno.test("describeFailure() sorts an error by its innermost known cause and keeps the outermost words", () => {
  const cases: [unknown, string][] = [
    [new LogError("in_use", "m"), "data_locked"],
    [new LogError("damaged", "m"), "data_damaged"],
    [new LogError("version", "m"), "data_damaged"],
    [new LogError("io", "m"), "storage"],
    [new Deno.errors.AddrInUse("m"), "address_in_use"],
    [new Deno.errors.PermissionDenied("m"), "storage"],
    [new ConfigError("m"), "config"],
    [new Error("m", { cause: new LogError("in_use", "inner") }), "data_locked"],
    [new Error("m", { cause: new Deno.errors.AddrInUse("inner") }), "address_in_use"],
    [Object.assign(new Error("m"), { code: "ENOSPC" }), "storage"],
    [new Error("m"), "internal"],
    ["m", "internal"],
  ];
  for (const [error, code] of cases) assertEquals(describeFailure(error), { code, message: "m" });
});

Deno.test("describeFailure() ends in a cycle of causes", () => {
  const error = new Error("m");
  error.cause = error;
  assertEquals(describeFailure(error).code, "internal");
});
