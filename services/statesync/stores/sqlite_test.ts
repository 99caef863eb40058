import { storeSuite } from "../testing/store_suite.ts";
import { openSqliteStore } from "./sqlite.ts";

for (const durability of ["always", "interval", "none"] as const) {
  Deno.test(`the SQLite store, durability ${durability}`, (t) =>
    storeSuite(t, async () => {
      const directory = await Deno.makeTempDir({ prefix: "aetherflow-documents-" });
      const store = openSqliteStore({
        path: `${directory}/documents.sqlite`,
        durability,
        intervalMs: 1,
        clock: performance,
      });
      return {
        store,
        async [Symbol.asyncDispose]() {
          await store.close();
          await Deno.remove(directory, { recursive: true });
        },
      };
    }));
}
