/** A bound on how much runs at once. */
export class Slots {
  #active = 0;

  /** `max` may be changed; what holds a slot beyond a smaller one keeps it. */
  constructor(public max: number) {}

  /** How many are taken. */
  get active(): number {
    return this.#active;
  }

  /** Takes a slot, or returns false when all are taken. */
  tryEnter(): boolean {
    if (this.#active >= this.max) return false;
    this.#active++;
    return true;
  }

  /** Gives a slot back. */
  leave(): void {
    this.#active--;
  }
}
