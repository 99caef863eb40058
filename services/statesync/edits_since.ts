/** The entries that made versions since one that somebody had in view: from memory, or from the store for who is far behind. */
import { StateSyncError } from "./errors.ts";
import type { OpenDocument } from "./open_document.ts";
import type { Entry } from "./records.ts";
import type { DocumentStore } from "./store.ts";

/** Entries read at once. */
const PAGE = 500;
/** Edits that somebody may be behind: each is looked at. */
const BEHIND_MAX = 5_000;

/** Edits since a version, read as far as they are not in memory. One is made for each call, and asked again after each wait. */
export class EditsSince {
  #generation = -1;
  #since = 0;
  #read: Entry[] = [];

  constructor(
    private readonly store: Pick<DocumentStore, "versions">,
    private readonly version: number,
  ) {}

  /** The edits, in their order, up to what is in memory; or what to wait for before asking again.
   *  @throws {StateSyncError} `versionGone` */
  of(document: OpenDocument): { readonly edits: readonly Entry[] } | { readonly wait: Promise<void> } {
    const recent = document.editsAfter(this.version);
    if (recent !== undefined) return { edits: recent };
    if (document.record.version - this.version > BEHIND_MAX) throw this.#gone();
    const rest = this.#generation === document.generation ? document.editsAfter(this.#since) : undefined;
    if (rest !== undefined) return { edits: [...this.#read, ...rest] };
    return { wait: this.#fill(document) };
  }

  async #fill(document: OpenDocument): Promise<void> {
    await document.settled();
    const { generation, edits: { since } } = document;
    const read = await entriesBetween(this.store, document.id, this.version, since);
    const rest = document.generation === generation ? document.editsAfter(since) : undefined;
    // Otherwise it is asked again.
    if (rest === undefined) return;
    this.#generation = generation;
    this.#since = document.record.version;
    this.#read = [...read, ...rest];
  }

  #gone(): StateSyncError {
    return new StateSyncError("versionGone", `prev_version ${this.version} is too far behind`);
  }
}

/** The entries that made versions above `from` up to `to`, in their order. All of them must be kept, and in the store.
 *  @throws {StateSyncError} `versionGone` */
export async function entriesBetween(
  store: Pick<DocumentStore, "versions">,
  docId: string,
  from: number,
  to: number,
): Promise<Entry[]> {
  const found: Entry[] = [];
  for (let before = to + 1; before > from + 1;) {
    const page = await store.versions(docId, before, Math.min(PAGE, before - 1 - from));
    const last = page.at(-1);
    if (last === undefined || found.length + page.length > 2 * BEHIND_MAX) {
      throw new StateSyncError("versionGone", `of the changes since version ${from} not all are kept`);
    }
    found.push(...page);
    before = last.version;
  }
  return found.reverse();
}
