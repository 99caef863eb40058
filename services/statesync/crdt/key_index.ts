/** Which keys of a flat map belong to one id: all that were ever there, since a map keeps those too. */
export class KeyIndex {
  private readonly keys = new Map<string, Set<string>>();

  constructor(keys: Iterable<string>) {
    this.add(keys);
  }

  /** Notes keys that were changed; null is none. */
  add(keys: Iterable<string | null> | undefined): void {
    if (keys === undefined) return;
    for (const key of keys) {
      if (key === null) continue;
      const id = key.slice(0, Math.max(0, key.indexOf("/")));
      const own = this.keys.get(id);
      if (own === undefined) this.keys.set(id, new Set([key]));
      else own.add(key);
    }
  }

  /** The keys of an id. */
  keysOf(id: string): string[] {
    return [...this.keys.get(id) ?? []];
  }
}
