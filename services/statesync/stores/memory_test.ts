import { storeSuite } from "../testing/store_suite.ts";
import { createMemoryStore } from "./memory.ts";

Deno.test("the memory store", (t) =>
  storeSuite(t, () => {
    const store = createMemoryStore();
    return Promise.resolve({ store, [Symbol.asyncDispose]: () => store.close() });
  }));
