import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { AuthStore } from "./auth.ts";
import { enabledAuth } from "../testing/auth.ts";
import { Tokens } from "./tokens.ts";

function open({ tokensMax = 3 } = {}) {
  const { auth, log } = enabledAuth();
  auth.addUser(log, "ann", new Uint8Array([1]));
  const clock = createManualClock();
  const tokens = new Tokens(auth, { tokenTtlMs: 1_000, tokensMax }, createSeededRandom(5), clock);
  const credential = () => auth.loginOf("ann")!.credential;
  return { auth, log, clock, tokens, credential };
}

Deno.test("Tokens.issue() makes tokens of etcd's form, each another", () => {
  const { tokens, credential } = open();
  const [first, second] = [tokens.issue(credential()), tokens.issue(credential())];
  assertMatch(first, /^[A-Za-z]{16}\.\d+$/);
  assertNotEquals(first, second);
  assertEquals(tokens.find(first)?.user, "ann");
  assertEquals(
    [tokens.find(""), tokens.find(first + "0"), tokens.find(first.toLowerCase())],
    Array(3).fill(undefined),
  );
});

Deno.test("a token is good for its time since its last use", () => {
  const { tokens, clock, credential } = open();
  const token = tokens.issue(credential());
  for (let i = 0; i < 5; i++) {
    clock.advance(999);
    assertEquals(tokens.find(token)?.user, "ann");
  }
  clock.advance(1_000);
  assertEquals(tokens.find(token), undefined);
  assertEquals(tokens.size, 0);
});

Deno.test("tokens end with the user, its password, and authentication", () => {
  const endings: [string, (auth: AuthStore, log: ReturnType<typeof open>["log"]) => void][] = [
    ["deleted", (auth, log) => auth.deleteUser(log, "ann")],
    ["deleted and added again", (auth, log) => {
      auth.deleteUser(log, "ann");
      auth.addUser(log, "ann", new Uint8Array([1]));
    }],
    ["password", (auth, log) => auth.changePassword(log, "ann", new Uint8Array([2]))],
    ["disabled", (auth, log) => auth.disable(log)],
    ["disabled and enabled", (auth, log) => {
      auth.disable(log);
      auth.enable(log);
    }],
  ];
  for (const [name, end] of endings) {
    const { auth, log, tokens, credential } = open();
    const token = tokens.issue(credential());
    auth.addRole(log, name);
    auth.grantRole(log, "ann", name);
    assertEquals(tokens.find(token)?.user, "ann", "roles may change");
    end(auth, log);
    assertEquals(tokens.find(token), undefined, name);
  }
});

Deno.test("a login after authentication was disabled and enabled is good", () => {
  const { auth, log, tokens, credential } = open();
  auth.disable(log);
  auth.enable(log);
  assertEquals(tokens.find(tokens.issue(credential()))?.user, "ann");
});

Deno.test("with a full house those that ran out go first, then the one unused for longest", () => {
  const { tokens, clock, credential } = open({ tokensMax: 2 });
  const first = tokens.issue(credential());
  clock.advance(10);
  const second = tokens.issue(credential());
  clock.advance(10);
  tokens.find(first);
  const third = tokens.issue(credential());
  assertEquals([first, second, third].map((token) => tokens.find(token) !== undefined), [true, false, true]);
  clock.advance(2_000);
  tokens.issue(credential());
  assertEquals(tokens.size, 1);
});
