/** Tables with versions: each migration is one transaction, done once, whoever starts first. */
import {
  answerInTime,
  type Connections,
  connectionsOf,
  endConnections,
  type PostgresOptions,
} from "./client.ts";
import { PostgresError } from "./errors.ts";

/** A step from one version to the next. Migrations are numbered 1, 2, 3, … and never change once they are released. */
export interface Migration {
  readonly version: number;
  /** What it is for, in a few words. */
  readonly name: string;
  /** Statements, in the schema. */
  readonly sql: string;
}

/** Number of the advisory lock that one program at a time holds while it migrates; those of other schemas wait too. */
const LOCK = 0x6166_6d67;

/** Brings the schema to the newest version, and makes it when it is missing; returns how many migrations were done.
 *  Rejects with a PostgresError, `version` when the schema is newer than the migrations. */
export async function migrate(options: PostgresOptions, migrations: readonly Migration[]): Promise<number> {
  // The lock belongs to a connection: it ends with it, whatever happens.
  const connection = connectionsOf(options, 1);
  try {
    return await migrateLocked(connection, options, migrations);
  } finally {
    await endConnections(connection);
  }
}

async function migrateLocked(
  connection: Connections,
  { schema, statementTimeoutMs }: PostgresOptions,
  migrations: readonly Migration[],
): Promise<number> {
  const run = (sql: string) => answerInTime(connection.unsafe(sql), statementTimeoutMs);
  await run(`SELECT pg_advisory_lock(${LOCK})`);
  await run(`CREATE SCHEMA IF NOT EXISTS "${schema}"`);
  await run(`CREATE TABLE IF NOT EXISTS schema_migrations(
    version integer PRIMARY KEY, name text NOT NULL, migrated_at timestamptz NOT NULL DEFAULT now())`);
  const [row] = await run("SELECT coalesce(max(version), 0) AS version FROM schema_migrations");
  const present = row!.version as number;
  const newest = migrations.length;
  if (present > newest) {
    throw new PostgresError(
      "version",
      `schema ${schema} has version ${present}, this program knows ${newest}: use the newer program`,
    );
  }
  for (const { version, name, sql } of migrations.slice(present)) {
    // Several statements of one message are one transaction.
    await run(`${sql};
      INSERT INTO schema_migrations (version, name) VALUES (${version}, '${name.replaceAll("'", "''")}')`);
  }
  return newest - present;
}
