/** Choice of one of several instances of a service. */
import { createLeastOutstanding } from "./least_outstanding.ts";
import { createRingHash } from "./ring_hash.ts";
import { createRoundRobin } from "./round_robin.ts";

/** What a choice looks at. */
export interface BalancerNode {
  /** Unique among the nodes; where keys live on the ring depends on it. */
  readonly name: string;
  /** Calls of ours under way there. */
  readonly outstanding: number;
}

/** Chooses nodes. Not one is asked about itself: who may be chosen is the caller's to say. */
export interface Balancer<N extends BalancerNode> {
  /** Takes the nodes that there are from now on. */
  update(nodes: readonly N[]): void;
  /** One of `candidates`, which are some of the nodes, at least one. `hash` is the call's key by `hashText` or `hashBytes`;
   *  calls without one are spread. */
  pick(candidates: readonly N[], hash: number | undefined): N;
}

/** Names of the ways to choose, as in the configuration. */
export const BALANCERS = ["roundRobin", "leastOutstanding", "ringHash"] as const;

/** One of them. */
export type BalancerKind = typeof BALANCERS[number];

/** Creates a balancer. `chance` gives numbers in [0, 1). */
export function createBalancer<N extends BalancerNode>(
  kind: BalancerKind,
  chance: () => number,
): Balancer<N> {
  switch (kind) {
    case "roundRobin":
      return createRoundRobin();
    case "leastOutstanding":
      return createLeastOutstanding(chance);
    case "ringHash":
      return createRingHash(createLeastOutstanding(chance));
  }
}
