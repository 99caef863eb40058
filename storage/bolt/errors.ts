/** What kind of trouble a file has: `damaged` it is not what a bolt library wrote; `unsupported` it is, but uses what this
 *  reader does not read (another version, nested buckets, pages above MAX_PAGE_BYTES). */
export type BoltErrorCode = "damaged" | "unsupported";

/** The one error class of the format. What the source of the bytes throws comes through as it is. */
export class BoltError extends Error {
  override readonly name = "BoltError";

  /** `page` is the number of the page concerned, where the trouble is in one page. */
  constructor(readonly code: BoltErrorCode, what: string, readonly page?: number) {
    super(
      page === undefined
        ? `the database file is ${code}: ${what}`
        : `the database file is ${code}: page ${page} ${what}`,
    );
  }
}
