/** Sizes, numbers and the two headers of a bolt file. README.md has the layout as tables; all integers are little-endian. */
import { BoltError } from "./errors.ts";

/** Size of the pages that are written; files with other sizes are read. It is that of the library on most machines. */
export const PAGE_BYTES = 4_096;
/** Header of every page: id, flags, count, overflow. */
export const PAGE_HEADER_BYTES = 16;
/** One element's entry in the table at the start of a branch or leaf page. */
export const ELEMENT_BYTES = 16;
/** Root page and sequence: what the root bucket's tree holds as the value of a bucket. */
export const BUCKET_HEADER_BYTES = 16;
/** A meta page's content after the page header. */
export const META_BYTES = 64;
/** Largest page with its overflow that is read. A writer gives a page at least two elements, so it may be twice a
 *  database's largest value; this leaves room for values of 32 MiB, twenty times etcd's largest request. */
export const MAX_PAGE_BYTES = 64 * 1_024 * 1_024;
/** Deepest tree that is read: with two children a page this is more pages than a file can have. */
export const MAX_DEPTH = 64;

/** Kinds of pages; a page has exactly one. */
export const PAGE_BRANCH = 0x01;
export const PAGE_LEAF = 0x02;
export const PAGE_META = 0x04;
export const PAGE_FREELIST = 0x10;
/** Flag of a leaf element whose value is a bucket. */
export const ELEMENT_BUCKET = 0x01;

const MAGIC = 0xed0c_daed;
const VERSION = 2;
/** Page sizes a file may have. */
const PAGE_SIZES = [512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536];

/** What the meta pages say: where everything begins. The one with the higher transaction holds. */
export interface Meta {
  readonly pageBytes: number;
  /** Root page of the tree of buckets. */
  readonly root: number;
  readonly freelist: number;
  /** Pages in use: every page number is below it. */
  readonly pages: number;
  readonly transaction: bigint;
}

/** Writes a page's header at `at`. */
export function writePageHeader(
  view: DataView,
  at: number,
  page: number,
  flags: number,
  count: number,
  overflow: number,
): void {
  view.setBigUint64(at, BigInt(page), true);
  view.setUint16(at + 8, flags, true);
  view.setUint16(at + 10, count, true);
  view.setUint32(at + 12, overflow, true);
}

/** A whole meta page; its number is the transaction's parity. */
export function metaPage(meta: Meta): Uint8Array {
  const bytes = new Uint8Array(meta.pageBytes);
  const view = new DataView(bytes.buffer);
  writePageHeader(view, 0, Number(meta.transaction % 2n), PAGE_META, 0, 0);
  const at = PAGE_HEADER_BYTES;
  view.setUint32(at, MAGIC, true);
  view.setUint32(at + 4, VERSION, true);
  view.setUint32(at + 8, meta.pageBytes, true);
  view.setUint32(at + 12, 0, true);
  view.setBigUint64(at + 16, BigInt(meta.root), true);
  view.setBigUint64(at + 24, 0n, true);
  view.setBigUint64(at + 32, BigInt(meta.freelist), true);
  view.setBigUint64(at + 40, BigInt(meta.pages), true);
  view.setBigUint64(at + 48, meta.transaction, true);
  view.setBigUint64(at + 56, fnv1a64(bytes.subarray(at, at + 56)), true);
  return bytes;
}

/** Offsets at which a meta page may begin: the first page, or the second of a file of any page size. */
export function metaOffsets(): number[] {
  return [0, ...PAGE_SIZES];
}

/** Reads the meta of a page's first bytes (PAGE_HEADER_BYTES + META_BYTES of them); undefined if they are not one.
 *  @throws {BoltError} `unsupported` for a meta of another version. */
export function readMeta(bytes: Uint8Array): Meta | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = PAGE_HEADER_BYTES;
  if (view.getUint32(at, true) !== MAGIC) return undefined;
  if (view.getBigUint64(at + 56, true) !== fnv1a64(bytes.subarray(at, at + 56))) return undefined;
  const version = view.getUint32(at + 4, true);
  if (version !== VERSION) throw new BoltError("unsupported", `it has format version ${version}`);
  const pageBytes = view.getUint32(at + 8, true);
  if (!PAGE_SIZES.includes(pageBytes)) return undefined;
  return {
    pageBytes,
    root: safeNumber(view.getBigUint64(at + 16, true)),
    freelist: safeNumber(view.getBigUint64(at + 32, true)),
    pages: safeNumber(view.getBigUint64(at + 40, true)),
    transaction: view.getBigUint64(at + 48, true),
  };
}

/** A page number as a number; what is too large for one is above every page of every file. */
export function safeNumber(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** FNV-1a, 64 bits. */
export function fnv1a64(bytes: Uint8Array): bigint {
  let hash = 0xcbf2_9ce4_8422_2325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100_0000_01b3n);
  return hash;
}

/** Compares byte strings as the trees order them. */
export function compareKeys(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
