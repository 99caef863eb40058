import { assertEquals } from "@std/assert";
import { Committer, type Write } from "./committer.ts";
import { StateSyncError } from "./errors.ts";
import type { Change, CommitResult } from "./store.ts";
import { entryOf } from "./testing/builders.ts";

/** A committer on a store that answers what it is told to, and what was told in which order. */
function open() {
  const told: string[] = [];
  const turns: (() => void)[] = [];
  const commits: { changes: readonly Change[]; answer(results: CommitResult[] | Error): void }[] = [];
  const committer = new Committer({
    store: {
      commit: (changes) =>
        new Promise((resolve, reject) =>
          commits.push({
            changes,
            answer: (results) => results instanceof Error ? reject(results) : resolve(results),
          })
        ),
    },
    endOfTurn: (run) => void turns.push(run),
    onGroup: () => told.push("group"),
  });
  const write = (docId: string, offset: number, onLost?: () => void, bytes = 0): Write => ({
    change: {
      docId,
      baseOffset: offset,
      record: undefined,
      entries: bytes === 0 ? [] : [entryOf(docId, offset + 1, { update: new Uint8Array(bytes) })],
    },
    seal: () => told.push(`seal ${docId}${offset}`),
    done: (sequence) => told.push(`${docId}${offset} at ${sequence}`),
    lost: (kind) => {
      told.push(`${docId}${offset} ${kind}`);
      onLost?.();
    },
    failed: (error) => told.push(`${docId}${offset} ${(error as StateSyncError).kind}`),
  });
  return {
    committer,
    told,
    write,
    turn: () => turns.splice(0).forEach((run) => run()),
    /** Answers the commit under way, and waits until it is told. */
    async answer(results: CommitResult[] | Error) {
      commits.shift()!.answer(results);
      for (let i = 0; i < 5; i++) await Promise.resolve();
      return told.splice(0);
    },
    sizes: () => commits.map(({ changes }) => changes.length),
  };
}

const done = (sequence: number): CommitResult => ({ kind: "done", sequence });

Deno.test("Committer writes what came meanwhile together, in order, one commit at a time", async () => {
  const { committer, write, turn, answer, sizes, told } = open();
  committer.add(write("a", 1));
  committer.add(write("b", 1));
  assertEquals(sizes(), []);
  turn();
  assertEquals([sizes(), told.splice(0)], [[2], ["seal a1", "seal b1"]]);
  committer.add(write("a", 2));
  turn();
  assertEquals(sizes(), [2]);
  assertEquals(await answer([done(7), done(8)]), ["a1 at 7", "b1 at 8", "group"]);
  turn();
  assertEquals(await answer([done(9)]), ["seal a2", "a2 at 9", "group"]);
  await committer.settled();
  assertEquals(committer.figures(), { commits: 2, changes: 3, rejected: 0, behind: 0 });
});

Deno.test("Committer writes large changes in several commits", async () => {
  const { committer, write, turn, answer, sizes } = open();
  for (const docId of ["a", "b", "c"]) committer.add(write(docId, 1, undefined, 10_000_000));
  turn();
  assertEquals(sizes(), [2]);
  await answer([done(1), done(2)]);
  turn();
  assertEquals(sizes(), [1]);
  await answer([done(3)]);
  await committer.settled();
});

Deno.test("Committer gives back what builds on a change that was not written, and nothing that comes after", async () => {
  const { committer, write, turn, answer } = open();
  committer.add(write("a", 1, () => committer.add(write("a", 9))));
  committer.add(write("b", 1));
  turn();
  committer.add(write("a", 2));
  committer.add(write("b", 2));
  assertEquals(await answer([{ kind: "behind" }, done(3)]), [
    "seal a1",
    "seal b1",
    "a1 behind",
    "b1 at 3",
    "a2 behind",
    "group",
  ]);
  turn();
  assertEquals(await answer([done(4), done(5)]), ["seal b2", "seal a9", "b2 at 4", "a9 at 5", "group"]);
});

Deno.test("Committer fails a group that the store would not write, and what builds on it", async () => {
  const { committer, write, turn, answer } = open();
  committer.add(write("a", 1));
  turn();
  committer.add(write("a", 2));
  committer.add(write("b", 1));
  assertEquals(await answer(new StateSyncError("readOnly")), [
    "seal a1",
    "a1 readOnly",
    "a2 readOnly",
    "group",
  ]);
  turn();
  assertEquals(await answer(new Error("no such table")), ["seal b1", "b1 unavailable", "group"]);
  assertEquals(committer.figures().rejected, 2);
});

Deno.test("Committer takes no more changes at once than a store does", async () => {
  const { committer, write, turn, answer, sizes } = open();
  for (let i = 1; i <= 1_500; i++) committer.add(write("a", i));
  turn();
  assertEquals([sizes(), committer.queued], [[1_000], 500]);
  await answer(Array.from({ length: 1_000 }, (_, i) => done(i + 1)));
  turn();
  assertEquals([sizes(), committer.queued], [[500], 0]);
});
