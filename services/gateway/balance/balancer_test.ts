import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { createSeededRandom, randomFraction } from "../../runtime/random.ts";
import { type Balancer, BALANCERS, createBalancer } from "./balancer.ts";
import { hashBytes, hashText } from "./hash.ts";
import { LOAD_MAX } from "./ring_hash.ts";

interface Node {
  readonly name: string;
  outstanding: number;
}

const named = (count: number): Node[] =>
  Array.from({ length: count }, (_, i) => ({ name: `session@10.0.0.${i}:7402`, outstanding: 0 }));

function seeded(seed: number): () => number {
  const random = createSeededRandom(seed);
  return () => randomFraction(random);
}

/** Where each of `count` keys goes while nothing is under way. */
function homes(balancer: Balancer<Node>, nodes: readonly Node[], count: number): string[] {
  return Array.from({ length: count }, (_, i) => balancer.pick(nodes, hashText(`doc-${i}`)).name);
}

Deno.test("every balancer chooses one of the candidates", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...BALANCERS),
      fc.integer(),
      fc.array(fc.record({ up: fc.boolean(), load: fc.nat(20) }), { minLength: 1, maxLength: 12 }),
      fc.array(fc.option(fc.nat(0xffff_ffff), { nil: undefined }), { minLength: 1, maxLength: 40 }),
      (kind, seed, states, hashes) => {
        const nodes = named(states.length);
        const balancer = createBalancer<Node>(kind, seeded(seed));
        balancer.update(nodes);
        nodes.forEach((node, i) => node.outstanding = states[i]!.load);
        const candidates = nodes.filter((_, i) => states[i]!.up || i === 0);
        for (const hash of hashes) assert(candidates.includes(balancer.pick(candidates, hash)));
      },
    ),
  );
});

Deno.test("round robin takes each node in turn and passes over those that may not be chosen", () => {
  const nodes = named(3);
  const balancer = createBalancer<Node>("roundRobin", () => 0);
  balancer.update(nodes);
  const picks = (count: number, candidates: readonly Node[]) =>
    Array.from({ length: count }, () => nodes.indexOf(balancer.pick(candidates, undefined)));
  assertEquals(picks(7, nodes), [0, 1, 2, 0, 1, 2, 0]);
  assertEquals(picks(4, [nodes[0]!, nodes[2]!]), [2, 0, 2, 0]);
  balancer.update(nodes.slice(0, 2));
  assertEquals(picks(4, nodes.slice(0, 2)).toSorted(), [0, 0, 1, 1]);
});

Deno.test("least outstanding never takes the busiest of all, and spreads calls that do not end", () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 2, max: 16 }), (seed, count) => {
      const nodes = named(count);
      const balancer = createBalancer<Node>("leastOutstanding", seeded(seed));
      for (let i = 0; i < count * 100; i++) balancer.pick(nodes, undefined).outstanding++;
      const loads = nodes.map(({ outstanding }) => outstanding);
      // Two choices: the fullest is over the mean by about log log n, where one choice is by tens.
      assert(Math.max(...loads) - 100 <= 6, `${loads}`);
      nodes[0]!.outstanding = 1_000;
      for (let i = 0; i < 50; i++) assert(balancer.pick(nodes, undefined) !== nodes[0]);
    }),
    { numRuns: 50 },
  );
});

Deno.test("ring hash sends a key to one node, whatever the order of the address book", () => {
  const nodes = named(7);
  const [one, other] = [createBalancer<Node>("ringHash", () => 0), createBalancer<Node>("ringHash", () => 0)];
  one.update(nodes);
  other.update(nodes.toReversed());
  assertEquals(homes(one, nodes, 500), homes(one, nodes, 500));
  assertEquals(homes(one, nodes, 500), homes(other, nodes, 500));
});

Deno.test("ring hash moves no keys but those of a node that dies, and gives a new one only its share", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), fc.nat(), (count, which) => {
      const nodes = named(count + 1);
      const all = nodes.slice(0, count);
      const balancer = createBalancer<Node>("ringHash", () => 0);
      balancer.update(all);
      const before = homes(balancer, all, 1_000);

      const dead = all[which % count]!;
      const left = all.filter((node) => node !== dead);
      balancer.update(left);
      const after = homes(balancer, left, 1_000);
      for (let i = 0; i < 1_000; i++) assert(before[i] === dead.name || after[i] === before[i]);
      assert(!after.includes(dead.name)); // dead nodes are in no ring

      balancer.update(nodes);
      const grown = homes(balancer, nodes, 1_000);
      const moved = grown.filter((home, i) => home !== before[i]);
      assert(moved.every((home) => home === nodes[count]!.name));
      assert(moved.length < 2 * 1_000 / (count + 1), `${moved.length} of 1000 moved to one of ${count + 1}`);
    }),
    { numRuns: 40 },
  );
});

Deno.test("ring hash keeps every node within its bound, however popular a key", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 10 }),
      fc.array(fc.record({ key: fc.nat(4), end: fc.boolean() }), { minLength: 50, maxLength: 300 }),
      (count, steps) => {
        const nodes = named(count);
        const balancer = createBalancer<Node>("ringHash", () => 0);
        balancer.update(nodes);
        const running: Node[] = [];
        for (const { key, end } of steps) {
          if (end && running.length > 0) running.shift()!.outstanding--;
          const node = balancer.pick(nodes, hashText(`doc-${key}`));
          node.outstanding++;
          running.push(node);
          const bound = Math.ceil(LOAD_MAX * running.length / count);
          assert(node.outstanding <= bound, `${node.outstanding} of ${running.length} at one of ${count}`);
        }
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("hashes are the same for ever: where keys live hangs on them", () => {
  assertEquals([hashText(""), hashText("doc-1"), hashText("Ω")], [
    hashBytes(new Uint8Array()),
    hashBytes(new TextEncoder().encode("doc-1")),
    hashBytes(Uint8Array.of(0xce, 0xa9)),
  ]);
  assertEquals([hashText(""), hashText("doc-1")], [2_872_998_923, 1_578_409_436]);
});
