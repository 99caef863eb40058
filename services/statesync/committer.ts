/** Group commit: what is decided while the store is busy is written next, together. Nothing is told before it is kept. */
import { StateSyncError } from "./errors.ts";
import type { Change, CommitResult, DocumentStore } from "./store.ts";

/** Changes in one commit: DocumentStore.commit takes no more. */
const GROUP_MAX = 1_000;
/** Bytes of content in one commit, from which on the next change waits for the next one: a store may hold them several times
 *  over while it writes. One change alone is as large as a client's update may be. */
const GROUP_BYTES_MAX = 16 * 1_024 * 1_024;

/** A change on its way to the store. Exactly one of the three is called, once. */
export interface Write {
  readonly change: Change;
  /** It goes to the store now: it changes no more. */
  seal?(): void;
  /** It is kept; its first entry has this sequence. */
  done(sequence: number): void;
  /** It was not written, since somebody else had changed the document, or has taken the id. */
  lost(kind: "behind" | "exists"): void;
  /** It was not written, since the store would not. */
  failed(error: Error): void;
}

/** Figures since the start. */
export interface CommitterFigures {
  readonly commits: number;
  readonly changes: number;
  readonly rejected: number;
  readonly behind: number;
}

/** What it needs. */
export interface CommitterDeps {
  readonly store: Pick<DocumentStore, "commit">;
  /** Runs a function at the end of this turn of the event loop. */
  readonly endOfTurn: (run: () => void) => void;
  /** Told after the writes of a group were told how they ended. */
  readonly onGroup: () => void;
}

/** The queue before the store. It is bounded by the calls that may run at a time, each of which waits for one write, and by
 *  the clients' own bounds. */
export class Committer {
  readonly #deps: CommitterDeps;
  #queue: Write[] = [];
  #isBusy = false;
  #idle: (() => void)[] = [];
  readonly #figures = { commits: 0, changes: 0, rejected: 0, behind: 0 };

  constructor(deps: CommitterDeps) {
    this.#deps = deps;
  }

  /** Writes that wait or are under way. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Adds a change. Those of one document are written in the order they were added. */
  add(write: Write): void {
    this.#queue.push(write);
    if (!this.#isBusy) {
      this.#isBusy = true;
      this.#deps.endOfTurn(this.#commit);
    }
  }

  /** Resolves when nothing waits any more. */
  settled(): Promise<void> {
    if (!this.#isBusy) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  figures(): CommitterFigures {
    return { ...this.#figures };
  }

  readonly #commit = (): void => {
    const group = this.#queue.splice(0, groupSize(this.#queue));
    for (const write of group) write.seal?.();
    this.#figures.commits++;
    this.#figures.changes += group.length;
    let commit: Promise<CommitResult[]>;
    try {
      commit = this.#deps.store.commit(group.map(({ change }) => change));
    } catch (error) {
      commit = Promise.reject(error);
    }
    commit.then((results) => this.#settle(group, results), (error) => this.#reject(group, error))
      .then(this.#next);
  };

  readonly #next = (): void => {
    this.#deps.onGroup();
    if (this.#queue.length > 0) return this.#deps.endOfTurn(this.#commit);
    this.#isBusy = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  };

  #settle(group: readonly Write[], results: readonly CommitResult[]): void {
    const lost = new Map<string, "behind" | "exists">();
    for (let i = 0; i < group.length; i++) {
      const { kind } = results[i]!;
      if (kind !== "done" && !lost.has(group[i]!.change.docId)) lost.set(group[i]!.change.docId, kind);
    }
    // What builds on a change that was not written is to be decided anew with it; taken out before anybody is told, since
    // who is told may add to the queue.
    const dependents = lost.size === 0 ? [] : this.#takeOf(lost);
    for (let i = 0; i < group.length; i++) {
      const result = results[i]!;
      if (result.kind === "done") group[i]!.done(result.sequence);
      else group[i]!.lost(result.kind);
    }
    for (const write of dependents) write.lost("behind");
    this.#figures.behind += group.length - results.filter(({ kind }) => kind === "done").length;
  }

  #reject(group: readonly Write[], cause: unknown): void {
    this.#figures.rejected++;
    const error = cause instanceof StateSyncError
      ? cause
      : new StateSyncError("unavailable", cause instanceof Error ? cause.message : String(cause), { cause });
    const dirty = new Set(group.map(({ change }) => change.docId));
    const dependents = this.#takeOf(dirty);
    for (const write of group) write.failed(error);
    for (const write of dependents) write.failed(error);
  }

  /** Takes the queued writes of these documents out. */
  #takeOf(documents: { has(docId: string): boolean }): Write[] {
    const taken: Write[] = [], rest: Write[] = [];
    for (const write of this.#queue) (documents.has(write.change.docId) ? taken : rest).push(write);
    this.#queue = rest;
    return taken;
  }
}

/** How many writes go together. */
function groupSize(queue: readonly Write[]): number {
  let bytes = 0, size = 0;
  while (size < queue.length && size < GROUP_MAX && bytes < GROUP_BYTES_MAX) {
    for (const { update } of queue[size]!.change.entries) bytes += update?.length ?? 0;
    size++;
  }
  return size;
}
