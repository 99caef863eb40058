import { assertEquals, assertRejects } from "@std/assert";
import { ApiError } from "../kv/client.ts";
import { type Input, readPasswords } from "./passwords.ts";

/** Input that gives `chunks`, and tells when it is in raw mode: then a terminal shows nothing of what is typed. */
function inputOf(chunks: readonly string[], isTerminal: boolean): Input & { readonly modes: boolean[] } {
  const rest = chunks.map((chunk) => new TextEncoder().encode(chunk));
  const modes: boolean[] = [];
  return {
    modes,
    isTerminal: () => isTerminal,
    setRaw: (isRaw) => modes.push(isRaw),
    read(into) {
      const chunk = rest.shift();
      if (chunk === undefined) return Promise.resolve(null);
      into.set(chunk);
      return Promise.resolve(chunk.length);
    },
  };
}

Deno.test("readPasswords() shows nothing of what is typed on a terminal, and takes corrections", async () => {
  const input = inputOf(["wröx\x7fng", "\x15ri", "ghté\x7ft\r", "right\r"], true);
  let shown = "";
  using passwords = readPasswords(input, (text) => shown += text);
  assertEquals(await passwords.ask("Password: "), "rightt");
  assertEquals(await passwords.ask("Again: "), "right");
  assertEquals(shown, "Password: \nAgain: \n");
  assertEquals(input.modes, [true, false, true, false]);
});

Deno.test("readPasswords() leaves raw mode when the person gives up", async () => {
  for (const end of ["\x03", "\x04"]) {
    const input = inputOf([`secret${end}`], true);
    using passwords = readPasswords(input, () => {});
    await assertRejects(() => passwords.ask("Password: "), ApiError, "no password was given");
    assertEquals(input.modes, [true, false]);
  }
});

Deno.test("readPasswords().askNew() wants the same twice on a terminal, and once elsewhere", async () => {
  using differing = readPasswords(inputOf(["one\rother\r"], true), () => {});
  await assertRejects(() => differing.askNew("New: "), ApiError, "the two passwords differ");
  using same = readPasswords(inputOf(["same\rsame\r"], true), () => {});
  assertEquals(await same.askNew("New: "), "same");
  using piped = readPasswords(inputOf(["pres", "ent\r\nnew one \n"], false));
  assertEquals(await piped.ask("Present: "), "present");
  assertEquals(await piped.askNew("New: "), "new one ");
  await assertRejects(() => piped.ask("More: "), ApiError, "a password is needed");
});
