/** Memory for byte strings that outlive their requests, outside the garbage-collected heap.
 *
 *  An ArrayBuffer per value costs some 200 bytes and a visit by every collection. Here values of similar size share
 *  slabs of 1 MiB cut in equal cells; a freed cell goes to the next value of its class, and a slab without values goes
 *  back to the system. A value's address is one unsigned 32-bit number: slab * 65,536 + offset / 16. */

/** Granularity of addresses, in bytes. */
const UNIT_BYTES = 16;
/** Size of a shared slab, in bytes: 65,536 units, the most the low half of an address can name. */
const SLAB_BYTES = 65_536 * UNIT_BYTES;
/** Values above this get a slab of their own: a shared slab would waste up to a cell of it. */
const CELL_BYTES_MAX = SLAB_BYTES / 16;
/** Slabs that addresses can name; with full slabs this is 64 GiB, far above any quota. */
const SLABS_MAX = 65_536;

/** Address of an empty byte string: nothing is stored for it. */
export const EMPTY_ADDRESS = 0xffff_ffff;

/** Cell sizes in units: every 16 bytes up to 256, then steps of at most a fifth, so at most a fifth is wasted. */
const CLASS_UNITS: readonly number[] = cellSizes();
/** Class of a size in units. */
const CLASS_OF_UNITS: Uint8Array = classTable();

interface Slab {
  readonly bytes: Uint8Array;
  /** Class of its cells; -1 for a slab with one large value. */
  readonly sizeClass: number;
  used: number;
  /** No new value goes there: the slab goes when its values have. */
  isClosed: boolean;
}

/** Stores byte strings by address. Not aware of what they mean; the caller keeps length and address. */
export class Arena {
  /** Bytes that stored values take, rounding included. */
  usedBytes = 0;
  #slabs: (Slab | undefined)[] = [];
  #freeSlabs: number[] = [];
  /** Free cells of each class, as a stack of addresses. */
  #free: AddressStack[] = CLASS_UNITS.map(() => new AddressStack());

  /** Copies `bytes` in and returns the address.
   *  @throws {RangeError} when all addresses are taken (64 GiB). */
  store(bytes: Uint8Array): number {
    const length = bytes.length;
    if (length === 0) return EMPTY_ADDRESS;
    this.usedBytes += storedBytes(length);
    if (length > CELL_BYTES_MAX) return this.#storeLarge(bytes);
    const sizeClass = CLASS_OF_UNITS[unitsOf(length)]!;
    const stack = this.#free[sizeClass]!;
    const address = stack.size > 0 ? stack.pop() : this.#cutSlab(sizeClass);
    const slab = this.#slabs[address >>> 16]!;
    slab.used++;
    const at = (address & 0xffff) * UNIT_BYTES;
    // A short copy by hand is cheaper than the call.
    if (length <= 24) { for (let i = 0; i < length; i++) slab.bytes[at + i] = bytes[i]!; }
    else slab.bytes.set(bytes, at);
    return address;
  }

  /** Gives the cell back. */
  free(address: number, length: number): void {
    if (address === EMPTY_ADDRESS) return;
    this.usedBytes -= storedBytes(length);
    const index = address >>> 16;
    const slab = this.#slabs[index]!;
    slab.used--;
    if (slab.sizeClass >= 0 && !slab.isClosed) this.#free[slab.sizeClass]!.push(address);
    if (slab.used === 0) this.#dropSlab(index, slab);
  }

  /** Closes the emptiest slabs: as many of each class as its values would leave over if they lay close. Those whose values
   *  `relocate` moves out, or that have none, go back to the system. */
  closeSparse(): void {
    CLASS_UNITS.forEach((units, sizeClass) => {
      const cells = Math.floor(65_536 / units);
      const slabs = this.#slabs
        .map((slab, index) => ({ slab, index }))
        .filter((entry): entry is { slab: Slab; index: number } =>
          entry.slab !== undefined && entry.slab.sizeClass === sizeClass && !entry.slab.isClosed
        )
        .sort((a, b) => a.slab.used - b.slab.used);
      const used = slabs.reduce((sum, { slab }) => sum + slab.used, 0);
      for (const { slab, index } of slabs.slice(0, slabs.length - Math.ceil(used / cells))) {
        this.#free[sizeClass]!.removeSlab(index);
        slab.isClosed = true;
        if (slab.used === 0) this.#dropSlab(index, slab);
      }
    });
  }

  /** Moves a value out of a slab that is closed; returns its address, the same one if it may stay. */
  relocate(address: number, length: number): number {
    if (address === EMPTY_ADDRESS) return address;
    const slab = this.#slabs[address >>> 16]!;
    if (!slab.isClosed) return address;
    const at = offsetOf(address);
    const moved = this.store(slab.bytes.subarray(at, at + length));
    this.free(address, length);
    return moved;
  }

