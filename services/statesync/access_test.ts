import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { assertEquals } from "@std/assert";
import { ANONYMOUS, DEVELOPER } from "../runtime/principal.ts";
import { accessOf, mayCreate } from "./access.ts";
import { documentOf, permissionsOf } from "./testing/builders.ts";
import { user } from "./testing/world.ts";

const grant = (prefix: string, write: boolean, service = "documents") => ({ service, prefix, write });

Deno.test("a caller has the highest right that anything gives", () => {
  const record = documentOf(1, {
    id: "team/plan",
    permissions: permissionsOf({
      owner: "ann",
      editors: ["ed"],
      commenters: ["cat", "ed"],
      viewers: ["vic-name", "cat"],
    }),
  });
  const open = { ...record, permissions: { ...record.permissions, public: true } };
  const cases: [name: string, got: unknown, expected: unknown][] = [
    ["a worker", accessOf(undefined, record), "manage"],
    ["the developer", accessOf(DEVELOPER, record), "manage"],
    ["an administrator", accessOf(user("x", { roles: ["admin"] }), record), "manage"],
    ["the owner", accessOf(user("ann"), record), "manage"],
    ["an editor", accessOf(user("ed"), record), "edit"],
    ["a commenter", accessOf(user("cat"), record), "comment"],
    ["a viewer, by name", accessOf(user("vic"), record), "read"],
    ["a stranger", accessOf(user("eve"), record), "none"],
    ["a stranger, of a public document", accessOf(user("eve"), open), "read"],
    ["nobody, of a public document", accessOf(ANONYMOUS, open), "none"],
    ["a write grant", accessOf(user("eve", { grants: [grant("team/", true)] }), record), "edit"],
    [
      "a read grant on everything",
      accessOf(user("eve", { grants: [grant("", false, "*")] }), record),
      "read",
    ],
    ["a grant on another prefix", accessOf(user("eve", { grants: [grant("other/", true)] }), record), "none"],
    [
      "a grant on another service",
      accessOf(user("eve", { grants: [grant("", true, "kv")] }), record),
      "none",
    ],
    ["a scoped key of the owner", accessOf(user("ann", { isScoped: true }), open), "none"],
    [
      "an empty name in no list",
      accessOf(user("", { username: "", kind: Principal_Kind.API_KEY }), record),
      "none",
    ],
    ["the owner, deleted", accessOf(user("ann"), { ...open, state: "deleted" }), "manage"],
    ["an editor, deleted", accessOf(user("ed"), { ...open, state: "deleted" }), "none"],
    ["anybody who is signed in makes documents", mayCreate(user("eve"), "d"), true],
    ["nobody makes none", mayCreate(ANONYMOUS, "d"), false],
    [
      "a scoped key where its grant says so",
      mayCreate(user("ann", { isScoped: true, grants: [grant("d", true)] }), "d1"),
      true,
    ],
    [
      "a scoped key elsewhere",
      mayCreate(user("ann", { isScoped: true, grants: [grant("d", true)] }), "e1"),
      false,
    ],
  ];
  assertEquals(cases.map(([name, got]) => [name, got]), cases.map(([name, , expected]) => [name, expected]));
});
