/** Writes whose answers are noted, so that a later life of the store can be held to them. */
import { assert, assertEquals } from "@std/assert";
import type { KvModule } from "../mod.ts";
import type { PutOp } from "../txn.ts";

const KEYS = 8;
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

/** What was answered: of each key the revision and value of the last acknowledged put. */
export interface Told {
  readonly keys: Map<string, { revision: number; value: string }>;
  readonly revisions: Map<number, string>;
}

export function newTold(): Told {
  return { keys: new Map(), revisions: new Map() };
}

export function plainPut(key: string, value: string): PutOp {
  return {
    kind: "put",
    key: bytes(key),
    value: bytes(value),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  };
}

/** Notes an acknowledged put. */
export function note(told: Told, key: string, revision: number, value: string): void {
  assert(!told.revisions.has(revision), `revision ${revision} was given twice`);
  told.revisions.set(revision, value);
  const before = told.keys.get(key);
  if (before === undefined || before.revision < revision) told.keys.set(key, { revision, value });
}

/** Writes in groups until the store stops or all groups are done. Refused writes are not acknowledged: nothing is told. */
export async function writeGroups(
  module: KvModule,
  told: Told,
  random: () => number,
  groups: number,
): Promise<void> {
  for (let group = 0; group < groups && module.service.failure === undefined; group++) {
    const waiting: Promise<void>[] = [];
    for (let i = 0; i < 4; i++) {
      const key = `k${Math.floor(random() * KEYS)}`;
      const value = `${group}.${i}:`.padEnd(Math.floor(random() * 3_000), "x");
      try {
        const done = module.service.put(plainPut(key, value));
        waiting.push(done.then(({ revision }) => note(told, key, revision, value), () => {}));
      } catch {
        // The store has stopped; the loop above ends.
      }
    }
    await Promise.all(waiting);
  }
}

/** Whether everything that was told is there. */
export function checkTold({ service }: KvModule, told: Told): void {
  assert(service.revision >= Math.max(1, ...told.revisions.keys()), "an acknowledged revision is gone");
  for (const [key, { revision, value }] of told.keys) {
    const kv = service.range({ key: bytes(key), range: "single" }).kvs[0];
    assert(kv !== undefined && kv.modRevision >= revision, `the put of ${key} at ${revision} is lost`);
    if (kv.modRevision === revision) assertEquals(text(kv.value), value);
  }
}
