import type { Balancer, BalancerNode } from "./balancer.ts";

/** The one of two nodes drawn by lot that has fewer calls under way ("the power of two choices"). To take the least busy of
 *  all would send what several gateways have to the same node at once; two draws spread nearly as well, and do not. */
export function createLeastOutstanding<N extends BalancerNode>(chance: () => number): Balancer<N> {
  return {
    update() {},
    pick(candidates) {
      const count = candidates.length;
      if (count === 1) return candidates[0]!;
      const first = Math.floor(chance() * count);
      // Of the others, so that the two differ.
      const second = (first + 1 + Math.floor(chance() * (count - 1))) % count;
      const a = candidates[first]!, b = candidates[second]!;
      return b.outstanding < a.outstanding ? b : a;
    },
  };
}
