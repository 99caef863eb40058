import { assertEquals } from "@std/assert";
import { AddressBook, ENTRIES_MAX } from "./address_book.ts";

const AT = { hostname: "10.0.0.2", port: 7402 };
const session = (life = "1") => ({ service: "session", address: "10.0.0.2:7402", life });
const NAME = "session@10.0.0.2:7402";

/** A book that tells what it told. */
function open(trusted: boolean) {
  const told: string[] = [];
  const book = new AddressBook({ trusted }, (changed, removed) => {
    for (const { name, state, incarnation } of changed) told.push(`${name} ${state} ${incarnation}`);
    for (const name of removed) told.push(`${name} gone`);
  });
  /** What was told since the last question. */
  return { book, news: () => told.splice(0) };
}

Deno.test("AddressBook takes a registry's word that a worker is up, and a list's only after an answer", () => {
  const registry = open(true);
  registry.book.put(session(), AT);
  assertEquals(registry.news(), [`${NAME} up 1`]);
  const list = open(false);
  list.book.put(session(), AT);
  assertEquals(list.news(), [`${NAME} down 1`]);
  assertEquals(list.book.checked(NAME, true), "up");
  assertEquals(list.news(), [`${NAME} up 2`]);
  assertEquals(list.book.peers(), [
    { name: NAME, service: "session", isRemote: true, address: AT, state: "up", incarnation: 2 },
  ]);
});

Deno.test("AddressBook calls a worker down after two checks without an answer, and up after one with", () => {
  const { book, news } = open(true);
  book.put(session(), AT);
  news();
  assertEquals([false, true, false].map((answered) => book.checked(NAME, answered)), [
    undefined,
    undefined,
    undefined,
  ]);
  assertEquals(news(), []);
  assertEquals(book.checked(NAME, false), "down");
  assertEquals(book.checked(NAME, false), undefined);
  assertEquals(book.checked(NAME, true), "up");
  assertEquals(news(), [`${NAME} down 1`, `${NAME} up 2`]);
});

Deno.test("AddressBook tells of another life and of another place at once, and of the same never twice", () => {
  const { book, news } = open(true);
  book.put(session("1"), AT);
  book.put(session("1"), { ...AT });
  book.checked(NAME, false);
  book.checked(NAME, false);
  book.put(session("2"), AT);
  book.put(session("2"), { ...AT, hostname: "10.0.0.3" });
  assertEquals(news(), [`${NAME} up 1`, `${NAME} down 1`, `${NAME} up 2`, `${NAME} up 3`]);
});

Deno.test("AddressBook.retain() forgets who is not named, and a late check of a forgotten one is nothing", () => {
  const { book, news } = open(true);
  book.put(session(), AT);
  book.put({ service: "kv", address: "10.0.0.2:7401", life: "1" }, { ...AT, port: 7401 });
  news();
  book.retain(new Set(["kv@10.0.0.2:7401"]));
  book.remove("nobody");
  assertEquals([news(), book.names()], [[`${NAME} gone`], ["kv@10.0.0.2:7401"]]);
  assertEquals(book.checked(NAME, true), undefined);
});

Deno.test("AddressBook is bounded", () => {
  const { book } = open(true);
  const put = (i: number) =>
    book.put({ service: "kv", address: `10.0.0.1:${i}`, life: "" }, { ...AT, port: i });
  for (let i = 0; i < ENTRIES_MAX; i++) assertEquals(put(i), true);
  assertEquals(put(ENTRIES_MAX), false);
  assertEquals(put(0), true);
  assertEquals(book.names().length, ENTRIES_MAX);
});
