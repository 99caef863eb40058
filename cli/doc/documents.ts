/** `aetherflow doc create|list|get|show|edit|set|share|archive|delete …`: documents as a whole. */
import { type Api, ApiError, attempt, type AuthOptions, pages, usageError, withApi } from "../auth/client.ts";
import { complain, printBytes, printLine } from "../output.ts";
import {
  type Document,
  documentPath,
  numberOf,
  oneLine,
  type Permissions,
  printDocument,
  queryOf,
  readable,
  readSource,
} from "./client.ts";

/** What may be said of a document when it is made, and later. */
export interface DescribeOptions extends AuthOptions {
  readonly name?: string;
  readonly description?: string;
  readonly tag: readonly string[];
  readonly property: readonly string[];
  readonly policy?: string;
}

/** Whom a document is shared with. */
export interface ShareOptions extends AuthOptions {
  readonly editor: readonly string[];
  readonly commenter: readonly string[];
  readonly viewer: readonly string[];
  /** True: everybody may read; false: not any more. */
  readonly public?: boolean;
}

const PERMISSIONS_NONE: Permissions = { owner: "", editors: [], commenters: [], viewers: [], public: false };

/** Makes a document and prints its id. */
export function create(
  options: DescribeOptions & ShareOptions & {
    readonly type: string;
    readonly id?: string;
    readonly from?: string;
  },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const content = options.from === undefined ? "" : (await readSource(options.from)).toBase64();
      const { document } = await api.call<{ document: Document }>("POST", "/api/v1/documents", {
        type: options.type,
        name: options.name ?? "",
        docId: options.id ?? "",
        conflictPolicy: options.policy ?? "",
        content,
        metadata: {
          tags: options.tag,
          description: options.description ?? "",
          properties: propertiesOf(options.property),
          permissions: withShares(PERMISSIONS_NONE, options),
        },
      });
      if (options.json) printDocument(document, options);
      else printLine(document.id);
    })
  );
}

/** Prints the documents that the caller may read, by id. */
export function list(
  options: AuthOptions & {
    readonly type?: string;
    readonly state?: string;
    readonly by?: string;
    readonly of?: string;
    readonly tag?: string;
    readonly name?: string;
  },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { type, state, tag, name, by: createdBy, of: userId } = options;
      const query = queryOf({ type, state, tag, name, createdBy, userId, pageSize: "1000" });
      for await (const document of pages<Document>(api, `/api/v1/documents${query}`, "documents")) {
        if (options.json) printLine(JSON.stringify(readable(document)));
        else {
          const marks = document.state === "active" ? "" : ` (${document.state})`;
          printLine(
            [document.id, document.type, document.version, oneLine(document.name) + marks].join("\t"),
          );
        }
      }
    })
  );
}

/** Prints a document's content as it is: now, or as it was. */
export function get(
  id: string,
  options: AuthOptions & { readonly version?: string; readonly at?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if (options.version !== undefined && options.at !== undefined) {
        throw usageError("either --version or --at is expected");
      }
      if (options.version === undefined && options.at === undefined) {
        const { document } = await api.call<{ document: Document }>("GET", documentPath(id));
        if (options.json) printLine(JSON.stringify(readable(document)));
        else printBytes(Uint8Array.fromBase64(document.content));
        return;
      }
      const place = options.version === undefined
        ? `versions:at${queryOf({ at: timeOf(options.at!) })}`
        : `versions/${numberOf("--version", options.version, 1)}`;
      const answer = await api.call<{ content: string; version: Record<string, unknown> }>(
        "GET",
        `${documentPath(id)}/${place}`,
      );
      const bytes = Uint8Array.fromBase64(answer.content);
      if (!options.json) return printBytes(bytes);
      printLine(JSON.stringify({ id, ...answer.version, content: new TextDecoder().decode(bytes) }));
    })
  );
}

/** Prints everything but a document's content. */
export function show(id: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { document } = await api.call<{ document: Document }>(
        "GET",
        `${documentPath(id)}?withoutContent=true`,
      );
      const { access } = await api.call<{ access: string }>("GET", `${documentPath(id)}/access`);
      if (options.json) return printLine(JSON.stringify({ ...readable(document), access }));
      printLine(`id\t${document.id}`);
      printLine(`name\t${oneLine(document.name)}`);
      printLine(`type\t${document.type}`);
      printLine(`state\t${document.state}`);
      printLine(`version\t${document.version}`);
      printLine(`created\t${document.createdAt ?? ""} by ${document.createdBy}`);
      printLine(`updated\t${document.updatedAt ?? ""} by ${document.updatedBy}`);
      printLine(`policy\t${document.conflictPolicy}`);
      printLine(`conflicts\t${document.openConflicts}`);
      printLine(`your access\t${access}`);
      for (const user of document.activeUsers) printLine(`here\t${user}`);
      for (const tag of document.metadata?.tags ?? []) printLine(`tag\t${oneLine(tag)}`);
      if (document.metadata?.description) printLine(`description\t${oneLine(document.metadata.description)}`);
      for (const [name, value] of Object.entries(document.metadata?.properties ?? {})) {
        printLine(`property\t${oneLine(`${name}=${value}`)}`);
      }
      printPermissions(document.metadata?.permissions ?? PERMISSIONS_NONE);
    })
  );
}

/** Replaces a document's content by that of a file; the server makes the least edit that leads to it. */
export function edit(
  id: string,
  options: AuthOptions & { readonly from: string; readonly ifVersion?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const content = (await readSource(options.from)).toBase64();
      printDocument(await update(api, id, { content }, "content", options.ifVersion), options);
    })
  );
}