  /** The slab that holds `address`; the bytes are at `offsetOf(address)`. For readers that must not allocate. */
  slabOf(address: number): Uint8Array {
    return address === EMPTY_ADDRESS ? NO_BYTES : this.#slabs[address >>> 16]!.bytes;
  }

  /** A copy of the value: the caller's to keep. */
  copy(address: number, length: number): Uint8Array {
    if (length === 0) return NO_BYTES;
    const at = offsetOf(address);
    return this.#slabs[address >>> 16]!.bytes.slice(at, at + length);
  }

  /** Bytes of all slabs, free cells included. */
  get reservedBytes(): number {
    let sum = 0;
    for (const slab of this.#slabs) sum += slab?.bytes.length ?? 0;
    return sum;
  }

  #storeLarge(bytes: Uint8Array): number {
    const index = this.#newSlab({
      bytes: bytes.slice(),
      sizeClass: -1,
      used: 1,
      isClosed: false,
    });
    return index * 65_536;
  }

  #cutSlab(sizeClass: number): number {
    const index = this.#newSlab({ bytes: new Uint8Array(SLAB_BYTES), sizeClass, used: 0, isClosed: false });
    const units = CLASS_UNITS[sizeClass]!;
    const stack = this.#free[sizeClass]!;
    // Pushed from the end, so that cells are handed out in address order.
    for (let cell = Math.floor(65_536 / units) - 1; cell >= 0; cell--) {
      stack.push(index * 65_536 + cell * units);
    }
    return stack.pop();
  }

  #newSlab(slab: Slab): number {
    const index = this.#freeSlabs.pop() ?? this.#slabs.length;
    // The last index is left out: its last address is EMPTY_ADDRESS.
    if (index >= SLABS_MAX - 1) throw new RangeError("Cannot store: all addresses of the arena are taken");
    this.#slabs[index] = slab;
    return index;
  }

  #dropSlab(index: number, slab: Slab): void {
    if (slab.sizeClass >= 0 && !slab.isClosed) {
      const stack = this.#free[slab.sizeClass]!;
      const cells = Math.floor(65_536 / CLASS_UNITS[slab.sizeClass]!);
      // The last slab's worth of free cells stays, or one value put and deleted would make and drop a slab each time.
      if (stack.size < 2 * cells) return;
      stack.removeSlab(index);
    }
    this.#slabs[index] = undefined;
    this.#freeSlabs.push(index);
  }
}

/** Where the bytes of an address begin in their slab. */
export function offsetOf(address: number): number {
  return (address & 0xffff) * UNIT_BYTES;
}

/** What storing `length` bytes takes, in bytes. */
export function storedBytes(length: number): number {
  if (length === 0) return 0;
  if (length > CELL_BYTES_MAX) return length;
  return CLASS_UNITS[CLASS_OF_UNITS[unitsOf(length)]!]! * UNIT_BYTES;
}

const NO_BYTES = new Uint8Array(0);

/** A growable stack of unsigned 32-bit numbers. */
class AddressStack {
  size = 0;
  #items = new Uint32Array(16);

  push(address: number): void {
    if (this.size === this.#items.length) {
      const larger = new Uint32Array(this.size * 2);
      larger.set(this.#items);
      this.#items = larger;
    }
    this.#items[this.size++] = address;
  }

  pop(): number {
    return this.#items[--this.size]!;
  }

  /** Takes out every address of one slab. */
  removeSlab(index: number): void {
    let kept = 0;
    for (let i = 0; i < this.size; i++) {
      const address = this.#items[i]!;
      if (address >>> 16 !== index) this.#items[kept++] = address;
    }
    this.size = kept;
  }
}

function unitsOf(length: number): number {
  return (length + UNIT_BYTES - 1) >>> 4;
}

function cellSizes(): number[] {
  const sizes: number[] = [];
  for (let units = 1; units < CELL_BYTES_MAX / UNIT_BYTES;) {
    sizes.push(units);
    units += units < 16 ? 1 : Math.floor(units / 5);
  }
  sizes.push(CELL_BYTES_MAX / UNIT_BYTES);
  return sizes;
}

function classTable(): Uint8Array {
  const table = new Uint8Array(CELL_BYTES_MAX / UNIT_BYTES + 1);
  let sizeClass = 0;
  for (let units = 1; units < table.length; units++) {
    if (units > CLASS_UNITS[sizeClass]!) sizeClass++;
    table[units] = sizeClass;
  }
  return table;
}
