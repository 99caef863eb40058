/** Reads bolt files, of this project's writer and of the library, without trusting them: whatever the bytes are, the
 *  outcome is the entries or a BoltError, after reading each page at most once and holding one path of pages. */
import { BoltError } from "./errors.ts";
import {
  BUCKET_HEADER_BYTES,
  compareKeys,
  ELEMENT_BUCKET,
  ELEMENT_BYTES,
  MAX_DEPTH,
  MAX_PAGE_BYTES,
  type Meta,
  META_BYTES,
  metaOffsets,
  PAGE_BRANCH,
  PAGE_HEADER_BYTES,
  PAGE_LEAF,
  readMeta,
  safeNumber,
} from "./format.ts";

/** Random-access bytes to read a file from. */
export interface BoltSource {
  /** Length in bytes. */
  readonly size: number;
  /** Fills `into` with the bytes from offset `at`, which are all below `size`. */
  read(at: number, into: Uint8Array): Promise<void>;
}

/** Called with each entry in key order. Both arrays are views of the page: copy what is to be kept. */
export type VisitEntry = (key: Uint8Array, value: Uint8Array) => void;

/** Most buckets that a file is read with; etcd has 15. */
export const MAX_BUCKETS = 1_000;

/** Reads meta pages and the list of buckets.
 *  @throws {BoltError} */
export async function openBolt(source: BoltSource): Promise<BoltFile> {
  const meta = await findMeta(source);
  if (meta.pages * meta.pageBytes > source.size) {
    throw new BoltError(
      "damaged",
      `it has ${source.size} bytes, but ${meta.pages} pages of ${meta.pageBytes} are in use`,
    );
  }
  const pages = new Pages(source, meta);
  const buckets = new Map<string, Uint8Array>();
  await new Walk(pages, true).tree(meta.root, 0, (name, value) => {
    if (buckets.size >= MAX_BUCKETS) throw new BoltError("unsupported", `it has over ${MAX_BUCKETS} buckets`);
    buckets.set(nameOf(name), value.slice());
  });
  return new BoltFile(pages, buckets);
}

/** An open file. Nothing is kept but the list of buckets; the source belongs to the caller. */
export class BoltFile {
  readonly #pages: Pages;
  readonly #buckets: ReadonlyMap<string, Uint8Array>;

  /** Made by `openBolt`. */
  constructor(pages: Pages, buckets: ReadonlyMap<string, Uint8Array>) {
    this.#pages = pages;
    this.#buckets = buckets;
  }

  /** Length of the pages in use, in bytes. */
  get bytes(): number {
    return this.#pages.meta.pages * this.#pages.meta.pageBytes;
  }

