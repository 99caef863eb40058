/** What is to be sent to one gateway worker: gathered until the worker takes it, so that what a busy link cannot carry yet
 *  becomes one message instead of many.
 *
 *      what channels are told ─┐   opened, access, refused, ask, closed: in their order
 *      what is on disk ────────┤   the newest number of each channel; behind all refusals
 *      answers ────────────────┼─► one message of up to MESSAGE_BYTES
 *      documents ──────────────┘   updates of a document that the gateway is ready for, merged
 */
import type { ChannelOutput, DocumentOutput, LinkResponse } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import type { LinkDocument } from "./link_document.ts";

/** About the most that one message carries, in bytes: short messages let others in between. One update more than that travels
 *  alone; messages between workers hold 4 MiB. */
export const MESSAGE_BYTES = 1_024 * 1_024;
/** Piece of an answer in one message: a large answer lets edits pass in between. */
export const PIECE_BYTES = 512 * 1_024;
/** Outputs for channels that may wait. A gateway that takes none while so many gather has died without saying so. */
export const OUTPUTS_MAX = 500_000;
/** What an output takes besides its bytes and texts, about. */
const OUTPUT_BYTES = 24;

type Output = ChannelOutput["output"];

/** Updates that some channels are to get, one after the other. */
interface Answer {
  /** At least one is still open, or it is dropped. */
  channels: number[];
  readonly updates: readonly Uint8Array[];
  /** The update that is sent now, and how much of it was. */
  index: number;
  sentBytes: number;
}

/** Gathers and cuts messages. */
export class Outbox {
  isOver = false;
  readonly #endOfTurn: (fn: () => void) => void;
  #outputs: ChannelOutput[] = [];
  /** Newest saved number by channel. */
  #saved = new Map<number, number>();
  #answers: Answer[] = [];
  #documents = new Set<LinkDocument>();
  /** Channels that are open: who is not gets nothing more. */
  readonly #isOpen: (channel: number) => boolean;
  #isScheduled = false;
  #isDue = false;
  #wake: (() => void) | undefined;

  constructor(endOfTurn: (fn: () => void) => void, isOpen: (channel: number) => boolean) {
    this.#endOfTurn = endOfTurn;
    this.#isOpen = isOpen;
  }

  /** Outputs for channels that wait. */
  get size(): number {
    return this.#outputs.length;
  }

  tell(channel: number, output: Output): void {
    this.#outputs.push({ $typeName: "aetherflow.statesync.v1.ChannelOutput", channel, output });
    this.#schedule();
  }

  /** All updates of a channel up to `number` are on disk, or were refused. */
  saved(channel: number, number: number): void {
    this.#saved.set(channel, number);
    this.#schedule();
  }

