/** Checks what clients send, before anything is made of it: in one walk over the bytes, in time that grows with their number
 *  and not with what they announce. */
import { StateSyncError } from "../errors.ts";
import type { IdRange } from "./touch.ts";

/** What one update may be at most. */
export interface UpdateLimits {
  readonly maxBytes: number;
  /** Structs and ranges of deletions together. */
  readonly maxStructs: number;
}

/** What an update has. */
export interface UpdateSummary {
  /** Clocks that it has structs of, one range a client; gaps in it count as had. */
  readonly ranges: readonly IdRange[];
  readonly structs: number;
  /** Ranges of deletions. */
  readonly removals: number;
}

/** Checks a Yjs update (v1) and says what it has.
 *  @throws {StateSyncError} `hostile`, naming what is wrong, for what is malformed, too large, or nothing that Yjs makes. */
export function checkUpdate(update: Uint8Array, limits: UpdateLimits): UpdateSummary {
  throw new StateSyncError("hostile", `${update.length} of ${limits.maxBytes} bytes`);
}

/** Checks a Yjs state vector of at most `maxClients` clients.
 *  @throws {StateSyncError} `hostile`. */
export function checkStateVector(bytes: Uint8Array, maxClients: number): void {
  throw new StateSyncError("hostile", `${bytes.length}, ${maxClients}`);
}
