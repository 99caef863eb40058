/** Decides whether a concurrent history is linearizable: Wing and Gong's search with Lowe's cache of visited states.
 *
 *  Every operation has the instant it began and the instant its answer came. The history is linearizable if each can be
 *  given one instant between the two at which it happened, so that the model, run in that order, answers as was seen. An
 *  operation without an answer may have happened at any instant after it began, or never.
 *
 *      entries by time:   a( ────── a)          lift the first call whose answer the model gives,
 *                            b( ───────── b)    go on with the rest; at a return that cannot be passed,
 *                               c( ── c)        take the last lift back and try the next call
 */

/** One call of one client. */
export interface Operation<I, O> {
  readonly input: I;
  /** What came back; undefined if nothing did, so that nobody knows whether it happened. */
  readonly output: O | undefined;
  /** When it began and when its answer came, on one clock. `end` means nothing without an output. */
  readonly start: number;
  readonly end: number;
}

/** A sequential specification. States are values: a step makes a new one. */
export interface Model<S, I, O> {
  readonly initial: S;
  /** The state afterwards, or undefined if the operation cannot answer so in this state. An undefined `output` is one that
   *  nobody saw: whatever it would be is right. */
  step(state: S, input: I, output: O | undefined): S | undefined;
  /** Equal keys are equal states. */
  key(state: S): string;
  /** A number that never falls from one state to the next, and the one of the state in which an answer was given. Without
   *  it, unanswered operations would be tried where a later answer shows that there is no room for them. */
  rank(state: S): number;
  rankOf(output: O): number;
}

/** What the search found. "unknown": it was given up after `stepsMax` steps. */
export type Verdict = "linearizable" | "not linearizable" | "unknown";

/** The verdict and, for a history that is not linearizable, how far one can get at most. */
export interface Report<I, O> {
  readonly verdict: Verdict;
  /** Operations in the longest order found. */
  readonly ordered: readonly Operation<I, O>[];
  /** The first answer after those that had to be passed and could not. */
  readonly stuckAt: Operation<I, O> | undefined;
  /** The answer of the lowest rank that has no place then: with a stale read, the read. */
  readonly leftBehind: Operation<I, O> | undefined;
  readonly steps: number;
}

/** Steps after which a search is given up: some ten seconds. Histories of real stores need a few per operation. */
export const STEPS_MAX = 5_000_000;

interface Entry<I, O> {
  readonly id: number;
  readonly operation: Operation<I, O>;
  readonly isReturn: boolean;
  previous: Entry<I, O> | undefined;
  next: Entry<I, O> | undefined;
  /** Of a call: its return; undefined when no answer came. */
  match: Entry<I, O> | undefined;
}

