/** Questions to a SQLite file whose text depends on what is asked. */
import type { SqlValue } from "../../../storage/sqlite/mod.ts";
import type { DocumentFilter, OperationFilter } from "../store.ts";
import { foldedName } from "./changes.ts";
import { LISTED_COLUMNS, memberLabel, PUBLIC_LABEL, READ_COLUMNS, tagLabel } from "./sqlite_tables.ts";

/** A statement with what is to be bound. */
export interface Query {
  readonly sql: string;
  readonly values: readonly SqlValue[];
}

const LABELLED = "SELECT id FROM labels WHERE label IN (SELECT value FROM json_each(?)) AND id > ?";
/** What begins with a text lies between it and itself with a byte that no UTF-8 has. */
const PREFIXED = `SELECT found.id FROM json_each(?) AS prefix, documents AS found
  WHERE found.id >= prefix.value AND found.id < prefix.value || CAST(X'FF' AS TEXT) AND found.id > ?`;

/** The documents of a list: those whom a label finds are looked up by it, so that a page costs what the caller may see, and
 *  not what there is. */
export function listQuery(filter: DocumentFilter, after: string, limit: number): Query {
  const { type, state, createdBy, tag, name, member, readableBy } = filter;
  const conditions = ["id > ?"];
  const values: SqlValue[] = [after];
  const add = (condition: string, ...bound: SqlValue[]) => {
    conditions.push(condition);
    values.push(...bound);
  };
  if (type !== undefined) add("type = ?", type);
  if (state === undefined) add("state <> 'deleted'");
  else add("state = ?", state);
  if (createdBy !== undefined) add("created_by = ?", createdBy);
  if (name !== undefined) add("instr(folded_name, ?) > 0", foldedName(name));
  if (tag !== undefined) add(`id IN (${LABELLED})`, JSON.stringify([tagLabel(tag)]), after);
  if (member !== undefined) add(`id IN (${LABELLED})`, JSON.stringify(member.map(memberLabel)), after);
  if (readableBy !== undefined) {
    const labels = [PUBLIC_LABEL, ...readableBy.names.map(memberLabel)];
    const prefixes = JSON.stringify(readableBy.idPrefixes);
    add(`id IN (${LABELLED} UNION ALL ${PREFIXED})`, JSON.stringify(labels), after, prefixes, after);
  }
  const sql = `SELECT ${LISTED_COLUMNS} FROM documents WHERE ${conditions.join(" AND ")} ORDER BY id LIMIT ?`;
  return { sql, values: [...values, limit] };
}

/** The operations of a history; its first value, the document, is to be bound before the others. */
export function operationsQuery(filter: OperationFilter, before: number, limit: number): Query {
  const conditions = ["document = ?", "offset < ?", "operation IS NOT NULL"];
  const values: SqlValue[] = [before];
  const add = (condition: string, value: SqlValue | undefined) => {
    if (value === undefined) return;
    conditions.push(condition);
    values.push(value);
  };
  add("user_id = ?", filter.userId);
  add("operation_type = ?", filter.type);
  add("status = ?", filter.status);
  add("at_ms >= ?", filter.fromMs);
  add("at_ms <= ?", filter.toMs);
  add("version >= ?", filter.minVersion);
  add("version <= ?", filter.maxVersion);
  const sql = `SELECT ${READ_COLUMNS} FROM entries WHERE ${conditions.join(" AND ")}
    ORDER BY offset DESC LIMIT ?`;
  return { sql, values: [...values, limit] };
}