  /** Answers a channel's question. Equal answers that have not begun are sent once. */
  answer(channel: number, updates: readonly Uint8Array[]): void {
    const same = this.#answers.find((other) =>
      other.index === 0 && other.sentBytes === 0 && other.updates.length === updates.length &&
      other.updates.every((update, i) => update === updates[i])
    );
    if (same !== undefined) same.channels.push(channel);
    else this.#answers.push({ channels: [channel], updates, index: 0, sentBytes: 0 });
    this.#schedule();
  }

  /** The document has something to send. */
  add(document: LinkDocument): void {
    this.#documents.add(document);
    this.#schedule();
  }

  /** Nothing of the document is sent any more. */
  remove(document: LinkDocument): void {
    this.#documents.delete(document);
  }

  /** The messages as they come, until `end`. The first one comes at once. */
  async *messages(): AsyncGenerator<LinkResponse, void, void> {
    yield { $typeName: "aetherflow.statesync.v1.LinkResponse", outputs: [], documents: [] };
    for (;;) {
      const next = this.#isDue ? this.#cut() : undefined;
      if (next !== undefined) yield next;
      else if (this.isOver) return;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Ends `messages`. Idempotent. */
  end(): void {
    this.isOver = true;
    this.#signal();
  }

  #schedule(): void {
    if (this.#isScheduled || this.isOver) return;
    this.#isScheduled = true;
    this.#endOfTurn(() => {
      this.#isScheduled = false;
      this.#isDue = true;
      this.#signal();
    });
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** The next message; undefined when there is nothing to say. */
  #cut(): LinkResponse | undefined {
    const { outputs, bytes } = this.#cutOutputs();
    let used = bytes;
    if (this.#outputs.length === 0) {
      for (const [channel, number] of this.#saved) {
        outputs.push(outputOf(channel, { case: "saved", value: number }));
      }
      this.#saved = new Map();
      used = this.#cutAnswers(outputs, used);
    }
    const documents = this.#cutDocuments(used);
    const isAll = this.#outputs.length === 0 && this.#answers.length === 0 && this.#documents.size === 0;
    if (isAll) this.#isDue = false;
    if (outputs.length === 0 && documents.length === 0) {
      this.#isDue = false;
      return undefined;
    }
    return { $typeName: "aetherflow.statesync.v1.LinkResponse", outputs, documents };
  }

  #cutOutputs(): { outputs: ChannelOutput[]; bytes: number } {
    let count = 0;
    let bytes = 0;
    while (count < this.#outputs.length && bytes < MESSAGE_BYTES) {
      bytes += sizeOf(this.#outputs[count++]!.output);
    }
    const outputs = this.#outputs.splice(0, count);
    return { outputs, bytes };
  }

  /** Adds pieces of answers while there is room; returns the bytes used. */
  #cutAnswers(outputs: ChannelOutput[], used: number): number {
    let shared = 0;
    while (this.#answers.length > 0 && used < MESSAGE_BYTES) {
      const answer = this.#answers[0]!;
      answer.channels = answer.channels.filter(this.#isOpen);
      if (answer.channels.length === 0) {
        this.#answers.shift();
        continue;
      }
      const whole = answer.updates[answer.index]!;
      const left = whole.length - answer.sentBytes;
      const room = Math.min(PIECE_BYTES, MESSAGE_BYTES - used);
      const length = Math.min(left, room);
      const update = whole.subarray(answer.sentBytes, answer.sentBytes + length);
      const isPart = length < left;
      if (isPart) answer.sentBytes += length;
      else {
        answer.sentBytes = 0;
        answer.index++;
      }
      const isDone = answer.index === answer.updates.length;
      const number = answer.channels.length > 1 ? ++shared : 0;
      answer.channels.forEach((channel, i) =>
        outputs.push(outputOf(channel, {
          case: "answer",
          value: {
            $typeName: "aetherflow.statesync.v1.SyncAnswer",
            update: (i === 0 ? update : NO_BYTES) as Uint8Array<ArrayBuffer>,
            more: !isDone && !isPart,
            shared: number,
            part: isPart,
          },
        }))
      );
      used += length + answer.channels.length * OUTPUT_BYTES;
      if (isDone) this.#answers.shift();
    }
    return used;
  }

  #cutDocuments(used: number): DocumentOutput[] {
    const documents: DocumentOutput[] = [];
    for (const document of this.#documents) {
      if (used >= MESSAGE_BYTES) break;
      const { output, bytes, hasMore } = document.take(MESSAGE_BYTES - used, used === 0);
      if (!hasMore) this.#documents.delete(document);
      if (output !== undefined) {
        documents.push(output);
        used += bytes;
      }
    }
    return documents;
  }
}

const NO_BYTES = new Uint8Array(0);

function outputOf(channel: number, output: Output): ChannelOutput {
  return { $typeName: "aetherflow.statesync.v1.ChannelOutput", channel, output };
}

function sizeOf(output: Output): number {
  switch (output.case) {
    case "opened":
      return OUTPUT_BYTES + output.value.stateVector.length;
    case "ask":
      return OUTPUT_BYTES + output.value.length;
    case "refused":
    case "closed":
      return OUTPUT_BYTES + output.value.reason.length * 3;
    default:
      return OUTPUT_BYTES;
  }
}
