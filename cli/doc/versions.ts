/** `aetherflow doc versions|diff|name|unname`: what a document was. */
import { attempt, type AuthOptions, pages, withApi } from "../auth/client.ts";
import { complain, printLine } from "../output.ts";
import { documentPath, numberOf, oneLine, queryOf, valueText } from "./client.ts";

/** One change of a document. */
interface Version {
  readonly version: string;
  readonly name: string;
  readonly authors: readonly string[];
  readonly createdAt?: string;
  readonly change: string;
}

/** What two versions differ in. */
interface Diff {
  readonly from: string;
  readonly to: string;
  readonly text: readonly { readonly kind: string; readonly text: string; readonly userId: string }[];
  readonly changes: readonly {
    readonly target: string;
    readonly before?: unknown;
    readonly after?: unknown;
    readonly userId: string;
  }[];
}

/** Prints versions, newest first. */
export function list(
  id: string,
  options: AuthOptions & { readonly named?: boolean; readonly limit?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const limit = options.limit === undefined ? Infinity : Number(numberOf("--limit", options.limit, 1));
      const pageSize = String(Math.min(limit, 1_000));
      const query = queryOf({ named: options.named ? "true" : undefined, pageSize });
      let printed = 0;
      for await (const version of pages<Version>(api, `${documentPath(id)}/versions${query}`, "versions")) {
        if (options.json) printLine(JSON.stringify(version));
        else printLine(versionLine(version));
        if (++printed >= limit) return;
      }
    })
  );
}

/** Prints what changed from one version to another, with who changed it. */
export function diff(
  id: string,
  from: string,
  to: string | undefined,
  options: AuthOptions,
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const query = queryOf({
        from: numberOf("the first version", from, 1),
        to: to === undefined ? undefined : numberOf("the second version", to, 1),
      });
      const found = await api.call<Diff>("GET", `${documentPath(id)}/versions:diff${query}`);
      if (options.json) return printLine(JSON.stringify(found));
      for (const line of diffLines(found.text)) printLine(line);
      for (const { target, before, after, userId } of found.changes) {
        printLine(
          [oneLine(target), `${valueText(before)} → ${valueText(after)}`, oneLine(userId)].join("\t"),
        );
      }
    })
  );
}

/** Gives a version a name, so that it is kept; the present one when none is given. */
export function name(
  id: string,
  name: string,
  options: AuthOptions & { readonly version?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { version } = await api.call<{ version: Version }>("POST", `${documentPath(id)}/versions`, {
        version: options.version === undefined ? "0" : numberOf("--version", options.version, 1),
        name,
      });
      printLine(options.json ? JSON.stringify(version) : versionLine(version));
    })
  );
}

/** Takes a version's name. */
export function unname(id: string, version: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const path = `${documentPath(id)}/versions/${numberOf("the version", version, 1)}`;
      const { deleted } = await api.call<{ deleted: boolean }>("DELETE", path);
      if (options.json) printLine(JSON.stringify({ id, version, deleted }));
      else if (!deleted) complain(`version ${version} had no name`);
    })
  );
}

function versionLine({ version, name, authors, createdAt = "", change }: Version): string {
  return [version, createdAt, change, oneLine(authors.join(", ")), oneLine(name)].join("\t");
}

/** Sign of each kind of piece. */
const SIGNS: Readonly<Record<string, string>> = { same: " ", inserted: "+", deleted: "-" };

/** A text's pieces as lines: what stayed, with what was inserted as `{+…+ by}` and deleted as `{-…- by}` in their place. */
function diffLines(pieces: Diff["text"]): string[] {
  if (pieces.length === 0) return [];
  const text = pieces.map((piece) => {
    const sign = SIGNS[piece.kind] ?? "?";
    if (sign === " ") return piece.text;
    return `{${sign}${piece.text}${sign}${piece.userId === "" ? "" : ` ${piece.userId}`}}`;
  }).join("");
  return text.split("\n").map((line) => oneLine(line));
}
