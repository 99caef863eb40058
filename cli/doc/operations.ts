/** `aetherflow doc op|history|undo|conflicts|resolve`: single edits, and where they met others. */
import { attempt, type AuthOptions, pages, usageError, withApi } from "../auth/client.ts";
import { EXIT_ERROR } from "../kv/client.ts";
import { complain, printLine } from "../output.ts";
import {
  type Document,
  documentPath,
  numberOf,
  oneLine,
  type Operation,
  printDocument,
  queryOf,
  readJsonObject,
} from "./client.ts";

/** A conflict, as far as commands print it. */
interface Conflict {
  readonly id: string;
  readonly ops: readonly Operation[];
  readonly targets: readonly string[];
  readonly resolution: string;
  readonly resolvedBy: string;
  readonly description: string;
  readonly detectedAt?: string;
  readonly resolvedAt?: string;
}

/** Who makes the ids of operations unique, when nobody says. */
const CLIENT_ID = "aetherflow-cli";

/** Applies one operation; exits with 1 when it was not applied. */
export async function apply(
  id: string,
  json: string,
  options: AuthOptions & { readonly prevVersion?: string },
): Promise<number> {
  let status = "";
  const code = await attempt(() =>
    withApi(options, async (api) => {
      const given = await readJsonObject("the operation", json);
      const prevVersion = options.prevVersion === undefined
        ? {}
        : { prevVersion: numberOf("--prev-version", options.prevVersion) };
      const answer = await api.call<{ operation: Operation; version: string; repeatedOperation: boolean }>(
        "POST",
        `${documentPath(id)}/operations`,
        { clientId: CLIENT_ID, ...given, ...prevVersion },
      );
      const { operation, version } = answer;
      status = operation.status;
      if (options.json) return printLine(JSON.stringify(answer));
      printLine([operation.id, operation.status, `version ${version}`].join("\t"));
      if (operation.conflictId !== "") {
        complain(`it is in conflict ${operation.conflictId}: aetherflow doc conflicts ${id}`);
      }
    })
  );
  return code === 0 && status !== "applied" && status !== "resolved" ? EXIT_ERROR : code;
}

/** Prints the operations of a document, newest first. */
export function history(
  id: string,
  options: AuthOptions & {
    readonly by?: string;
    readonly type?: string;
    readonly status?: string;
    readonly limit?: string;
  },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const limit = options.limit === undefined ? Infinity : Number(numberOf("--limit", options.limit, 1));
      const pageSize = String(Math.min(limit, 1_000));
      const query = queryOf({ userId: options.by, type: options.type, status: options.status, pageSize });
      let printed = 0;
      const path = `${documentPath(id)}/operations${query}`;
      for await (const operation of pages<Operation>(api, path, "operations")) {
        printLine(options.json ? JSON.stringify(operation) : operationLine(operation));
        if (++printed >= limit) return;
      }
    })
  );
}

/** Takes back the last edits of one user. */
export function undo(
  id: string,
  options: AuthOptions & { readonly of?: string; readonly count?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const count = options.count === undefined ? 1 : Number(numberOf("--count", options.count, 1));
      const { document, undone } = await api.call<{ document: Document; undone: number }>(
        "POST",
        `${documentPath(id)}:undo`,
        { userId: options.of ?? "", count },
      );
      printDocument(document, options);
      if (undone < count) complain(`${undone} of ${count} edits were there to be undone`);
    })
  );
}

/** Prints conflicts, newest first: those that wait, or all. */
export function conflicts(id: string, options: AuthOptions & { readonly all?: boolean }): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const query = queryOf({ open: options.all ? undefined : "true", pageSize: "1000" });
      const path = `${documentPath(id)}/conflicts${query}`;
      for await (const conflict of pages<Conflict>(api, path, "conflicts")) {
        if (options.json) printLine(JSON.stringify(conflict));
        else printConflict(conflict);
      }
    })
  );
}

/** Decides a conflict. */
export function resolve(
  id: string,
  conflictId: string,
  choice: string | undefined,
  options: AuthOptions & { readonly operation?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if ((choice === undefined) === (options.operation === undefined)) {
        throw usageError("expected one of mine, theirs, merge, or else --operation");
      }
      const operation = options.operation === undefined
        ? {}
        : { operation: await readJsonObject("--operation", options.operation) };
      const answer = await api.call<{ conflict: Conflict; version: string }>(
        "POST",
        `${documentPath(id)}/conflicts/${encodeURIComponent(conflictId)}:resolve`,
        { choice: choice ?? "operation", ...operation },
      );
      if (options.json) printLine(JSON.stringify(answer));
      else printLine(`${conflictId}\tresolved by ${answer.conflict.resolvedBy}\tversion ${answer.version}`);
    })
  );
}

/** An operation for people, on one line. */
export function operationLine(operation: Operation): string {
  const { version, type, status, userId } = operation;
  return [version, type, status, oneLine(userId), operation.timestamp ?? "", payloadOf(operation)].join("\t");
}

/** What an operation does, as JSON of its payload. */
function payloadOf({ text, object, cells, comment }: Operation): string {
  const payload = text ?? object ?? cells ?? comment;
  return payload === undefined ? "" : oneLine(JSON.stringify(withoutDefaults(payload)));
}

/** The value without what says nothing: empty texts, lists and objects, zeros and nulls, as the server writes them. */
function withoutDefaults(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDefaults);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, inner]) => [name, withoutDefaults(inner)] as const);
  return Object.fromEntries(entries.filter(([name, inner]) => name === "index" || !saysNothing(inner)));
}

function saysNothing(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length === 0;
  return value === "" || value === 0 || value === false || value === null || value === undefined;
}

function printConflict(conflict: Conflict): void {
  const { id, targets, resolution, resolvedBy, description, detectedAt = "" } = conflict;
  const outcome = resolution === "" ? "waits" : `${resolution} by ${resolvedBy}`;
  printLine([id, outcome, detectedAt, oneLine(targets.join(" ")), oneLine(description)].join("\t"));
  for (const [i, operation] of conflict.ops.entries()) {
    printLine(`  ${i === 0 ? "mine" : "theirs"}\t${operationLine(operation)}`);
  }
}
