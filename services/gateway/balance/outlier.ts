/** Ejection of instances that fail while the others do not. */

/** When an instance is ejected, and for how long. */
export interface OutlierSettings {
  /** Failures in a row; 0 ejects nobody. */
  readonly consecutiveFailures: number;
  /** Length of the first ejection; of the n-th, n times that. */
  readonly baseEjectionMs: number;
  readonly maxEjectionMs: number;
  /** Most that may be ejected at once, of all instances of the service. One may be in any case, if another is left. */
  readonly maxEjectionPercent: number;
}

/** What is known of one instance. */
export class OutlierRecord {
  failuresInARow = 0;
  /** How many ejections the next one is measured by: falls again with time served well. */
  ejections = 0;
  ejectedUntilMs = -Infinity;

  /** Whether it takes no calls now. */
  isEjected(nowMs: number): boolean {
    return nowMs < this.ejectedUntilMs;
  }

  /** Forgets all: the instance has been replaced. */
  clear(): void {
    this.failuresInARow = 0;
    this.ejections = 0;
    this.ejectedUntilMs = -Infinity;
  }
}

/** Counts a failure of `record`, one of `all`. True when that ejects it. */
export function recordFailure(
  record: OutlierRecord,
  all: readonly OutlierRecord[],
  settings: OutlierSettings,
  nowMs: number,
): boolean {
  record.failuresInARow++;
  if (settings.consecutiveFailures === 0 || record.failuresInARow < settings.consecutiveFailures) {
    return false;
  }
  if (record.isEjected(nowMs) || !mayEject(all, settings, nowMs)) return false;
  const wellMs = nowMs - record.ejectedUntilMs;
  const forgiven = Math.min(record.ejections, Math.floor(wellMs / settings.baseEjectionMs));
  record.ejections += 1 - forgiven;
  record.failuresInARow = 0;
  record.ejectedUntilMs = nowMs +
    Math.min(settings.baseEjectionMs * record.ejections, settings.maxEjectionMs);
  return true;
}

/** Counts a success of `record`. */
export function recordSuccess(record: OutlierRecord): void {
  record.failuresInARow = 0;
}

function mayEject(all: readonly OutlierRecord[], settings: OutlierSettings, nowMs: number): boolean {
  let ejected = 0;
  for (const record of all) if (record.isEjected(nowMs)) ejected++;
  const most = Math.max(1, Math.floor(all.length * settings.maxEjectionPercent / 100));
  return ejected < most && all.length - ejected > 1;
}