  /** Names of the buckets in key order, one character a byte. */
  get bucketNames(): string[] {
    return [...this.#buckets.keys()];
  }

  /** Visits the entries of a bucket in key order; none if there is no such bucket. What `visit` throws ends it.
   *  @throws {BoltError} */
  async forEach(bucket: string, visit: VisitEntry): Promise<void> {
    const header = this.#buckets.get(bucket);
    if (header === undefined) return;
    if (header.length < BUCKET_HEADER_BYTES) throw new BoltError("damaged", `bucket ${bucket} has no header`);
    const root = pageNumber(header, 0);
    const walk = new Walk(this.#pages, false);
    if (root !== 0) await walk.tree(root, 0, visit);
    else await walk.page(header.slice(BUCKET_HEADER_BYTES), 0, 0, visit);
  }
}

/** One pass over one tree. */
class Walk {
  /** A bit for each page of the file, overflow included: a page met twice would be a circle, or entries told twice. */
  readonly #met: Uint8Array;
  #last: Uint8Array | undefined;

  constructor(readonly pages: Pages, readonly wantBuckets: boolean) {
    this.#met = new Uint8Array(Math.ceil(pages.meta.pages / 8));
  }

  async tree(number: number, depth: number, visit: VisitEntry): Promise<void> {
    if (depth > MAX_DEPTH) throw new BoltError("damaged", `lies deeper than ${MAX_DEPTH} pages`, number);
    const page = await this.pages.read(number);
    for (let i = 0; i < page.length / this.pages.meta.pageBytes; i++) this.#meet(number + i);
    await this.page(page, number, depth, visit);
  }

  #meet(number: number): void {
    const bit = 1 << (number & 7);
    if (this.#met[number >> 3]! & bit) throw new BoltError("damaged", "is linked twice", number);
    this.#met[number >> 3]! |= bit;
  }

  /** Visits what is below a page whose bytes are at hand; `number` is for messages. */
  async page(page: Uint8Array, number: number, depth: number, visit: VisitEntry): Promise<void> {
    if (page.length < PAGE_HEADER_BYTES) throw new BoltError("damaged", "has no header", number);
    const view = new DataView(page.buffer, page.byteOffset, page.length);
    const flags = view.getUint16(8, true);
    const count = view.getUint16(10, true);
    const tableEnd = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    if (tableEnd > page.length) {
      throw new BoltError("damaged", `has no room for its ${count} elements`, number);
    }
    if (flags === PAGE_LEAF) return this.#leaf(page, view, count, number, visit);
    if (flags !== PAGE_BRANCH) {
      throw new BoltError("damaged", `has the kind ${flags}, not branch or leaf`, number);
    }
    if (count === 0) throw new BoltError("damaged", "is a branch without children", number);
    for (let i = 0; i < count; i++) {
      await this.tree(pageNumber(page, PAGE_HEADER_BYTES + i * ELEMENT_BYTES + 8), depth + 1, visit);
    }
  }

  #leaf(page: Uint8Array, view: DataView, count: number, number: number, visit: VisitEntry): void {
    const tableEnd = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    for (let i = 0; i < count; i++) {
      const element = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const start = element + view.getUint32(element + 4, true);
      const keyEnd = start + view.getUint32(element + 8, true);
      const end = keyEnd + view.getUint32(element + 12, true);
      if (start < tableEnd || end > page.length) {
        throw new BoltError("damaged", `has its element ${i} outside itself`, number);
      }
      const isBucket = (view.getUint32(element, true) & ELEMENT_BUCKET) !== 0;
      if (isBucket !== this.wantBuckets) {
        const what = isBucket ? "has a bucket within a bucket" : "has an entry among the buckets";
        throw new BoltError("unsupported", what, number);
      }
      const key = page.subarray(start, keyEnd);
      if (this.#last !== undefined && compareKeys(this.#last, key) >= 0) {
        throw new BoltError("damaged", `has its element ${i} out of order`, number);
      }
      this.#last = key;
      visit(key, page.subarray(keyEnd, end));
    }
  }
}

/** The pages of a file. */
class Pages {
  constructor(readonly source: BoltSource, readonly meta: Meta) {}

  /** A page with its overflow, its own number checked. */
  async read(number: number): Promise<Uint8Array> {
    const { pageBytes, pages } = this.meta;
    if (number < 2 || number >= pages) throw new BoltError("damaged", "is linked, but not in use", number);
    const head = new Uint8Array(pageBytes);
    await this.source.read(number * pageBytes, head);
    if (pageNumber(head, 0) !== number) {
      throw new BoltError("damaged", `says that it is page ${pageNumber(head, 0)}`, number);
    }
    const overflow = new DataView(head.buffer).getUint32(12, true);
    if (overflow === 0) return head;
    if (number + overflow >= pages) throw new BoltError("damaged", "overflows the pages in use", number);
    const length = (overflow + 1) * pageBytes;
    if (length > MAX_PAGE_BYTES) throw new BoltError("unsupported", `has ${length} bytes`, number);
    const whole = new Uint8Array(length);
    whole.set(head);
    await this.source.read((number + 1) * pageBytes, whole.subarray(pageBytes));
    return whole;
  }
}

/** The newest whole meta page. The last commit of a process that died may have torn one of the two. */
async function findMeta(source: BoltSource): Promise<Meta> {
  let best: Meta | undefined;
  const bytes = new Uint8Array(PAGE_HEADER_BYTES + META_BYTES);
  for (const offset of metaOffsets()) {
    if (offset + bytes.length > source.size) break;
    await source.read(offset, bytes);
    const meta = readMeta(bytes);
    if (meta === undefined || (offset !== 0 && meta.pageBytes !== offset)) continue;
    if (best === undefined || meta.transaction > best.transaction) best = meta;
  }
  if (best === undefined) throw new BoltError("damaged", "it has no whole meta page");
  return best;
}

function pageNumber(bytes: Uint8Array, at: number): number {
  return safeNumber(new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(at, true));
}

/** A bucket's name with one character a byte, so that every name has a text. */
function nameOf(name: Uint8Array): string {
  let text = "";
  for (const byte of name) text += String.fromCharCode(byte);
  return text;
}
