import { storeSuite } from "../testing/store_suite.ts";
import { createMemoryStore } from "./memory.ts";
import { tracedStore } from "./traced.ts";

Deno.test("the memory store", (t) =>
  storeSuite(t, () => {
    const store = createMemoryStore();
    return Promise.resolve({ store, [Symbol.asyncDispose]: () => store.close() });
  }));

Deno.test("the memory store, traced", (t) =>
  storeSuite(t, () => {
    const store = tracedStore(createMemoryStore({ epoch: "e" }), "memory");
    return Promise.resolve({ store, [Symbol.asyncDispose]: () => store.close() });
  }));
