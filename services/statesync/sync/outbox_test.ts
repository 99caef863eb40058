import { assert, assertEquals } from "@std/assert";
import type { LinkResponse, SyncAnswer } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { joinBytes } from "../../runtime/bytes.ts";
import { MESSAGE_BYTES, Outbox, PIECE_BYTES } from "./outbox.ts";

/** An outbox, with the turn ended by hand. */
async function open(isOpen: (channel: number) => boolean = () => true) {
  const ends: (() => void)[] = [];
  const outbox = new Outbox((fn) => void ends.push(fn), isOpen);
  const messages = outbox.messages();
  assertEquals((await messages.next()).value!.outputs, []); // at once
  return {
    outbox,
    endTurn: () => ends.splice(0).forEach((end) => end()),
    /** All that is to be said now. */
    async all(): Promise<LinkResponse[]> {
      ends.splice(0).forEach((end) => end());
      outbox.end();
      const found: LinkResponse[] = [];
      for await (const message of messages) found.push(message);
      return found;
    },
  };
}

/** Answers by channel, put together as a gateway does. */
function answersOf(
  messages: readonly LinkResponse[],
): Map<number, { updates: Uint8Array[]; isWhole: boolean }> {
  const answers = new Map<number, { updates: Uint8Array[]; pieces: Uint8Array[]; isWhole: boolean }>();
  for (const { outputs } of messages) {
    const shared: Uint8Array[] = [];
    for (const { channel, output } of outputs) {
      if (output.case !== "answer") continue;
      const { shared: number, update, more, part } = output.value as SyncAnswer;
      if (number > 0 && update.length > 0) shared[number] = update;
      const answer = answers.get(channel) ?? { updates: [], pieces: [], isWhole: false };
      answers.set(channel, answer);
      answer.pieces.push(number > 0 ? shared[number]! : update);
      if (part) continue;
      answer.updates.push(joinBytes(answer.pieces));
      answer.pieces = [];
      answer.isWhole = !more;
    }
  }
  return answers;
}

Deno.test("what a turn says is one message, refusals before what is saved", async () => {
  const { outbox, all } = await open();
  outbox.saved(1, 4);
  outbox.tell(1, {
    case: "refused",
    value: { $typeName: "aetherflow.statesync.v1.RefusedUpdate", number: 3, code: 7, reason: "no" },
  });
  outbox.saved(1, 5);
  const messages = await all();
  assertEquals(messages.map(({ outputs }) => outputs.map(({ output }) => [output.case])), [[["refused"], [
    "saved",
  ]]]);
  assertEquals(messages[0]!.outputs[1]!.output.value, 5);
});

Deno.test("a large answer comes in pieces below the bound of messages, and is the same for all who share it", async () => {
  const { outbox, all } = await open();
  const large = Uint8Array.from({ length: PIECE_BYTES * 3 + 17 }, (_, i) => i * 31);
  const updates = [large, Uint8Array.of(1, 2, 3)];
  outbox.answer(1, updates);
  outbox.answer(2, updates);
  outbox.answer(3, [Uint8Array.of(9)]);
  const messages = await all();
  let bytes = 0;
  for (const { outputs } of messages) {
    let length = 0;
    for (const { output } of outputs) if (output.case === "answer") length += output.value.update.length;
    assert(length <= MESSAGE_BYTES);
    bytes += length;
  }
  assertEquals(bytes, large.length + 3 + 1);
  const answers = answersOf(messages);
  for (const channel of [1, 2]) {
    assert(answers.get(channel)!.updates[0]!.every((byte, i) => byte === large[i]));
    assertEquals([answers.get(channel)!.updates[1], answers.get(channel)!.isWhole], [
      Uint8Array.of(1, 2, 3),
      true,
    ]);
  }
  assertEquals([answers.get(3)!.updates, answers.get(3)!.isWhole], [[Uint8Array.of(9)], true]);
});

Deno.test("who has gone gets nothing more of an answer, and those who share it all of it", async () => {
  const gone = new Set<number>();
  const { outbox, all } = await open((channel) => !gone.has(channel));
  const updates = [new Uint8Array(PIECE_BYTES * 2 + 1).fill(5)];
  outbox.answer(1, updates);
  outbox.answer(2, updates);
  outbox.answer(3, [Uint8Array.of(1)]);
  gone.add(1).add(3);
  const answers = answersOf(await all());
  assertEquals([...answers.keys()], [2]);
  assertEquals(answers.get(2)!.updates[0]!.length, updates[0]!.length);
});

Deno.test("many outputs are cut into several messages, and what is saved comes behind all of them", async () => {
  const { outbox, all } = await open();
  const reason = "x".repeat(10_000);
  const count = 200;
  for (let i = 1; i <= count; i++) {
    outbox.tell(i, {
      case: "closed",
      value: { $typeName: "aetherflow.statesync.v1.ChannelClosed", code: 14, reason },
    });
  }
  outbox.saved(999, 1);
  const messages = await all();
  assert(messages.length > 1);
  const cases = messages.flatMap(({ outputs }) => outputs.map(({ output }) => output.case));
  assertEquals([cases.length, cases.indexOf("saved")], [count + 1, count]);
});
