/** Generators of keys, ranges, queries and writes, small enough to collide often. */
import fc from "fast-check";
import { type KeyRange, rangeOf } from "../key.ts";
import type { RangeQuery } from "../mvcc.ts";

/** Keys of 1 to 3 bytes out of four, the smallest and largest byte among them. */
export const aKey: fc.Arbitrary<Uint8Array> = fc
  .array(fc.constantFrom(0x00, 0x61, 0x62, 0xff), { minLength: 1, maxLength: 3 })
  .map((bytes) => Uint8Array.from(bytes));

export const aValue: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.constant(new Uint8Array(0)),
  fc.array(fc.constantFrom(1, 2, 3), { minLength: 1, maxLength: 3 }).map((bytes) => Uint8Array.from(bytes)),
  fc.integer({ min: 1, max: 400 }).map((length) => new Uint8Array(length).fill(length & 0xff)),
);

export interface Keys {
  readonly key: Uint8Array;
  readonly range: KeyRange | "single";
}

/** One key, a range (also an empty or inverted one), or everything from a key on. */
export const someKeys: fc.Arbitrary<Keys> = fc.oneof(
  aKey.map((key): Keys => ({ key, range: "single" })),
  fc.tuple(aKey, aKey).map(([key, end]): Keys => ({ key, range: rangeOf(key, end) })),
  aKey.map((key): Keys => ({ key, range: { start: key, end: undefined } })),
);

export type Write =
  | { readonly kind: "put"; readonly key: Uint8Array; readonly value: Uint8Array; readonly lease: bigint }
  | { readonly kind: "delete"; readonly keys: Keys };

export const aWrite: fc.Arbitrary<Write> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("put" as const),
      key: aKey,
      value: aValue,
      lease: fc.constantFrom(0n, 0n, 7n, 0x7fff_ffff_ffff_ffffn),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("delete" as const), keys: someKeys }) },
);

/** A query without its revision, which depends on the store. */
export const aQuery: fc.Arbitrary<RangeQuery> = fc
  .tuple(
    someKeys,
    fc.record({
      limit: fc.constantFrom(0, 0, 1, 2, 5),
      sortTarget: fc.constantFrom("key", "key", "version", "create", "mod", "value"),
      keysOnly: fc.boolean(),
      countOnly: fc.constantFrom(false, false, false, true),
      minModRevision: fc.constantFrom(0, 0, 0, 3, 8),
      maxModRevision: fc.constantFrom(0, 0, 0, 5, 12),
      minCreateRevision: fc.constantFrom(0, 0, 0, 3, 8),
      maxCreateRevision: fc.constantFrom(0, 0, 0, 5, 12),
    }),
    fc.constantFrom(undefined, undefined, "ascend", "descend"),
  )
  .map(([keys, options, sortOrder]) => ({
    ...keys,
    ...options,
    ...(sortOrder === undefined ? {} : { sortOrder }),
  } as RangeQuery));
