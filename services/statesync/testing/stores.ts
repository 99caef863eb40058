/** Stores for tests of what happens around one: shared by several services, or refusing. */
import type { Change, CommitResult, DocumentStore } from "../store.ts";

/** Views of one store, one for each service that shares it: each is told of what the others write, `delay` later. */
export function sharedViews(
  store: DocumentStore,
  count: number,
  delay: (tell: () => void) => void = (tell) => tell(),
): DocumentStore[] {
  const views: DocumentStore[] = [];
  for (let i = 0; i < count; i++) {
    views.push(
      new Proxy(store, {
        get(target, name) {
          if (name === "onForeign" || name === "onForeignGap") return handlers[name];
          if (name === "commit") return commit;
          if (name === "close") return () => Promise.resolve();
          const value = Reflect.get(target, name);
          return typeof value === "function" ? later(value.bind(target)) : value;
        },
        set(_target, name, value) {
          handlers[name as keyof typeof handlers] = value;
          return true;
        },
      }),
    );
    const handlers: Pick<DocumentStore, "onForeign" | "onForeignGap"> = {
      onForeign: () => {},
      onForeignGap: () => {},
    };
    const commit = async (changes: readonly Change[]): Promise<CommitResult[]> => {
      await Promise.resolve();
      const results = await store.commit(changes);
      for (const [at, result] of results.entries()) {
        if (result.kind !== "done") continue;
        const { docId, record } = changes[at]!;
        for (const view of views) {
          if (view !== views[i]) delay(() => view.onForeign(docId, record?.offset ?? 0, result.sequence));
        }
      }
      return results;
    };
  }
  return views;
}

/** As the function, answering later: a store that is asked over a network. */
function later(run: (...args: unknown[]) => unknown): (...args: unknown[]) => unknown {
  return async (...args) => {
    await Promise.resolve();
    return await run(...args);
  };
}

/** Lets commits of a store fail: those for which `error` gives something. */
export function failingCommits(store: DocumentStore, error: () => Error | undefined): DocumentStore {
  const commit = store.commit.bind(store);
  store.commit = async (changes) => {
    const failure = error();
    if (failure !== undefined) throw failure;
    return await commit(changes);
  };
  return store;
}
