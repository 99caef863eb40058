import type { Balancer, BalancerNode } from "./balancer.ts";
import { hashText } from "./hash.ts";

/** Points of one node on the ring. The shares of nodes then differ by some 10 % (1/√128), and a ring of 64 nodes is built
 *  in a few milliseconds. */
export const POINTS_PER_NODE = 128;

/** A node takes no more calls than this times the mean of all that may be chosen, rounded up; what is over goes on to the
 *  next node on the ring, so that one popular key cannot bury its node. */
export const LOAD_MAX = 1.25;

/** Consistent hashing with bounded load: a key keeps its node while the node lives, is not overloaded and may be chosen;
 *  when a node comes or goes, only the keys of its own share move. Calls without a key go to `keyless`. */
export function createRingHash<N extends BalancerNode>(keyless: Balancer<N>): Balancer<N> {
  let points = new Uint32Array(0);
  let owners: readonly N[] = [];

  /** Index of the first point at or after `hash`, around the end. */
  function find(hash: number): number {
    let low = 0, high = points.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (points[middle]! < hash) low = middle + 1;
      else high = middle;
    }
    return low === points.length ? 0 : low;
  }

  return {
    update(nodes) {
      keyless.update(nodes);
      const made = nodes.flatMap((node) =>
        Array.from({ length: POINTS_PER_NODE }, (_, i) => ({ at: hashText(`${node.name}#${i}`), node }))
      );
      // By name where points meet: every gateway builds the same ring, whatever the order of its address book.
      made.sort((a, b) => a.at - b.at || (a.node.name < b.node.name ? -1 : 1));
      points = Uint32Array.from(made, ({ at }) => at);
      owners = made.map(({ node }) => node);
    },
    pick(candidates, hash) {
      if (hash === undefined || points.length === 0) return keyless.pick(candidates, undefined);
      let total = 1;
      for (const { outstanding } of candidates) total += outstanding;
      const most = Math.ceil(LOAD_MAX * total / candidates.length);
      const start = find(hash);
      for (let step = 0; step < owners.length; step++) {
        const node = owners[(start + step) % owners.length]!;
        if (node.outstanding < most && candidates.includes(node)) return node;
      }
      // Not reached while the candidates are nodes of the ring: some node is at or below the mean.
      return keyless.pick(candidates, undefined);
    },
  };
}
