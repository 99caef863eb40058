/** The tables of documents in PostgreSQL, by versions, and the function that writes a group of changes.
 *
 *      documents   one row each; `settled` is JSON of what seldom changes, other columns are for filters
 *      entries     by sequence, and by document and position; of a removed document the one that tells of it stays
 *      snapshots, names, conflicts, locks   of a document; they go with it
 *      totals      one row: the last sequence given, and the newest that was compacted. Who writes holds it until the end of the transaction, so that sequences are
 *                  in the order of commits, over all services
 *
 *  The services tell one another of commits by NOTIFY, in the same transaction. */
import type { Migration } from "../../../storage/postgres/mod.ts";

/** Every version of the tables. */
export const MIGRATIONS: readonly Migration[] = [{
  version: 1,
  name: "documents",
  sql: `
CREATE TABLE documents (
  document bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text COLLATE "C" NOT NULL CONSTRAINT documents_id UNIQUE CHECK (id <> ''),
  type text NOT NULL CHECK (type IN ('whiteboard', 'text', 'canvas', 'sheet')),
  state text NOT NULL CHECK (state IN ('active', 'archived', 'deleted')),
  created_by text NOT NULL,
  folded_name text NOT NULL,
  tags text[] NOT NULL,
  members text[] NOT NULL,
  is_public boolean NOT NULL,
  version bigint NOT NULL CHECK (version >= 1),
  last_position bigint NOT NULL CHECK (last_position >= 1),
  updated_by text NOT NULL,
  updated_ms bigint NOT NULL,
  fencing_token bigint NOT NULL CHECK (fencing_token >= 0),
  open_conflicts integer NOT NULL CHECK (open_conflicts >= 0),
  hlc numeric(20) NOT NULL CHECK (hlc >= 0),
  settled json NOT NULL
);
CREATE INDEX documents_tags ON documents USING gin (tags);
CREATE INDEX documents_members ON documents USING gin (members);
CREATE INDEX documents_public ON documents (id) WHERE is_public;

CREATE TABLE entries (
  sequence bigint PRIMARY KEY,
  document bigint REFERENCES documents ON DELETE CASCADE,
  removed_id text COLLATE "C",
  position bigint NOT NULL CHECK (position >= 1),
  version bigint NOT NULL CHECK (version >= 1),
  is_version boolean NOT NULL,
  type text NOT NULL,
  id text NOT NULL,
  user_id text NOT NULL,
  at_ms bigint NOT NULL,
  operation_type text,
  status text CHECK (status IN ('pending', 'applied', 'conflict', 'rejected', 'resolved')),
  operation_key bytea,
  content bytea,
  operation bytea,
  extra json,
  CONSTRAINT entries_position UNIQUE (document, position),
  CHECK ((document IS NULL) = (removed_id IS NOT NULL)),
  CHECK ((operation IS NULL) = (status IS NULL)),
  CHECK ((operation IS NULL) = (operation_key IS NULL))
);
CREATE UNIQUE INDEX entries_key ON entries (operation_key, document) WHERE operation_key IS NOT NULL;
CREATE INDEX entries_removed ON entries (removed_id) WHERE removed_id IS NOT NULL;

CREATE TABLE snapshots (
  document bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
  position bigint NOT NULL CHECK (position >= 1),
  version bigint NOT NULL CHECK (version >= 1),
  state bytea NOT NULL,
  PRIMARY KEY (document, position)
);
CREATE TABLE names (
  document bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
  version bigint NOT NULL CHECK (version >= 1),
  name json NOT NULL,
  state bytea NOT NULL,
  PRIMARY KEY (document, version)
);
CREATE TABLE conflicts (
  document bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
  id text COLLATE "C" NOT NULL,
  is_open boolean NOT NULL,
  conflict json NOT NULL,
  PRIMARY KEY (document, id)
);
CREATE TABLE locks (
  document bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
  object_id text NOT NULL,
  id text NOT NULL,
  lock json NOT NULL,
  PRIMARY KEY (document, object_id)
);

CREATE TABLE totals (
  is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  epoch text NOT NULL,
  sequence bigint NOT NULL CHECK (sequence >= 0),
  compacted bigint NOT NULL DEFAULT 0 CHECK (compacted >= 0)
);
INSERT INTO totals (epoch, sequence) VALUES (gen_random_uuid()::text, 0);

-- Writes a group, if every document is where the writer thinks it is, and answers with the sequence before its first entry;
-- with NULL, and without a trace, otherwise. Every row is found by an index: plans are made while the tables are small, and
-- stay when they are not.
CREATE FUNCTION write_group(
  expected json, removed text[], made json, changed json, entry_count bigint, kept_entries json, contents bytea[],
  operations bytea[], removals json, statuses json, gone_locks json, put_locks json, put_conflicts json,
  gone_names json, put_names json, name_states bytea[], origin text
) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $function$
DECLARE
  base bigint;
BEGIN
  -- In the order of ids, so that two groups never wait for one another.
  PERFORM FROM documents
    WHERE id IN (SELECT e.id FROM json_to_recordset(expected) AS e(id text)) ORDER BY id FOR UPDATE;
  IF EXISTS (
    SELECT FROM json_to_recordset(expected) AS e(id text, position bigint)
    LEFT JOIN documents USING (id) WHERE coalesce(documents.last_position, 0) <> e.position
  ) THEN RETURN NULL; END IF;

  DELETE FROM documents WHERE id = ANY (removed);
  INSERT INTO documents (id, type, state, created_by, folded_name, tags, members, is_public, version,
      last_position, updated_by, updated_ms, fencing_token, open_conflicts, hlc, settled)
    SELECT id, type, state, created_by, folded_name, tags, members, is_public, version, last_position,
      updated_by, updated_ms, fencing_token, open_conflicts, hlc, settled::json
    FROM json_to_recordset(made) AS m(id text, type text, state text, created_by text, folded_name text, tags text[], members text[],
      is_public boolean, version bigint, last_position bigint, updated_by text, updated_ms bigint,
      fencing_token bigint, open_conflicts integer, hlc numeric, settled text);

  UPDATE totals SET sequence = sequence + entry_count RETURNING sequence - entry_count INTO base;
  INSERT INTO entries (sequence, document, position, version, is_version, type, id, user_id, at_ms,
      operation_type, status, operation_key, content, operation, extra)
    SELECT base + e.place, d.document, e.position, e.version,
      e.version > coalesce(
        lag(e.version) OVER (PARTITION BY e.doc_id ORDER BY e.position),
        CASE WHEN e.position = 1 THEN 0 ELSE d.version END
      ),
      e.type, e.id, e.user_id, e.at_ms, e.operation_type, e.status, decode(e.operation_key, 'hex'), e.content,
      e.operation, e.extra::json
    FROM ROWS FROM (
      json_to_recordset(kept_entries) AS (place bigint, doc_id text, position bigint, version bigint, type text,
        id text, user_id text, at_ms bigint, operation_type text, status text, operation_key text, extra text),
      unnest(contents), unnest(operations)
    ) AS e(place, doc_id, position, version, type, id, user_id, at_ms, operation_type, status, operation_key,
      extra, content, operation)
    JOIN documents AS d ON d.id = e.doc_id;
  INSERT INTO entries (sequence, removed_id, position, version, is_version, type, id, user_id, at_ms, extra)
    SELECT base + r.place, r.doc_id, r.position, r.version, false, r.type, r.id, r.user_id, r.at_ms, r.extra::json
    FROM json_to_recordset(removals) AS r(place bigint, doc_id text, position bigint, version bigint,
      type text, id text, user_id text, at_ms bigint, extra text);
  UPDATE documents AS d SET type = c.type, state = c.state, created_by = c.created_by,
      folded_name = c.folded_name, tags = c.tags, members = c.members, is_public = c.is_public,
      version = c.version, last_position = c.last_position, updated_by = c.updated_by,
      updated_ms = c.updated_ms, fencing_token = c.fencing_token, open_conflicts = c.open_conflicts,
      hlc = c.hlc, settled = c.settled::json
    FROM json_to_recordset(changed) AS c(id text, type text, state text, created_by text, folded_name text, tags text[], members text[],
      is_public boolean, version bigint, last_position bigint, updated_by text, updated_ms bigint,
      fencing_token bigint, open_conflicts integer, hlc numeric, settled text)
    WHERE d.id = c.id;
  UPDATE entries SET status = s.status FROM json_to_recordset(statuses) AS s(id text, position bigint, status text)
    JOIN documents AS d USING (id)
    WHERE entries.document = d.document AND entries.position = s.position AND operation IS NOT NULL;

  DELETE FROM locks USING json_to_recordset(gone_locks) AS g(doc_id text, id text, object_id text), documents AS d
    WHERE d.id = g.doc_id AND locks.document = d.document AND (locks.id = g.id OR locks.object_id = g.object_id);
  INSERT INTO locks (document, object_id, id, lock)
    SELECT d.document, p.object_id, p.id, p.lock::json
    FROM json_to_recordset(put_locks) AS p(doc_id text, object_id text, id text, lock text)
    JOIN documents AS d ON d.id = p.doc_id
    ON CONFLICT (document, object_id) DO UPDATE SET id = excluded.id, lock = excluded.lock;
  INSERT INTO conflicts (document, id, is_open, conflict)
    SELECT d.document, p.id, p.is_open, p.conflict::json
    FROM json_to_recordset(put_conflicts) AS p(doc_id text, id text, is_open boolean, conflict text)
    JOIN documents AS d ON d.id = p.doc_id
    ON CONFLICT (document, id) DO UPDATE SET is_open = excluded.is_open, conflict = excluded.conflict;
  DELETE FROM names USING json_to_recordset(gone_names) AS g(doc_id text, version bigint), documents AS d
    WHERE d.id = g.doc_id AND names.document = d.document AND names.version = g.version;
  INSERT INTO names (document, version, name, state)
    SELECT d.document, p.version, p.name::json, p.state
    FROM ROWS FROM (
      json_to_recordset(put_names) AS (doc_id text, version bigint, name text), unnest(name_states)
    ) AS p(doc_id, version, name, state)
    JOIN documents AS d ON d.id = p.doc_id
    ON CONFLICT (document, version) DO UPDATE SET name = excluded.name, state = excluded.state;

  PERFORM pg_notify(
      current_schema(),
      json_build_array(origin, e.id, coalesce(d.last_position, 0), base + e.last_place)::text
    )
    FROM json_to_recordset(expected) AS e(id text, last_place bigint)
    LEFT JOIN documents AS d USING (id) WHERE e.last_place IS NOT NULL ORDER BY e.last_place;
  RETURN base;
END $function$;
`,
}];
