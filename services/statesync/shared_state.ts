/** What clients that join a document lack, made once for all of them: the content as it was encoded some time ago, and the
 *  updates since. It is encoded anew only when those have grown beyond a part of it. */
import { StateSyncError } from "./errors.ts";
import type { Content } from "./crdt/content.ts";
import { checkStateVector } from "./crdt/limits.ts";
import { decodeStateVector } from "./crdt/yjs.ts";

/** The updates behind the encoded content may have this part of its bytes, and at least TAIL_BYTES_MIN. */
const TAIL_PART = 4;
const TAIL_BYTES_MIN = 65_536;
/** Each is a message to each that joins. */
const TAIL_UPDATES_MAX = 256;
/** Clients that a state vector may name: more than work on one document in years. */
const VECTOR_CLIENTS_MAX = 100_000;
/** Answers remembered while the content stays the same. */
const ANSWERS_MAX = 64;
/** Bytes of a state vector whose answer is remembered. */
const REMEMBERED_VECTOR_BYTES_MAX = 4_096;

/** The content as it is shared. It has what is under way too: who answers with it waits for that first. */
export class SharedState {
  readonly #content: Content;
  #base: Uint8Array | undefined;
  #tail: Uint8Array[];
  #tailBytes: number;
  #vector: Uint8Array | undefined;
  /** The vector, by client. */
  #clocks: ReadonlyMap<number, number> | undefined;
  #canonical: Uint8Array | undefined;
  #whole: readonly Uint8Array[] | undefined;
  readonly #answers = new Map<string, readonly Uint8Array[]>();

  /** `base` and the updates behind it, where they are at hand. */
  constructor(content: Content, base: Uint8Array | undefined, tail: readonly Uint8Array[]) {
    this.#content = content;
    this.#base = base;
    this.#tail = base === undefined ? [] : [...tail];
    this.#tailBytes = this.#tail.reduce((bytes, update) => bytes + update.length, 0);
  }

  /** Bytes held besides the content. */
  get bytes(): number {
    return (this.#base?.length ?? 0) + this.#tailBytes + (this.#canonical?.length ?? 0);
  }

  /** The content has this update too, by now. */
  add(update: Uint8Array): void {
    this.#vector = undefined;
    this.#clocks = undefined;
    this.#canonical = undefined;
    this.#whole = undefined;
    this.#answers.clear();
    if (this.#base === undefined) return;
    this.#tail.push(update);
    this.#tailBytes += update.length;
    const bytesMax = Math.max(TAIL_BYTES_MIN, this.#base.length / TAIL_PART);
    if (this.#tailBytes > bytesMax || this.#tail.length > TAIL_UPDATES_MAX) this.drop();
  }

  /** Lets go of the encoded content; it is made again when it is asked for. */
  drop(): void {
    this.#base = undefined;
    this.#canonical = undefined;
    this.#tail = [];
    this.#tailBytes = 0;
  }

  /** The state vector of the content. */
  vector(): Uint8Array {
    return this.#vector ??= this.#content.stateVector();
  }

  /** The canonical form of the content. The array is shared. */
  canonical(): Uint8Array {
    return this.#canonical ??= this.#content.canonical();
  }

  /** Updates that make the content from nothing, in order. */
  whole(): readonly Uint8Array[] {
    this.#base ??= this.#content.encodeState();
    return this.#whole ??= [this.#base, ...this.#tail];
  }

  /** What somebody with that state vector lacks. Equal questions get the same arrays.
   *  @throws {StateSyncError} `invalid` for what is no state vector */
  answer(vector: Uint8Array): readonly Uint8Array[] {
    if (vector.length <= 1) return this.whole();
    const isRemembered = vector.length <= REMEMBERED_VECTOR_BYTES_MAX;
    const key = isRemembered ? keyOf(vector) : "";
    const known = isRemembered ? this.#answers.get(key) : undefined;
    if (known !== undefined) return known;
    const answer = this.#hasAnyOf(vector) ? [this.#content.diff(vector)] : this.whole();
    if (isRemembered && this.#answers.size < ANSWERS_MAX) this.#answers.set(key, answer);
    return answer;
  }

  /** Whether the vector names anything that the content has: who made all of its own edits elsewhere lacks everything. */
  #hasAnyOf(vector: Uint8Array): boolean {
    try {
      checkStateVector(vector, VECTOR_CLIENTS_MAX);
    } catch (error) {
      throw new StateSyncError("invalid", error instanceof Error ? error.message : undefined, {
        cause: error,
      });
    }
    this.#clocks ??= decodeStateVector(this.vector());
    for (const [client, clock] of decodeStateVector(vector)) {
      if (clock > 0 && (this.#clocks.get(client) ?? 0) > 0) return true;
    }
    return false;
  }
}

function keyOf(bytes: Uint8Array): string {
  let key = "";
  for (const byte of bytes) key += String.fromCharCode(byte);
  return key;
}