/** Changes what is said of a document. */
export function set(id: string, options: DescribeOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const mask = [
        ...(options.name === undefined ? [] : ["name"]),
        ...(options.policy === undefined ? [] : ["conflictPolicy"]),
        ...(options.description === undefined ? [] : ["metadata.description"]),
        ...(options.tag.length === 0 ? [] : ["metadata.tags"]),
        ...Object.keys(propertiesOf(options.property)).map((name) => `metadata.properties.${name}`),
      ];
      if (mask.length === 0) {
        throw usageError("name what to change: --name, --description, --tag, --property, --policy");
      }
      const body = {
        name: options.name ?? "",
        conflictPolicy: options.policy ?? "",
        metadata: {
          description: options.description ?? "",
          tags: options.tag.filter((tag) => tag !== ""),
          properties: propertiesOf(options.property),
        },
      };
      printDocument(await update(api, id, body, mask.join(",")), options);
    })
  );
}

/** How often a change of permissions is tried when others change the document meanwhile. */
const SHARE_ATTEMPTS = 5;

/** Prints who may do what, after the changes that the options name. */
export function share(
  id: string,
  options: ShareOptions & { readonly owner?: string; readonly remove: readonly string[] },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      for (let left = SHARE_ATTEMPTS;; left--) {
        const { document } = await api.call<{ document: Document }>(
          "GET",
          `${documentPath(id)}?withoutContent=true`,
        );
        const before = document.metadata?.permissions ?? PERMISSIONS_NONE;
        const shared = withShares(without(before, options.remove), options);
        const permissions = { ...shared, owner: options.owner ?? shared.owner };
        if (JSON.stringify(permissions) !== JSON.stringify(before)) {
          const body = { metadata: { permissions } };
          try {
            await update(api, id, body, "metadata.permissions", document.version);
          } catch (error) {
            // Somebody changed the document between the two calls.
            if (!(error instanceof ApiError && error.status === 412) || left <= 1) throw error;
            continue;
          }
        }
        if (options.json) printLine(JSON.stringify(permissions));
        else printPermissions(permissions);
        return;
      }
    })
  );
}

/** Makes a document readable only, or editable again. */
export function setState(id: string, state: "archived" | "active", options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => printDocument(await update(api, id, { state }, "state"), options))
  );
}

/** Marks a document as deleted, or with `purge` removes it for good. One that is not there is no error. */
export function remove(id: string, purge: boolean, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const query = queryOf({ purge: purge ? "true" : undefined });
      const { deleted } = await api.call<{ deleted: boolean }>("DELETE", documentPath(id) + query);
      if (options.json) printLine(JSON.stringify({ id, deleted }));
      else if (!deleted) complain(`there was no document ${id}`);
    })
  );
}

/** Makes a deleted document active again, or with `version` the content what it was at that one. */
export function restore(id: string, version: string | undefined, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const path = version === undefined
        ? `${documentPath(id)}:restore`
        : `${documentPath(id)}/versions/${numberOf("the version", version, 1)}:restore`;
      const { document } = await api.call<{ document: Document }>("POST", path, {});
      printDocument(document, options);
    })
  );
}

/** Prints figures of all documents. */
export function stats(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { stats } = await api.call<{ stats: Record<string, string> }>("GET", "/api/v1/documents:stats");
      if (options.json) return printLine(JSON.stringify(stats));
      for (const [name, value] of Object.entries(stats)) {
        printLine(`${name.replaceAll(/[A-Z]/g, (char) => ` ${char.toLowerCase()}`)}\t${value}`);
      }
    })
  );
}

async function update(
  api: Api,
  id: string,
  document: unknown,
  mask: string,
  ifVersion?: string,
): Promise<Document> {
  const query = queryOf({ updateMask: mask });
  const answer = await api.request(documentPath(id) + query, {
    method: "PATCH",
    headers: {
      "content-type": "application/json",
      ...(ifVersion === undefined ? {} : { "if-match": `"${numberOf("--if-version", ifVersion, 1)}"` }),
    },
    body: JSON.stringify(document),
  });
  return (await answer.json() as { document: Document }).document;
}

function propertiesOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(given.map((text) => {
    const equals = text.indexOf("=");
    if (equals < 1) throw usageError(`a property is written name=value, not ${text}`);
    return [text.slice(0, equals), text.slice(equals + 1)];
  }));
}

/** Permissions with those of the options added; who is given one thing has nothing else besides. */
function withShares(
  before: Permissions,
  { editor, commenter, viewer, public: isPublic }: ShareOptions,
): Permissions {
  const rest = without(before, [...editor, ...commenter, ...viewer]);
  return {
    ...rest,
    editors: unique([...rest.editors, ...editor]),
    commenters: unique([...rest.commenters, ...commenter]),
    viewers: unique([...rest.viewers, ...viewer]),
    public: isPublic ?? rest.public,
  };
}

function without(before: Permissions, names: readonly string[]): Permissions {
  const stays = (name: string) => !names.includes(name);
  return {
    ...before,
    editors: before.editors.filter(stays),
    commenters: before.commenters.filter(stays),
    viewers: before.viewers.filter(stays),
  };
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)];
}

function printPermissions(permissions: Permissions): void {
  printLine(`owner\t${permissions.owner}`);
  for (const user of permissions.editors) printLine(`editor\t${user}`);
  for (const user of permissions.commenters) printLine(`commenter\t${user}`);
  for (const user of permissions.viewers) printLine(`viewer\t${user}`);
  if (permissions.public) printLine("public\teverybody may read");
}

function timeOf(text: string): string {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) {
    throw usageError(`--at is ${text}, expected a time like 2026-01-31T12:00:00Z`);
  }
  return time.toISOString();
}
