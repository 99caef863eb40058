/** Writes a bolt file from its first entry to its last, in memory for one page a level of a tree.
 *
 *  Pages are numbered as they fill up: the leaves of a bucket, the branches above them, the next bucket, at last the tree
 *  of buckets. The meta pages, which name that tree, are written when everything else is. No page is free. */
import {
  BUCKET_HEADER_BYTES,
  compareKeys,
  ELEMENT_BUCKET,
  ELEMENT_BYTES,
  metaPage,
  PAGE_BRANCH,
  PAGE_BYTES,
  PAGE_FREELIST,
  PAGE_HEADER_BYTES,
  PAGE_LEAF,
  writePageHeader,
} from "./format.ts";

/** Bytes that a file is written to. */
export interface BoltSink {
  /** Writes all of `bytes` at offset `at`; done with them when it resolves. */
  write(at: number, bytes: Uint8Array): Promise<void>;
}

/** One entry; a key is 1 to 32,768 bytes. Its arrays are kept until their page is written: do not use them again. */
export interface BoltEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** A bucket: buckets in the order of their names, entries in that of their keys, both without repetition. */
export interface BoltBucket {
  readonly name: string;
  readonly entries: Iterable<BoltEntry> | AsyncIterable<BoltEntry>;
}

/** Longest key that the library takes, in bytes. */
const KEY_BYTES_MAX = 32_768;
/** Longest value that the library takes, in bytes. */
const VALUE_BYTES_MAX = 2 ** 31 - 2;
/** Bytes gathered before they are written. */
const CHUNK_BYTES = 256 * 1_024;
/** Pages 0 and 1 are the meta pages. */
const FREELIST_PAGE = 2;
const NO_BYTES = new Uint8Array(0);

/** Writes the file and returns its length in bytes. What entries and sink throw comes through; the file is then useless.
 *  @throws {RangeError} for entries or buckets out of order, and keys or values beyond the format's lengths. */
export async function writeBolt(sink: BoltSink, buckets: Iterable<BoltBucket>): Promise<number> {
  const out = new PageOutput(sink);
  await out.page(PAGE_FREELIST, NO_ELEMENTS, 0, 0);
  const root = new TreeWriter(out);
  for (const bucket of buckets) {
    const value = await writeBucket(out, bucket.entries);
    const added = root.add(bytesOf(bucket.name), value, ELEMENT_BUCKET);
    if (added !== undefined) await added;
  }
  const rootPage = await root.end() ?? await out.page(PAGE_LEAF, NO_ELEMENTS, 0, 0);
  await out.flush();
  const meta = { pageBytes: PAGE_BYTES, root: rootPage, freelist: FREELIST_PAGE, pages: out.nextPage };
  await sink.write(0, metaPage({ ...meta, transaction: 0n }));
  await sink.write(PAGE_BYTES, metaPage({ ...meta, transaction: 1n }));
  return out.nextPage * PAGE_BYTES;
}

/** Writes a bucket's tree and returns what the tree of buckets holds for it. */
async function writeBucket(out: PageOutput, entries: BoltBucket["entries"]): Promise<Uint8Array> {
  const tree = new TreeWriter(out);
  if (Symbol.asyncIterator in entries) {
    for await (const { key, value } of entries) await tree.add(key, value, 0);
  } else {
    // Its own loop: awaiting each entry would cost a promise for each.
    for (const { key, value } of entries) {
      const added = tree.add(key, value, 0);
      if (added !== undefined) await added;
    }
  }
  const root = await tree.end();
  if (root === undefined) return emptyBucket();
  const header = new Uint8Array(BUCKET_HEADER_BYTES);
  new DataView(header.buffer).setBigUint64(0, BigInt(root), true);
  return header;
}

/** A bucket without pages of its own: an empty leaf follows its header. */
function emptyBucket(): Uint8Array {
  const bytes = new Uint8Array(BUCKET_HEADER_BYTES + PAGE_HEADER_BYTES);
  writePageHeader(new DataView(bytes.buffer), BUCKET_HEADER_BYTES, 0, PAGE_LEAF, 0, 0);
  return bytes;
}

