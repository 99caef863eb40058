import { assertEquals } from "@std/assert";
import { PostgresError, postgresErrorOf } from "./errors.ts";

/** As the client has them: the server's have a severity. */
function told(code: string, severity?: string): Error {
  const more = severity === undefined ? { code } : { code, severity, constraint_name: "some_key" };
  return Object.assign(new Error("text"), more);
}

Deno.test("postgresErrorOf() tells what may be tried again, and what may have been done", () => {
  const cases: readonly (readonly [string, boolean, string, boolean])[] = [
    ["40P01", true, "conflict", false],
    ["40001", true, "conflict", false],
    ["55P03", true, "conflict", false],
    ["57014", true, "timeout", false],
    ["23505", true, "taken", false],
    ["23503", true, "refused", false],
    ["42P01", true, "refused", false],
    ["28P01", true, "refused", false],
    ["25006", true, "readOnly", false],
    ["53100", true, "readOnly", false],
    ["53300", true, "unavailable", false],
    ["57P01", true, "unavailable", true],
    ["57P02", true, "unavailable", true],
    ["57P03", true, "unavailable", false],
    ["08006", true, "unavailable", false],
    ["ECONNREFUSED", false, "unavailable", false],
    ["ENOTFOUND", false, "unavailable", false],
    ["CONNECT_TIMEOUT", false, "unavailable", false],
    ["CONNECTION_CLOSED", false, "unavailable", true],
    ["ECONNRESET", false, "unavailable", true],
  ];
  for (const [code, isServer, expected, isUncertain] of cases) {
    const error = postgresErrorOf(told(code, isServer ? "ERROR" : undefined));
    assertEquals([error.code, error.isUncertain], [expected, isUncertain], code);
    assertEquals(error.sqlState, isServer ? code : undefined);
    assertEquals(error.constraint, isServer ? "some_key" : undefined);
  }
});

Deno.test("postgresErrorOf() leaves its own errors as they are", () => {
  const error = new PostgresError("timeout", "late");
  assertEquals(postgresErrorOf(error), error);
});
