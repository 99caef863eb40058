import type { Balancer, BalancerNode } from "./balancer.ts";

/** One after the other. A node that may not be chosen now is passed over, and its turn is not made up for. */
export function createRoundRobin<N extends BalancerNode>(): Balancer<N> {
  let nodes: readonly N[] = [];
  let next = 0;
  return {
    update(all) {
      nodes = all;
    },
    pick(candidates) {
      for (let passed = 0; passed < nodes.length; passed++) {
        const node = nodes[next++ % nodes.length]!;
        if (next >= nodes.length) next %= nodes.length;
        if (candidates.includes(node)) return node;
      }
      return candidates[0]!;
    },
  };
}