/** Elements of a page that is being filled. Both kinds of pages have a table of equal entries and the bytes after it. */
interface Elements {
  readonly keys: Uint8Array[];
  readonly values: Uint8Array[];
  /** Flags of a leaf's elements, pages of a branch's. */
  readonly words: number[];
}

const NO_ELEMENTS: Elements = { keys: [], values: [], words: [] };

/** One tree, written from the left to the right: level 0 are leaves, each level above has a child for each page below. */
class TreeWriter {
  readonly #levels: Level[] = [];
  #last: Uint8Array | undefined;

  constructor(readonly out: PageOutput) {}

  /** Adds an element after all others. Returns a promise when pages went out, to be awaited before the next. */
  add(key: Uint8Array, value: Uint8Array, flags: number): Promise<void> | undefined {
    if (key.length < 1 || key.length > KEY_BYTES_MAX) {
      throw new RangeError(`Cannot write: a key must have 1..${KEY_BYTES_MAX} bytes, got ${key.length}`);
    }
    if (value.length > VALUE_BYTES_MAX) {
      throw new RangeError(
        `Cannot write: a value must have 0..${VALUE_BYTES_MAX} bytes, got ${value.length}`,
      );
    }
    if (this.#last !== undefined && compareKeys(this.#last, key) >= 0) {
      throw new RangeError("Cannot write: keys must come in order, each once");
    }
    this.#last = key;
    return this.#addTo(0, key, value, flags);
  }

  /** Writes what is left and returns the tree's root page; undefined if nothing was added. */
  async end(): Promise<number | undefined> {
    for (let depth = 0; depth < this.#levels.length; depth++) {
      const level = this.#levels[depth]!;
      const isTop = depth === this.#levels.length - 1;
      const pieces = level.pieces(depth > 0);
      if (isTop && pieces.length === 1) {
        // A level with one child only would be a branch for nothing.
        const [piece] = pieces;
        return depth > 0 && level.length === 1
          ? level.elements.words[0]!
          : await this.#write(depth, 0, piece!);
      }
      for (let from = 0, i = 0; i < pieces.length; i++) {
        const to = from + pieces[i]!;
        const page = await this.#write(depth, from, to);
        await this.#addTo(depth + 1, level.elements.keys[from]!, NO_BYTES, page);
        from = to;
      }
    }
    return undefined;
  }

  #addTo(depth: number, key: Uint8Array, value: Uint8Array, word: number): Promise<void> | undefined {
    let level = this.#levels[depth];
    if (level === undefined) this.#levels.push(level = new Level());
    level.add(key, value, word);
    return level.isFull ? this.#flush(depth, level) : undefined;
  }

  async #flush(depth: number, level: Level): Promise<void> {
    const count = level.fit;
    const first = level.elements.keys[0]!;
    const page = await this.#write(depth, 0, count);
    level.drop(count);
    await this.#addTo(depth + 1, first, NO_BYTES, page);
  }

  #write(depth: number, from: number, to: number): Promise<number> {
    return this.out.page(depth === 0 ? PAGE_LEAF : PAGE_BRANCH, this.#levels[depth]!.elements, from, to);
  }
}

/** The page of one level that is being filled. It goes out when two elements more than fit are there: the library wants
 *  two in every branch, so what is left at the end must be two. */
class Level {
  readonly elements: Elements = { keys: [], values: [], words: [] };
  /** How many of the elements go on the next page; 0 while they all fit. */
  fit = 0;
  #bytes = PAGE_HEADER_BYTES;

  get length(): number {
    return this.elements.keys.length;
  }

  get isFull(): boolean {
    return this.fit > 0 && this.length - this.fit >= 2;
  }

