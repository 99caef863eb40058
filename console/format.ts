/** Figures and times as people read them. */

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `1536` → `1.5 KiB`. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${BYTE_UNITS[unit]}`;
}

/** A figure with three digits that count. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.01) return value.toExponential(1);
  return value.toLocaleString("en", { maximumSignificantDigits: Math.abs(value) < 1000 ? 3 : 6 });
}

/** Seconds as a duration of one unit or two. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${figure(seconds * 1000)} ms`;
  if (seconds < 60) return `${figure(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor(seconds % 86_400 / 3600)} h`;
}

/** A point in time; today's without the date. */
export function time(timestamp: string | undefined): string {
  if (timestamp === undefined) return "–";
  const at = new Date(timestamp);
  if (Number.isNaN(at.getTime())) return "–";
  const isToday = at.toDateString() === new Date().toDateString();
  return at.toLocaleString(
    [],
    isToday ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" },
  );
}

/** How long ago it was. */
export function ago(timestamp: string | undefined): string {
  if (timestamp === undefined) return "–";
  const seconds = (Date.now() - new Date(timestamp).getTime()) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return time(timestamp);
}

/** `1 object`, `2 objects`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
