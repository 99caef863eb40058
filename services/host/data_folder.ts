/** The data folder: made when missing, and one process's at a time. */
import { EXIT, HostError } from "./exit_code.ts";

/** Name of the file whose lock says that the folder is in use. It holds the owner's process id, for people. */
const LOCK_FILE = "host.lock";

/** A folder that is ours until it is released. */
export interface DataFolder extends Disposable {
  /** Absolute path without symbolic links, as permissions need it. */
  readonly path: string;
  /** Makes the folder of one service. @throws {HostError} */
  prepare(path: string): void;
}

/** Takes the folder. The lock is the operating system's: it goes with the process, however that ends.
 *  @throws {HostError} if another process has it, or if it cannot be made or written. */
export function openDataFolder(name: string): DataFolder {
  const path = attempt(`make data folder ${name}`, () => {
    Deno.mkdirSync(name, { recursive: true });
    return Deno.realPathSync(name);
  });
  const lock = attempt(
    `write to data folder ${name}`,
    () => Deno.openSync(`${path}/${LOCK_FILE}`, { read: true, write: true, create: true }),
  );
  if (!lock.tryLockSync(true)) {
    const owner = new Uint8Array(32);
    const length = lock.readSync(owner) ?? 0;
    lock.close();
    const pid = new TextDecoder().decode(owner.subarray(0, length)).trim();
    throw new HostError(
      `data folder ${name} is in use by another process${
        pid && ` (${pid})`
      }; choose another with --data FOLDER`,
      EXIT.dataInUse,
    );
  }
  attempt(`write to data folder ${name}`, () => {
    lock.truncateSync();
    lock.writeSync(new TextEncoder().encode(`${Deno.pid}\n`));
  });
  return {
    path,
    prepare: (folder) => attempt(`make ${folder}`, () => Deno.mkdirSync(folder, { recursive: true })),
    [Symbol.dispose]: () => lock.close(),
  };
}

function attempt<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HostError(`cannot ${what}: ${reason}`, EXIT.storage, { cause: error });
  }
}