  add(key: Uint8Array, value: Uint8Array, word: number): void {
    const { keys, values, words } = this.elements;
    this.#bytes += ELEMENT_BYTES + key.length + value.length;
    if (this.fit === 0 && this.#bytes > PAGE_BYTES && keys.length >= 2) this.fit = keys.length;
    keys.push(key);
    values.push(value);
    words.push(word);
  }

  /** Takes the first `count` elements out. What is left is added anew, as it may be too much for a page again. */
  drop(count: number): void {
    const { keys, values, words } = this.elements;
    const left = { keys: keys.splice(0), values: values.splice(0), words: words.splice(0) };
    this.fit = 0;
    this.#bytes = PAGE_HEADER_BYTES;
    for (let i = count; i < left.keys.length; i++) this.add(left.keys[i]!, left.values[i]!, left.words[i]!);
  }

  /** How many elements go on each of the last pages: a leaf may have one, a branch has two unless it has no more. */
  pieces(isBranch: boolean): number[] {
    const { fit, length } = this;
    if (fit === 0) return [length];
    if (!isBranch) return [fit, length - fit];
    return fit >= 3 ? [fit - 1, length - fit + 1] : [length];
  }
}

/** Numbers pages, lays them out and hands them on in large pieces. */
class PageOutput {
  nextPage = FREELIST_PAGE;
  #chunk = new Uint8Array(CHUNK_BYTES);
  #used = 0;
  /** Where the chunk begins in the file. */
  #at = FREELIST_PAGE * PAGE_BYTES;

  constructor(readonly sink: BoltSink) {}

  /** Writes elements `from` to `to` as a page, with overflow if need be, and returns its number. */
  async page(flags: number, elements: Elements, from: number, to: number): Promise<number> {
    let length = PAGE_HEADER_BYTES;
    for (let i = from; i < to; i++) {
      length += ELEMENT_BYTES + elements.keys[i]!.length + elements.values[i]!.length;
    }
    const pages = Math.ceil(length / PAGE_BYTES);
    if (this.#used + pages * PAGE_BYTES > this.#chunk.length) await this.flush();
    if (pages * PAGE_BYTES > this.#chunk.length) this.#chunk = new Uint8Array(pages * PAGE_BYTES);
    const start = this.#used;
    this.#used += pages * PAGE_BYTES;
    const number = this.nextPage;
    this.nextPage += pages;
    const view = new DataView(this.#chunk.buffer, start, pages * PAGE_BYTES);
    writePageHeader(view, 0, number, flags, to - from, pages - 1);
    let at = PAGE_HEADER_BYTES + (to - from) * ELEMENT_BYTES;
    for (let i = from; i < to; i++) {
      const element = PAGE_HEADER_BYTES + (i - from) * ELEMENT_BYTES;
      const key = elements.keys[i]!;
      const value = elements.values[i]!;
      if (flags === PAGE_BRANCH) {
        view.setUint32(element, at - element, true);
        view.setUint32(element + 4, key.length, true);
        view.setBigUint64(element + 8, BigInt(elements.words[i]!), true);
      } else {
        view.setUint32(element, elements.words[i]!, true);
        view.setUint32(element + 4, at - element, true);
        view.setUint32(element + 8, key.length, true);
        view.setUint32(element + 12, value.length, true);
      }
      this.#chunk.set(key, start + at);
      at += key.length;
      this.#chunk.set(value, start + at);
      at += value.length;
    }
    return number;
  }

  async flush(): Promise<void> {
    if (this.#used === 0) return;
    await this.sink.write(this.#at, this.#chunk.subarray(0, this.#used));
    this.#at += this.#used;
    this.#used = 0;
    // Cleared, as pages are padded with zeros; and a chunk for one huge page is not kept.
    if (this.#chunk.length > CHUNK_BYTES) this.#chunk = new Uint8Array(CHUNK_BYTES);
    else this.#chunk.fill(0);
  }
}

/** A name with one character a byte, as the reader gives it. */
function bytesOf(name: string): Uint8Array {
  return Uint8Array.from(name, (character) => character.charCodeAt(0));
}
