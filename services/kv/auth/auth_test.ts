import { assertEquals, assertThrows } from "@std/assert";
import { AuthStore, Credential, ROOT } from "./auth.ts";
import { KvError, type KvErrorKind } from "../errors.ts";
import { directLog, enabledAuth, permission } from "../testing/auth.ts";
import type { WriteLog } from "../txn.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function refusal(action: () => unknown): KvErrorKind {
  return assertThrows(action, KvError).kind;
}

function disabledAuth() {
  const auth = new AuthStore();
  return { auth, log: directLog(auth) };
}

Deno.test("AuthStore.enable() needs the user root with the role root", () => {
  const { auth, log } = disabledAuth();
  assertEquals(refusal(() => auth.enable(log)), "rootUserMissing");
  auth.addUser(log, ROOT, bytes("h"));
  assertEquals(refusal(() => auth.enable(log)), "rootRoleMissing");
  auth.grantRole(log, ROOT, ROOT);
  auth.enable(log);
  auth.enable(log);
  assertEquals(auth.isEnabled, true);
  auth.disable(log);
  auth.disable(log);
  assertEquals(auth.isEnabled, false);
});

Deno.test("AuthStore refuses what etcd refuses, in its words", () => {
  const cases: [KvErrorKind, (auth: AuthStore, log: WriteLog) => unknown][] = [
    ["userEmpty", (auth, log) => auth.addUser(log, "", bytes("h"))],
    ["userExists", (auth, log) => auth.addUser(log, "ann", bytes("h"))],
    ["userExists", (auth) => auth.checkNewUser("ann")],
    ["userNotFound", (auth, log) => auth.deleteUser(log, "bob")],
    ["userNotFound", (auth, log) => auth.changePassword(log, "bob", bytes("h"))],
    ["userNotFound", (auth, log) => auth.grantRole(log, "bob", "no such role")],
    ["userNotFound", (auth, log) => auth.revokeRole(log, "bob", "r")],
    ["userNotFound", (auth) => auth.rolesOf("bob")],
    ["roleNotFound", (auth, log) => auth.grantRole(log, "ann", "s")],
    ["roleNotGranted", (auth, log) => auth.revokeRole(log, "ann", "r")],
    ["roleNotGranted", (auth, log) => auth.revokeRole(log, "ann", "s")],
    ["roleEmpty", (auth, log) => auth.addRole(log, "")],
    ["roleExists", (auth, log) => auth.addRole(log, "r")],
    ["roleNotFound", (auth, log) => auth.deleteRole(log, "s")],
    ["roleNotFound", (auth) => auth.permissionsOf("s")],
    ["permissionNotGiven", (auth, log) => auth.grantPermission(log, "r", undefined)],
    ["roleNotFound", (auth, log) => auth.grantPermission(log, "s", permission("read a"))],
    ["invalidAuthManagement", (auth, log) => auth.grantPermission(log, "r", permission("read"))],
    ["invalidAuthManagement", (auth, log) => auth.grantPermission(log, "r", permission("read b a"))],
    ["invalidAuthManagement", (auth, log) => auth.grantPermission(log, "r", permission("read b b"))],
    ["roleNotFound", (auth, log) => auth.revokePermission(log, "s", permission("read a"))],
    ["permissionNotGranted", (auth, log) => auth.revokePermission(log, "r", permission("read a"))],
    ["permissionNotGranted", (auth, log) => auth.revokePermission(log, "r", permission("read a b"))],
    ["invalidAuthManagement", (auth, log) => auth.deleteUser(log, ROOT)],
    ["invalidAuthManagement", (auth, log) => auth.revokeRole(log, ROOT, ROOT)],
    ["invalidAuthManagement", (auth, log) => auth.deleteRole(log, ROOT)],
    ["noPasswordUser", (auth) => auth.loginOf("nopass")],
  ];
  for (const [kind, action] of cases) {
    const { auth, log } = enabledAuth();
    auth.addUser(log, "ann", bytes("h"));
    auth.addUser(log, "nopass", undefined);
    auth.addRole(log, "r");
    auth.addRole(log, ROOT);
    auth.grantPermission(log, "r", permission("write a c"));
    const { revision } = auth;
    assertEquals(refusal(() => action(auth, log)), kind, action.toString());
    assertEquals(auth.revision, revision, `${action} left a trace`);
  }
});

Deno.test("root may be taken apart while authentication is disabled", () => {
  const { auth, log } = enabledAuth();
  auth.addRole(log, ROOT);
  auth.disable(log);
  auth.revokeRole(log, ROOT, ROOT);
  auth.deleteRole(log, ROOT);
  auth.deleteUser(log, ROOT);
  assertEquals([auth.userNames(), auth.roleNames()], [[], []]);
  assertEquals(refusal(() => auth.loginOf("ann")), "authNotEnabled");
});

