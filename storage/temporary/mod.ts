/** Files that are needed for a while: what is too large for memory and gone when its user is. */

/** One open file. */
export interface TemporaryFile {
  /** Writes all of `bytes` at offset `at`. */
  write(at: number, bytes: Uint8Array): Promise<void>;
  /** Fills `into` with the bytes from offset `at`, which must have been written. */
  read(at: number, into: Uint8Array): Promise<void>;
  /** Closes and removes it. Idempotent. */
  remove(): Promise<void>;
}

/** A folder for them. */
export interface TemporaryFiles {
  /** Makes an empty one. */
  create(): Promise<TemporaryFile>;
}

/** Takes a folder, which is made when the first file is. What an earlier process left in it is removed. */
export async function openTemporaryFiles(directory: string): Promise<TemporaryFiles> {
  try {
    await Deno.remove(directory, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  let made = 0;
  return {
    async create() {
      await Deno.mkdir(directory, { recursive: true });
      const path = `${directory}/${++made}`;
      return new OpenFile(path, await Deno.open(path, { read: true, write: true, createNew: true }));
    },
  };
}

class OpenFile implements TemporaryFile {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #isOpen = true;

  constructor(path: string, file: Deno.FsFile) {
    this.#path = path;
    this.#file = file;
  }

  async write(at: number, bytes: Uint8Array): Promise<void> {
    await this.#file.seek(at, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) done += await this.#file.write(bytes.subarray(done));
  }

  async read(at: number, into: Uint8Array): Promise<void> {
    await this.#file.seek(at, Deno.SeekMode.Start);
    for (let filled = 0; filled < into.length;) {
      const length = await this.#file.read(into.subarray(filled));
      if (length === null) {
        throw new RangeError(`Cannot read: ${this.#path} has fewer than ${at + into.length} bytes`);
      }
      filled += length;
    }
  }

  async remove(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#file.close();
    await Deno.remove(this.#path);
  }
}
