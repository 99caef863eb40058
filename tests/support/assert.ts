/** The assertions this project's tests use, with @std/assert's names and argument order, on top of node:assert. */
import { AssertionError, strict } from "node:assert";

export { AssertionError };

/** What is used of node:assert. Its published types do not take an undefined message; it does. */
const nodeAssert: {
  ok(value: unknown, message?: string | undefined): void;
  deepStrictEqual(actual: unknown, expected: unknown, message?: string | undefined): void;
  notDeepStrictEqual(actual: unknown, expected: unknown, message?: string | undefined): void;
  strictEqual(actual: unknown, expected: unknown, message?: string | undefined): void;
  match(actual: string, expected: RegExp, message?: string | undefined): void;
} = strict as never;

// deno-lint-ignore no-explicit-any -- matches any constructor, abstract ones included
type Constructor<T> = abstract new (...args: any[]) => T;

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg?: string): asserts expr {
  nodeAssert.ok(expr, msg);
}

/** Fails unless both are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.deepStrictEqual(actual, expected, msg);
}

/** Fails if both are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.notDeepStrictEqual(actual, expected, msg);
}

/** Fails unless both are the same value, by Object.is. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  nodeAssert.strictEqual(actual, expected, msg);
}

/** Fails unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.ok(actual > expected, msg ?? `expected ${actual} > ${expected}`);
}

/** Fails unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.ok(actual < expected, msg ?? `expected ${actual} < ${expected}`);
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  nodeAssert.ok(
    actual.includes(expected),
    msg ?? `expected ${JSON.stringify(actual)} to include ${JSON.stringify(expected)}`,
  );
}

/** Fails unless `actual` matches `expected`. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  nodeAssert.match(actual, expected, msg);
}

/** Fails unless `actual` is an instance of `type`. */
export function assertInstanceOf<T>(
  actual: unknown,
  type: Constructor<T>,
  msg?: string,
): asserts actual is T {
  nodeAssert.ok(actual instanceof type, msg ?? `expected an instance of ${type.name}, got ${actual}`);
}

/** Fails unless `fn` throws (an `ErrorClass` whose message includes `msgIncludes`); returns what it threw. */
export function assertThrows(fn: () => unknown): unknown;
export function assertThrows<E extends Error>(
  fn: () => unknown,
  ErrorClass: Constructor<E>,
  msgIncludes?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  ErrorClass?: Constructor<Error>,
  msgIncludes?: string,
): unknown {
  try {
    fn();
  } catch (error) {
    return checkThrown(error, ErrorClass, msgIncludes);
  }
  throw new AssertionError({ message: "expected the function to throw" });
}

/** Fails unless the promise of `fn` rejects (with an `ErrorClass` whose message includes `msgIncludes`); resolves to the error. */
export function assertRejects(fn: () => PromiseLike<unknown>): Promise<unknown>;
export function assertRejects<E extends Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: Constructor<E>,
  msgIncludes?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  ErrorClass?: Constructor<Error>,
  msgIncludes?: string,
): Promise<unknown> {
  try {
    await fn();
  } catch (error) {
    return checkThrown(error, ErrorClass, msgIncludes);
  }
  throw new AssertionError({ message: "expected the promise to reject" });
}

/** Always fails. */
export function fail(msg?: string): never {
  throw new AssertionError({ message: msg ?? "failed" });
}

function checkThrown(error: unknown, ErrorClass?: Constructor<Error>, msgIncludes?: string): unknown {
  if (ErrorClass === undefined) return error;
  assertInstanceOf(error, ErrorClass);
  if (msgIncludes !== undefined) assertStringIncludes(error.message, msgIncludes);
  return error;
}
