import { assertEquals, assertThrows } from "@std/assert";
import { createManualClock } from "../../runtime/clock.ts";
import { AuthError } from "./errors.ts";
import { COUNTED_MAX, Throttle } from "./throttle.ts";

function createThrottle() {
  const clock = createManualClock();
  return { clock, throttle: new Throttle({ loginFailuresMax: 3, loginWindowMs: 60_000 }, clock) };
}

Deno.test("Throttle counts a failure from its begin, for the name and for the address", () => {
  const { throttle, clock } = createThrottle();
  for (let i = 0; i < 3; i++) throttle.begin("alice", `address ${i}`);
  const error = assertThrows(() => throttle.begin("alice", "another"), AuthError);
  assertEquals([error.kind, error.retryAfterS], ["tooManyAttempts", 60]);
  for (let i = 0; i < 3; i++) throttle.begin(`name ${i}`, "one");
  assertThrows(() => throttle.begin("name 4", "one"), AuthError);
  // Without an address only the name counts.
  throttle.begin("name 4", "");
  clock.advance(60_000);
  throttle.begin("alice", "one");
});

Deno.test("Throttle forgets a name's failures when it succeeds, and not the address's", () => {
  const { throttle } = createThrottle();
  throttle.begin("alice", "one");
  throttle.begin("alice", "one");
  const third = throttle.begin("alice", "one");
  third.succeed();
  // Decided once.
  third.cancel();
  third.succeed();
  throttle.begin("alice", "one");
  assertThrows(() => throttle.begin("alice", "one"), AuthError);
  for (let i = 0; i < 2; i++) throttle.begin("alice", "two");
  assertThrows(() => throttle.begin("alice", "three"), AuthError);
});

Deno.test("Throttle does not count what never came to an answer", () => {
  const { throttle } = createThrottle();
  for (let i = 0; i < 10; i++) throttle.begin("alice", "one").cancel();
  throttle.begin("alice", "one");
});

Deno.test("Throttle keeps a bounded number of names and addresses, the newest", () => {
  const { throttle } = createThrottle();
  for (let i = 0; i < 3; i++) throttle.begin("first", "");
  for (let i = 0; i < 2 * COUNTED_MAX; i++) throttle.begin(`name ${i}`, `address ${i}`);
  assertEquals(throttle.size, 2 * COUNTED_MAX);
  throttle.begin("first", "");
});
