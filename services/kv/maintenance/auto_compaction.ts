/** When history is given up by the clock, as etcd does it: pure, its owner asks it every `tickMs`. */

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Revisions are noted this many times in a period. */
const PERIOD_PARTS = 10;
/** How often the newest revision is looked at when history is bounded by revisions. */
const REVISION_TICK_MS = 5 * MINUTE_MS;

/** Decides on compactions. */
export interface AutoCompaction {
  /** How often `tick` is to be called, in milliseconds. */
  readonly tickMs: number;
  /** Revision to compact to now, or undefined. `now` is monotonic, in milliseconds. */
  tick(now: number, revision: number): number | undefined;
  /** Says that the compaction was made, or found made, at `now`. Without it the next tick tries again. */
  done(now: number, revision: number): void;
}

/** Keeps the history of the last `periodMs`, at least a millisecond.
 *
 *  Ten times a period, or an hour if that is shorter, it notes the revision, and as often as that period it compacts to the
 *  one noted a whole period ago. The first compaction comes after one period. */
export function periodicCompaction(
  periodMs: number,
  startedMs: number,
  startRevision: number,
): AutoCompaction {
  const intervalMs = Math.min(periodMs, HOUR_MS);
  const tickMs = intervalMs / PERIOD_PARTS;
  /** Bound of `revisions`: those of one period. */
  const kept = Math.floor(periodMs / tickMs) + 1;
  const revisions = [startRevision];
  let lastMs = startedMs;
  let waitMs = periodMs;
  return {
    tickMs,
    tick(now, revision) {
      const oldest = revisions[0];
      revisions.push(revision);
      if (revisions.length > kept) revisions.shift();
      if (now - lastMs < waitMs) return undefined;
      waitMs = intervalMs;
      return oldest;
    },
    done(now) {
      lastMs = now;
    },
  };
}

/** Keeps the last `retained` revisions, looking every five minutes. */
export function revisionCompaction(retained: number): AutoCompaction {
  let last = 0;
  return {
    tickMs: REVISION_TICK_MS,
    tick(_now, revision) {
      const wanted = revision - retained;
      return wanted > 0 && wanted !== last ? wanted : undefined;
    },
    done(_now, revision) {
      last = revision;
    },
  };
}

/** How automatic compaction may be set. */
export interface AutoCompactionConfig {
  readonly mode: "retain" | "periodic" | "revision" | "off";
  /** `10h`, `30m`, `5s`, or a number: of hours for `periodic`, of revisions for `revision`. */
  readonly retention: string | number;
}

/** Why a retention does not fit its mode; undefined if it does. */
export function retentionProblem({ mode, retention }: AutoCompactionConfig): string | undefined {
  if (mode === "periodic" && !(periodOf(retention) >= MIN_PERIOD_MS)) {
    return "expected a time of at least 1s, such as 10h, 30m or 90s, or a number of hours";
  }
  if (mode === "revision" && !/^[1-9]\d{0,14}$/.test(String(retention))) {
    return "expected a number of revisions, from 1";
  }
  return undefined;
}

/** The compaction that is configured; undefined where there is none by the clock. */
export function createAutoCompaction(
  config: AutoCompactionConfig,
  now: number,
  revision: number,
): AutoCompaction | undefined {
  if (config.mode === "periodic") return periodicCompaction(periodOf(config.retention), now, revision);
  return config.mode === "revision" ? revisionCompaction(Number(config.retention)) : undefined;
}

const MIN_PERIOD_MS = 1_000;
const UNIT_MS: Readonly<Record<string, number>> = { h: HOUR_MS, m: MINUTE_MS, s: 1_000 };

/** A period in milliseconds; NaN for what is none. */
function periodOf(retention: string | number): number {
  const text = String(retention);
  if (/^\d{1,6}$/.test(text)) return Number(text) * HOUR_MS;
  if (!/^(\d{1,9}[hms])+$/.test(text)) return NaN;
  let period = 0;
  for (const [, count, unit] of text.matchAll(/(\d+)([hms])/g)) period += Number(count) * UNIT_MS[unit!]!;
  return period;
}
