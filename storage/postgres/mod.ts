/** PostgreSQL servers: a pool with answers or errors in time, migrations, notices. */
export {
  arrayText,
  bytesArrayText,
  originalText,
  PostgresClient,
  type PostgresOptions,
  type PostgresRow,
  type PostgresValue,
  storableText,
} from "./client.ts";
export { PostgresError, type PostgresErrorCode } from "./errors.ts";
export { type ListenerHandlers, openListener, PostgresListener } from "./listener.ts";
export { migrate, type Migration } from "./migrations.ts";
