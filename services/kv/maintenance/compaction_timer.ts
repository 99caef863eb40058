/** Compacts by the clock where kv.autoCompaction asks for it. */
import { type AutoCompactionConfig, createAutoCompaction } from "./auto_compaction.ts";
import { KvError } from "../errors.ts";
import type { KvLogger, KvService } from "../service.ts";

/** Calls `run` every `ms` milliseconds until the returned function is called. */
export type Every = (ms: number, run: () => Promise<void>) => () => void;

/** Starts the timer, if the mode needs one; the returned function stops it. */
export function startCompactionTimer(
  service: Pick<KvService, "revision" | "compact">,
  { every, clock, log, config }: {
    readonly every: Every;
    readonly clock: { now(): number };
    readonly log: KvLogger;
    readonly config: AutoCompactionConfig;
  },
): () => void {
  const compaction = createAutoCompaction(config, clock.now(), service.revision);
  if (compaction === undefined) return () => {};
  return every(compaction.tickMs, async () => {
    const revision = compaction.tick(clock.now(), service.revision);
    if (revision === undefined) return;
    try {
      await service.compact(revision, false);
    } catch (error) {
      // Somebody has compacted beyond it: there is nothing to do.
      if (!(error instanceof KvError) || error.kind !== "compacted") {
        log.error("the automatic compaction failed and is tried again", { revision, error });
        return;
      }
    }
    compaction.done(clock.now(), revision);
  });
}
