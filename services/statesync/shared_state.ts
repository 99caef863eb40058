/** What clients that join a document lack, made once for all of them: the content as it was encoded some time ago, and the
 *  updates since. It is encoded anew only when those have grown beyond a part of it. */
import { StateSyncError } from "./errors.ts";
import type { Content } from "./crdt/content.ts";
import { checkStateVector } from "./crdt/limits.ts";
import { decodeStateVector, encodeStateVector, mergeUpdates } from "./crdt/yjs.ts";

/** The updates behind the encoded content may have this part of its bytes, and at least TAIL_BYTES_MIN. */
const TAIL_PART = 4;
const TAIL_BYTES_MIN = 65_536;
const TAIL_UPDATES_MAX = 256;
/** Updates behind the encoded content that who joins is sent: more are merged first. */
const SENT_UPDATES_MAX = 16;
/** Clients that a state vector may name: more than work on one document in years. */
const VECTOR_CLIENTS_MAX = 100_000;
/** Answers remembered while the content stays the same. */
const ANSWERS_MAX = 64;
/** Bytes of all of them; one that is larger is remembered alone. */
const ANSWERS_BYTES_MAX = 4_194_304;
/** Bytes of a state vector whose answer is remembered: one of several thousand clients. */
const REMEMBERED_VECTOR_BYTES_MAX = 65_536;

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
  #answersBytes = 0;

  /** `base` and the updates behind it, where they are at hand. */
  constructor(content: Content, base: Uint8Array | undefined, tail: readonly Uint8Array[]) {
    this.#content = content;
    this.#base = base;
    this.#tail = base === undefined ? [] : [...tail];
    this.#tailBytes = this.#tail.reduce((bytes, update) => bytes + update.length, 0);
  }

  /** Bytes held besides the content. */
  get bytes(): number {
    return (this.#base?.length ?? 0) + this.#tailBytes + this.#answersBytes + (this.#canonical?.length ?? 0);
  }

  /** The content has this update too, by now. */
  add(update: Uint8Array): void {
    this.#vector = undefined;
    this.#clocks = undefined;
    this.#canonical = undefined;
    this.#whole = undefined;
    this.#forgetAnswers();
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
    this.#whole = undefined;
    this.#forgetAnswers();
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
    if (this.#tail.length > SENT_UPDATES_MAX) this.#tail = [mergeUpdates(this.#tail)];
    return this.#whole ??= [this.#base, ...this.#tail];
  }

  /** What somebody with that state vector lacks. Questions that come to the same get the same arrays: edits that are not here
   *  make no difference.
   *  @throws {StateSyncError} `invalid` for what is no state vector */
  answer(vector: Uint8Array): readonly Uint8Array[] {
    if (vector.length <= 1) return this.whole();
    const shared = this.#sharedPart(vector);
    // Who made all of its edits elsewhere lacks everything.
    if (shared.size === 0) return this.whole();
    const key = vector.length <= REMEMBERED_VECTOR_BYTES_MAX ? keyOf(shared) : undefined;
    const known = key === undefined ? undefined : this.#answers.get(key);
    if (known !== undefined) return known;
    const answer = [this.#content.diff(encodeStateVector(shared))] as const;
    if (key !== undefined) this.#remember(key, answer);
    return answer;
  }

  #remember(key: string, answer: readonly [Uint8Array]): void {
    const { length } = answer[0];
    if (this.#answers.size >= ANSWERS_MAX || this.#answersBytes + length > ANSWERS_BYTES_MAX) {
      this.#forgetAnswers();
    }
    this.#answers.set(key, answer);
    this.#answersBytes += length;
  }

  #forgetAnswers(): void {
    this.#answers.clear();
    this.#answersBytes = 0;
  }

  /** What of a vector the content has, by client. */
  #sharedPart(vector: Uint8Array): Map<number, number> {
    try {
      checkStateVector(vector, VECTOR_CLIENTS_MAX);
    } catch (error) {
      throw new StateSyncError("invalid", error instanceof Error ? error.message : undefined, {
        cause: error,
      });
    }
    this.#clocks ??= decodeStateVector(this.vector());
    const shared = new Map<number, number>();
    for (const [client, clock] of decodeStateVector(vector)) {
      const here = this.#clocks.get(client) ?? 0;
      if (clock > 0 && here > 0) shared.set(client, Math.min(clock, here));
    }
    return shared;
  }
}

function keyOf(vector: ReadonlyMap<number, number>): string {
  const parts: string[] = [];
  for (const [client, clock] of vector) parts.push(`${client}:${clock}`);
  // In whichever order they came.
  return parts.sort().join(" ");
}
