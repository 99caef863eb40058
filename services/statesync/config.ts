/** The document worker's part of the configuration, under the key `statesync`. */
import { z } from "zod";
import { CONFLICT_POLICIES } from "./records.ts";

const postgres = z.strictObject({
  host: z.string().min(1).default("127.0.0.1").describe("Host of the PostgreSQL server."),
  port: z.int().min(1).max(65_535).default(5432).describe("Its port."),
  database: z.string().min(1).default("aetherflow").describe("Name of the database, which must exist."),
  username: z.string().min(1).default("aetherflow").describe("Role to connect as."),
  password: z.string().default("").describe("Its password; empty: none is sent."),
  schema: z.string().regex(/^[a-z_][a-z0-9_]{0,62}$/, "expected a lower-case name").default("aetherflow")
    .describe("Schema of the tables; made when missing."),
  connections: z.int().min(2).max(100).default(8).describe("Connections to the server at most."),
  statementTimeoutMs: z.int().min(100).max(600_000).default(10_000).describe(
    "Time for one statement, in milliseconds; the server ends it then.",
  ),
  ssl: z.enum(["disable", "require"]).default("disable").describe(
    "Whether connections are encrypted; with `require` the server's certificate is checked.",
  ),
}).prefault({});

/** Schema of `statesync`: every key has a default, a range and a description. */
export const statesyncConfigSchema = z.strictObject({
  engine: z.enum(["sqlite", "memory", "postgres"]).default("sqlite").describe(
    "Where documents are kept: an embedded database, memory (gone at a restart), or PostgreSQL.",
  ),
  durability: z.enum(["always", "interval", "none"]).default("always").describe(
    "When what the embedded database was told is on disk: before it is acknowledged, every intervalMs, or when the system likes.",
  ),
  intervalMs: z.int().min(1).max(60_000).default(100).describe(
    "How often the embedded database is synced with durability `interval`, in milliseconds.",
  ),
  conflictPolicy: z.enum(CONFLICT_POLICIES).default("merge").describe(
    "What happens to an operation on a stale version, unless the document says otherwise.",
  ),
  lockTtlMs: z.int().min(1_000).max(3_600_000).default(30_000).describe(
    "How long a lock is held unless its owner asks for another time, in milliseconds.",
  ),
  maxUpdateBytes: z.int().min(1_024).max(4_000_000).default(1_048_576).describe(
    "Bytes of one update of a synchronising client.",
  ),
  maxUpdateStructs: z.int().min(100).max(10_000_000).default(200_000).describe(
    "Structs (items, ranges of deletions) that one update may announce.",
  ),
  maxDocumentBytes: z.int().min(65_536).max(1_073_741_824).default(67_108_864).describe(
    "Bytes of a document's encoded state; edits beyond are refused.",
  ),
  openBytesMax: z.int().min(1_048_576).max(17_179_869_184).default(268_435_456).describe(
    "Bytes of encoded state of documents kept open in memory; those unused for longest are closed first.",
  ),
  subscribersMax: z.int().min(1).max(1_000_000).default(10_000).describe("Subscribers of events at a time."),
  snapshotEveryEntries: z.int().min(10).max(100_000).default(500).describe(
    "Edits after which a document's content is kept anew, so that opening it reads no more than these.",
  ),
  historyEntries: z.int().min(100).max(10_000_000).default(10_000).describe(
    "Entries of a document's history kept at least; older ones are compacted, named versions stay.",
  ),
  postgres,
}).prefault({});

/** Validated configuration of the document worker. */
export type StatesyncConfig = z.output<typeof statesyncConfigSchema>;

/** The addresses that the worker talks to besides its peers. */
export function postgresAddresses(
  { engine, postgres }: StatesyncConfig,
): { hostname: string; port: number }[] {
  return engine === "postgres" ? [{ hostname: postgres.host, port: postgres.port }] : [];
}
