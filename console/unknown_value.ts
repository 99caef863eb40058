/** Values that others wrote: they may be anything. */

/** A value as a record: an empty one where it is none. */
export function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}
