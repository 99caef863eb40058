import type { LogFile, LogFs } from "./fs.ts";

/** The log's file system on `Deno`'s. Needs read and write permission for the log's directory and no other. */
export const denoFs: LogFs = {
  async makeDirectory(path) {
    await Deno.mkdir(path, { recursive: true });
    await syncParent(path);
  },
  async list(directory) {
    const names: string[] = [];
    for await (const entry of Deno.readDir(directory)) if (entry.isFile) names.push(entry.name);
    return names;
  },
  async open(path, mode) {
    const file = await Deno.open(path, OPEN_OPTIONS[mode]);
    return new DenoLogFile(file);
  },
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  async syncDirectory(directory) {
    // Windows gives no handle to a directory; its file systems journal names themselves.
    if (Deno.build.os === "windows") return;
    using handle = await Deno.open(directory, { read: true });
    await handle.sync();
  },
  async lock(path) {
    // An advisory lock of the kernel's: it goes when the process goes, so there is no stale one after SIGKILL.
    const file = await Deno.open(path, { create: true, read: true, write: true });
    let taken = false;
    try {
      taken = await file.tryLock(true);
    } finally {
      if (!taken) file.close();
    }
    return taken ? { release: () => file.close() } : undefined;
  },
};

const OPEN_OPTIONS = {
  read: { read: true },
  update: { read: true, write: true },
  create: { write: true, create: true, truncate: true },
} satisfies Record<string, Deno.OpenOptions>;

/** The directory's own name is in its parent. A worker that may not open the parent leaves that to whoever made the
 *  directory for it; asking first keeps Deno from prompting on a terminal. */
async function syncParent(path: string): Promise<void> {
  const parent = `${path}/..`;
  const permission = await Deno.permissions.query({ name: "read", path: parent });
  if (permission.state === "granted") await denoFs.syncDirectory(parent);
}

class DenoLogFile implements LogFile {
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  async size(): Promise<number> {
    return (await this.#file.stat()).size;
  }

  async seek(offset: number): Promise<void> {
    await this.#file.seek(offset, Deno.SeekMode.Start);
  }

  async read(into: Uint8Array): Promise<number> {
    return await this.#file.read(into) ?? 0;
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#file.write(bytes);
  }

  writeSync(bytes: Uint8Array): number {
    return this.#file.writeSync(bytes);
  }

  truncate(length: number): Promise<void> {
    return this.#file.truncate(length);
  }

  syncData(): Promise<void> {
    return this.#file.syncData();
  }

  syncDataSync(): void {
    this.#file.syncDataSync();
  }

  close(): void {
    this.#file.close();
  }
}
