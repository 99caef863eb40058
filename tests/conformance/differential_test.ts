/** The comparison itself is right: it is silent about two equal servers and finds a wrong answer. */
import { KV, type RangeResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { startEtcd } from "../support/server.ts";
import { compareServers, DifferenceError } from "./differential.ts";

/** bcrypt at its cheapest: how passwords are hashed is not what is compared. */
const ETCD = { unsafeNoFsync: true, args: ["--bcrypt-cost=4"] };
/** The kinds of operation that a long enough run has. */
const KINDS = 40;

const replay = Deno.env.get("AETHERFLOW_SIM_SEED");
const isSoak = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** The same run every time, so that a change is what makes it fail; another in a soak. */
const seed = Number(replay ?? (isSoak ? crypto.getRandomValues(new Uint32Array(1))[0] : 1));

Deno.test("compareServers() finds two etcd servers alike, whatever the seed: it reports no noise", async (t) => {
  await using reference = await startEtcd(t, ETCD);
  await using subject = await startEtcd(t, ETCD);
  if (reference === undefined || subject === undefined) return;
  const sent = await compareServers({
    reference: reference.address,
    subject: subject.address,
    seed,
    operations: 2_000,
  });
  assert(sent.size > 0.8 * KINDS, `kinds of operation sent: ${[...sent.keys()].join(" ")}`);
});

Deno.test("compareServers() finds one wrong count among 2,000 answers and says how to get it again", async (t) => {
  await using reference = await startEtcd(t, ETCD);
  await using subject = await startEtcd(t, ETCD);
  if (reference === undefined || subject === undefined) return;
  let ranges = 0;
  const error = await assertRejects(() =>
    compareServers({
      reference: reference.address,
      subject: subject.address,
      seed: 7,
      operations: 2_000,
      tamper(operation, outcome) {
        if (operation.kind !== "call" || operation.method !== KV.method.range || !outcome.ok) return outcome;
        if (++ranges !== 100) return outcome;
        const answer = outcome.message as RangeResponse;
        return { ok: true, message: { ...answer, count: answer.count + 1n } };
      },
    }), DifferenceError);
  assertEquals(error.message.match(/^seed 7, operation \d+: Range /)?.length, 1, error.message);
});
