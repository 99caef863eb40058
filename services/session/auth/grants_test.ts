import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { create } from "@bufbuild/protobuf";
import { PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { mayUse } from "../../runtime/principal.ts";
import { checkGrants, commonGrants, type Grant } from "./grants.ts";

const grant: fc.Arbitrary<Grant> = fc.record({
  service: fc.constantFrom("kv", "queue", "*"),
  prefix: fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 3 }),
  write: fc.boolean(),
});
const grants = fc.array(grant, { maxLength: 6 });

function may(grants: readonly Grant[], service: string, name: string, isWrite: boolean): boolean {
  const principal = create(PrincipalSchema, { grants: grants.map((grant) => ({ ...grant })) });
  return mayUse(principal, service, name, isWrite);
}

const use = fc.tuple(
  fc.constantFrom("kv", "queue"),
  fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 4 }),
  fc.boolean(),
);

Deno.test("commonGrants() allows what both allow, and nothing else", () => {
  fc.assert(
    fc.property(grants, grants, use, (a, b, [service, name, isWrite]) => {
      assertEquals(
        may(commonGrants(a, b), service, name, isWrite),
        may(a, service, name, isWrite) && may(b, service, name, isWrite),
      );
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("checkGrants() leaves out what others include, and changes nothing of what is allowed", () => {
  fc.assert(
    fc.property(grants, use, (given, [service, name, isWrite]) => {
      const checked = checkGrants(given, "grants");
      assert(checked.length <= given.length);
      assertEquals(may(checked, service, name, isWrite), may(given, service, name, isWrite));
    }),
    { numRuns: 2_000 },
  );
  const wide = { service: "*", prefix: "", write: true };
  assertEquals(checkGrants([{ service: "kv", prefix: "x", write: false }, wide, wide], "grants"), [wide]);
});