Deno.test("lists are in byte order, and a deleted role is taken from its users", () => {
  const { auth, log } = disabledAuth();
  for (const name of ["b", "ä", "B", "😀", "\uffee"]) {
    auth.addUser(log, name, bytes("h"));
    auth.addRole(log, name);
  }
  const inOrder = ["B", "b", "ä", "\uffee", "😀"];
  assertEquals([auth.userNames(), auth.roleNames()], [inOrder, inOrder]);
  for (const role of ["b", "ä", "B", ROOT]) auth.grantRole(log, "b", role);
  assertEquals(auth.rolesOf("b"), ["B", "b", ROOT, "ä"]);
  auth.deleteRole(log, "b");
  assertEquals(auth.rolesOf("b"), ["B", ROOT, "ä"]);
});

Deno.test("permissions are kept by key, and granting the same range again changes its type", () => {
  const { auth, log } = disabledAuth();
  auth.addRole(log, "r");
  const words = ["read b", "write b c", "readwrite a z", "read b d"];
  for (const each of words) auth.grantPermission(log, "r", permission(each));
  auth.grantPermission(log, "r", permission("readwrite b c"));
  const kept = () => auth.permissionsOf("r").map(({ permType, key, rangeEnd }) => [permType, key, rangeEnd]);
  const as = (each: string) => Object.values(permission(each)).slice(1);
  assertEquals(kept(), ["readwrite a z", "read b", "readwrite b c", "read b d"].map(as));
  auth.revokePermission(log, "r", permission("read b c"));
  assertEquals(kept(), ["readwrite a z", "read b", "read b d"].map(as));
});

Deno.test("the revision counts changes, and only those", () => {
  const { auth, log } = disabledAuth();
  const steps: [number, () => void][] = [
    [2, () => auth.addUser(log, ROOT, bytes("h"))],
    [3, () => auth.grantRole(log, ROOT, ROOT)],
    [3, () => auth.grantRole(log, ROOT, ROOT)],
    [3, () => auth.enable(log)],
    [4, () => auth.addRole(log, "r")],
    [5, () => auth.grantPermission(log, "r", permission("read a"))],
    [6, () => auth.grantPermission(log, "r", permission("read a"))],
    [7, () => auth.revokePermission(log, "r", permission("read a"))],
    [8, () => auth.changePassword(log, ROOT, bytes("i"))],
    [9, () => auth.deleteRole(log, "r")],
    [10, () => auth.disable(log)],
    [10, () => auth.disable(log)],
    [11, () => auth.deleteUser(log, ROOT)],
  ];
  assertEquals(auth.revision, 1);
  for (const [revision, step] of steps) {
    step();
    assertEquals(auth.revision, revision, step.toString());
  }
});

Deno.test("a user without a password keeps having none", () => {
  const { auth, log } = enabledAuth();
  auth.addUser(log, "cert", undefined);
  auth.changePassword(log, "cert", bytes("h"));
  assertEquals(refusal(() => auth.loginOf("cert")), "noPasswordUser");
});

Deno.test("changes of roles and permissions count from the next check on", () => {
  const { auth, log } = enabledAuth();
  auth.addUser(log, "ann", bytes("h"));
  auth.addRole(log, "r");
  const caller = auth.loginOf("ann")!.credential;
  const may = (access: "read" | "write", key: string) => {
    try {
      auth.checkKeys(caller, access, bytes(key), "single");
      return true;
    } catch (error) {
      assertEquals((error as KvError).kind, "permissionDenied");
      return false;
    }
  };
  assertEquals(may("read", "a"), false);
  auth.grantRole(log, "ann", "r");
  assertEquals(may("read", "a"), false);
  auth.grantPermission(log, "r", permission("read a"));
  assertEquals([may("read", "a"), may("write", "a"), may("read", "b")], [true, false, false]);
  auth.grantPermission(log, "r", permission("write a"));
  assertEquals([may("read", "a"), may("write", "a")], [false, true]);
  auth.grantPermission(log, "r", permission("readwrite a"));
  assertEquals([may("read", "a"), may("write", "a")], [true, true]);
  auth.revokePermission(log, "r", permission("read a"));
  assertEquals([may("read", "a"), may("write", "a")], [false, false]);
  auth.grantPermission(log, "r", permission("readwrite \0 \0"));
  assertEquals([may("read", "a"), may("write", "zz")], [true, true]);
  auth.revokeRole(log, "ann", "r");
  assertEquals(may("read", "a"), false);
  auth.grantRole(log, "ann", ROOT);
  assertEquals([may("read", "a"), may("write", "a")], [true, true]);
  auth.deleteUser(log, "ann");
  assertEquals(refusal(() => auth.checkUser(caller)), "invalidAuthToken");
  auth.disable(log);
  auth.checkRoot(caller);
});

Deno.test("who only says to be somebody is nobody", () => {
  const { auth } = enabledAuth();
  assertEquals(refusal(() => auth.checkRoot({ user: ROOT })), "userEmpty");
  assertEquals(refusal(() => auth.checkRoot(new Credential(ROOT, 0))), "invalidAuthToken");
});
