import { assertEquals } from "@std/assert";
import { Presence } from "./presence.ts";

const names = (members: readonly { username: string }[] | undefined) =>
  members?.map(({ username }) => username);

Deno.test("Presence counts a user once, however many connections and workers it is at", () => {
  const presence = new Presence();
  presence.set("", "1", "ada", 2);
  presence.set("gateway-2", "1", "ada", 3);
  presence.set("gateway-2", "2", "bob", 1);
  assertEquals([presence.size, presence.connections, presence.own("1", "ada")], [2, 6, 2]);
  assertEquals(presence.list(), [
    { userId: "1", username: "ada", connections: 5 },
    { userId: "2", username: "bob", connections: 1 },
  ]);
  assertEquals(presence.list(""), [{ userId: "1", username: "ada", connections: 2 }]);
  presence.removeWorker("gateway-2");
  assertEquals([names(presence.list()), presence.connections], [["ada"], 2]);
});

Deno.test("Presence.takeChange() tells who came and went, and nothing of who did both", () => {
  const presence = new Presence();
  assertEquals(presence.takeChange(), undefined);
  presence.set("", "1", "ada", 1);
  presence.set("", "2", "bob", 1);
  presence.set("", "2", "bob", 0);
  assertEquals(names(presence.takeChange()?.joined), ["ada"]);
  presence.set("", "1", "ada", 2);
  presence.set("", "1", "ada", 1);
  assertEquals(presence.takeChange(), undefined);
  presence.set("", "1", "ada", 0);
  presence.set("", "1", "ada", 1);
  assertEquals(presence.takeChange(), undefined);
  presence.set("", "1", "ada", 0);
  assertEquals(names(presence.takeChange()?.left), ["ada"]);
  presence.set("", "1", "ada", 0);
  assertEquals([presence.takeChange(), presence.size], [undefined, 0]);
});

Deno.test("users without an id are told apart by their names", () => {
  const presence = new Presence();
  presence.set("", "", "dev", 1);
  presence.set("", "dev", "", 1);
  assertEquals(presence.size, 2);
});
