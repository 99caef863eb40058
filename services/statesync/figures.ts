/** What the service counts. */
import type { CommitterFigures } from "./committer.ts";
import type { DocumentsFigures } from "./documents.ts";
import type { Entry, OperationStatus, OperationType } from "./records.ts";

/** Figures of now, of other parts. */
export interface PartFigures extends DocumentsFigures, CommitterFigures {
  /** Changes that wait for the store. */
  readonly queued: number;
  readonly subscribers: number;
  readonly clients: number;
  readonly locks: number;
}

/** Figures since the start, and of now. */
export interface StatesyncFigures extends PartFigures {
  readonly created: number;
  /** Edits of synchronising clients. */
  readonly liveUpdates: number;
  readonly events: number;
  readonly conflictsDetected: number;
  /** Operations by `<type>/<status>`. */
  readonly operations: ReadonlyMap<`${OperationType}/${OperationStatus}`, number>;
  /** Conflicts decided, by how. */
  readonly resolved: ReadonlyMap<string, number>;
}

/** The counters. */
export class Figures {
  #created = 0;
  #liveUpdates = 0;
  #events = 0;
  #conflictsDetected = 0;
  readonly #operations = new Map<`${OperationType}/${OperationStatus}`, number>();
  readonly #resolved = new Map<string, number>();

  /** Counts entries that are kept. */
  count(entries: readonly Entry[]): void {
    this.#events += entries.length;
    for (const { type, operation, operationStatus, data, conflict, offset } of entries) {
      if (operation !== undefined && operationStatus !== undefined) {
        const key = `${operation.type as OperationType}/${operationStatus}` as const;
        this.#operations.set(key, (this.#operations.get(key) ?? 0) + 1);
      }
      if (conflict !== undefined) {
        // One that a policy decides is found and decided at once.
        if (type === "conflict_detected" || conflict.resolution === "lww") this.#conflictsDetected++;
        const how = conflict.resolution;
        if (how !== "") this.#resolved.set(how, (this.#resolved.get(how) ?? 0) + 1);
      }
      if (type === "document_updated") {
        if (data.change === "content") this.#liveUpdates++;
        else if (offset === 1) this.#created++;
      }
    }
  }

  read(parts: PartFigures): StatesyncFigures {
    return {
      ...parts,
      created: this.#created,
      liveUpdates: this.#liveUpdates,
      events: this.#events,
      conflictsDetected: this.#conflictsDetected,
      operations: this.#operations,
      resolved: this.#resolved,
    };
  }
}
