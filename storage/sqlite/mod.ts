/** SQLite files with one owner each: opening, transactions, errors. */
export {
  Database,
  type DatabaseOptions,
  openDatabase,
  type SqlRow,
  type SqlValue,
  Statement,
} from "./database.ts";
export { SqliteError, type SqliteErrorCode } from "./errors.ts";
