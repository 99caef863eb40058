/** The PostgreSQL store on a real server, alone and with others beside it, through its death and return. */
import { POSTGRES_LOGIN, type Server, startPostgres } from "../../../tests/support/server.ts";
import type { DocumentStore } from "../store.ts";
import { storeSuite } from "../testing/store_suite.ts";
import { openPostgresStore, type PostgresStoreOptions } from "./postgres.ts";

let schemas = 0;

interface Opened extends AsyncDisposable {
  readonly store: DocumentStore;
  readonly schema: string;
}

/** An empty store: its schema is nobody else's, unless one is given. */
async function open(
  server: Server,
  more: Partial<PostgresStoreOptions["postgres"]> = {},
): Promise<Opened> {
  const schema = more.schema ?? `test_${++schemas}`;
  const store = await openPostgresStore({
    postgres: {
      host: "127.0.0.1",
      port: server.port,
      ...POSTGRES_LOGIN,
      connections: 4,
      statementTimeoutMs: 10_000,
      ssl: "disable",
      ...more,
      schema,
    },
    clock: performance,
  });
  return { store, schema, [Symbol.asyncDispose]: () => store.close() };
}

Deno.test("the PostgreSQL store", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await storeSuite(t, () => open(server));
});