/** Checks one history. Operations may be in any order. */
export function checkLinearizable<S, I, O>(
  model: Model<S, I, O>,
  history: readonly Operation<I, O>[],
  stepsMax = STEPS_MAX,
): Report<I, O> {
  const head = entriesOf(history);
  const answered = history.filter(({ output }) => output !== undefined).length;
  const done = new Uint32Array((history.length + 31) >>> 5);
  const visited = new Set<string>();
  const lifted: { entry: Entry<I, O>; state: S; counts: boolean }[] = [];
  // Answered calls are tried before unanswered ones: which of those happened is a guess.
  let isGuessing = false;
  let state = model.initial;
  let count = 0;
  let steps = 0;
  let best: readonly Operation<I, O>[] = [];
  let stuckAt: Operation<I, O> | undefined;
  let leftBehind: Operation<I, O> | undefined;
  let entry = head.next;

  // Answered operations by rank: the lowest that is not in the order yet bounds the state.
  const byRank = history.map((operation, id) => ({ operation, id }))
    .filter(({ operation }) => operation.output !== undefined)
    .map(({ operation, id }) => ({ id, rank: model.rankOf(operation.output as O) }))
    .sort((a, b) => a.rank - b.rank);
  const placeOf = new Map(byRank.map(({ id }, place) => [id, place]));
  const isDone = (id: number) => (done[id >>> 5]! & (1 << (id & 31))) !== 0;
  let lowest = 0;

  /** Whether every answered operation that is not in the order yet can come after a state of this rank. */
  function hasRoom(rank: number): boolean {
    while (lowest < byRank.length && isDone(byRank[lowest]!.id)) lowest++;
    return lowest === byRank.length || rank <= byRank[lowest]!.rank;
  }

  function undo(id: number): void {
    done[id >>> 5]! &= ~(1 << (id & 31));
    lowest = Math.min(lowest, placeOf.get(id) ?? lowest);
  }

  // Operations without an answer are at the end of the list: nothing waits for them.
  while (count < answered) {
    if (++steps > stepsMax) return { verdict: "unknown", ordered: best, stuckAt, leftBehind, steps };
    if (entry !== undefined && !entry.isReturn) {
      const { operation, id } = entry;
      if ((operation.output === undefined) !== isGuessing) {
        entry = entry.next;
        continue;
      }
      const after = model.step(state, operation.input, operation.output);
      // What nobody saw and what changed nothing need no place.
      const isIdle = operation.output === undefined && after === state;
      if (after !== undefined && !isIdle) {
        done[id >>> 5]! |= 1 << (id & 31);
        if (!hasRoom(model.rank(after))) {
          undo(id);
          entry = entry.next;
          continue;
        }
        const seen = `${done.join()}|${model.key(after)}`;
        if (!visited.has(seen)) {
          visited.add(seen);
          const counts = operation.output !== undefined;
          lifted.push({ entry, state, counts });
          if (counts) count++;
          lift(entry);
          state = after;
          entry = head.next;
          isGuessing = false;
          continue;
        }
        undo(id);
      }
      entry = entry.next;
      continue;
    }
    if (!isGuessing) {
      isGuessing = true;
      entry = head.next;
      continue;
    }
    if (lifted.length > best.length || stuckAt === undefined) {
      best = lifted.map(({ entry }) => entry.operation);
      stuckAt = entry?.operation;
      leftBehind = history[byRank.find(({ id }) => !isDone(id))?.id ?? -1];
    }
    const last = lifted.pop();
    if (last === undefined) return { verdict: "not linearizable", ordered: best, stuckAt, leftBehind, steps };
    unlift(last.entry);
    undo(last.entry.id);
    state = last.state;
    if (last.counts) count--;
    isGuessing = !last.counts;
    entry = last.entry.next;
  }
  return {
    verdict: "linearizable",
    ordered: lifted.map(({ entry }) => entry.operation),
    stuckAt: undefined,
    leftBehind: undefined,
    steps,
  };
}

/** The calls and returns in the order of time, after a head that is none. */
function entriesOf<I, O>(history: readonly Operation<I, O>[]): Entry<I, O> {
  const entries: { time: number; entry: Entry<I, O> }[] = [];
  for (const [id, operation] of history.entries()) {
    const base = { id, operation, previous: undefined, next: undefined, match: undefined };
    const call: Entry<I, O> = { ...base, isReturn: false };
    entries.push({ time: operation.start, entry: call });
    if (operation.output === undefined) continue;
    if (operation.end < operation.start) {
      throw new RangeError("Cannot check: an operation ends before it starts");
    }
    call.match = { ...base, isReturn: true };
    entries.push({ time: operation.end, entry: call.match });
  }
  // At one instant calls come before returns: the operations may have overlapped.
  entries.sort((a, b) => a.time - b.time || Number(a.entry.isReturn) - Number(b.entry.isReturn));
  const head = {
    id: -1,
    isReturn: false,
    previous: undefined,
    next: undefined,
    match: undefined,
  } as unknown as Entry<I, O>;
  let last = head;
  for (const { entry } of entries) {
    last.next = entry;
    entry.previous = last;
    last = entry;
  }
  return head;
}

function lift<I, O>(entry: Entry<I, O>): void {
  for (const one of entry.match === undefined ? [entry] : [entry, entry.match]) {
    one.previous!.next = one.next;
    if (one.next !== undefined) one.next.previous = one.previous;
  }
}

function unlift<I, O>(entry: Entry<I, O>): void {
  for (const one of entry.match === undefined ? [entry] : [entry.match, entry]) {
    one.previous!.next = one;
    if (one.next !== undefined) one.next.previous = one;
  }
}
