/** Every etcdctl 3.4 subcommand that makes sense with one member, run against a real etcd and against the product: output,
 *  errors and exit codes are the same. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  DeleteRangeResponseSchema,
  PutResponseSchema,
  RangeResponseSchema,
  TxnResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { startEtcd } from "../support/server.ts";
import {
  type CommandStep,
  compare,
  etcdctl,
  type Pair,
  Running,
  sayAll,
  startPair,
  type Step,
  type Target,
  targetOf,
} from "./etcdctl.ts";

Deno.test("compare() shows what differs, and nothing but that", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await etcdctl(pair.ours, ["put", "only", "ours"]);
  const error = await assertRejects(() => compare(pair, ["get neither", "get only"]), Error);
  assert(error.message.includes("-- etcd: $ etcdctl get only\nexit 0\n--\n"), error.message);
  assert(error.message.includes("-- ours: $ etcdctl get only\nexit 0\nonly\nours\n--\n"), error.message);
  assert(!error.message.includes("get neither"), error.message);
});

Deno.test("etcdctl put, get, del", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await compare(pair, [
    "put a 1",
    "put a 2 --prev-kv",
    "put a 3 --prev-kv -w json",
    "put a 4 --prev-kv -w fields",
    { run: "put from-stdin", stdin: "a value\nof lines" },
    { run: "put -- --dashes", stdin: "x" },
    "put empty ''",
    "put b/1 x",
    "put b/2 y",
    "put b/3 x",
    "put b/2 z",
    "put c 1",
    { run: "lease grant 600", lease: "one" },
    { run: "lease grant 600 -w json", lease: "unnamed", leaveOut: [/"ID":\d+/g] },
    "put leased 1 --lease={one}",
    "put leased 2 --ignore-lease",
    "put leased --ignore-value --lease=0",
    "get leased -w fields",
    "put leased --ignore-value --lease={one} -w json",
    "get leased -w json",
    "put leased 3",
    "put nothing --ignore-value",
    "put nothing 1 --ignore-lease",
    "put a 1 --ignore-value",
    "put a 1 --ignore-lease --lease={one}",
    "put a 1 --lease=123",
    "put a 1 --lease=xyz",
    "put",
    "put a b c",
    "put '' 1",
    "put a 1 --no-such-flag",

    "get a",
    "get a -w json",
    "get a -w fields",
    "get a -w simple",
    "get a -w table",
    { run: "get a -w protobuf", as: RangeResponseSchema },
    { run: "put a 4 --prev-kv -w protobuf", as: PutResponseSchema },
    "get a -w nonsense",
    "get a --hex",
    "get a --hex -w json",
    "get a --hex -w fields",
    "get a --print-value-only",
    "get a --print-value-only -w json",
    "get nothing",
    "get nothing -w json",
    "get nothing -w fields",
    "get from-stdin",
    "get empty",
    "get b/ --prefix",
    "get b/ --prefix --keys-only",
    "get b/ --prefix --keys-only -w json",
    "get b/ --prefix --count-only",
    "get b/ --prefix --count-only -w fields",
    "get b/ --prefix --count-only -w json",
    "get b/ --prefix --print-value-only",
    "get b/ --prefix --limit=2",
    "get b/ --prefix --limit=2 -w json",
    "get b/ --prefix --limit=0",
    "get b/ --prefix --limit=-1",
    "get b/1 b/3",
    "get b/1 b/1",
    "get b/3 b/1",
    "get b --from-key",
    "get b --from-key --limit=1 -w fields",
    "get '' --prefix --keys-only",
    "get '' --from-key --keys-only",
    ...["ASCEND", "DESCEND"].flatMap((order) =>
      ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"].map((by) =>
        `get b/ --prefix --order=${order} --sort-by=${by}`
      )
    ),
    "get b/ --prefix --sort-by=modify",
    "get b/ --prefix --order=descend --limit=1 -w json",
    "get b/ --prefix --sort-by=COLOUR",
    "get b/ --prefix --order=SIDEWAYS",
    "get a --rev=2",
    "get a --rev=3 -w json",
    "get a --rev=1000",
    "get a --rev=-1",
    "get b/ --prefix --rev=7",
    "get a --consistency=s",
    "get a --consistency=l",
    "get a --consistency=x",
    "get",
    "get a b --prefix",
    "get a --prefix --from-key",
    "get a --keys-only --count-only",
    "get a b c",
    "get ''",

    "del nothing",
    "del a",
    "del a --prev-kv",
    "del b/1 --prev-kv",
    "del b/2 --prev-kv -w json",
    { run: "del b/3 --prev-kv -w protobuf", as: DeleteRangeResponseSchema },
    "put b/4 x",
    "del b/ --prefix --prev-kv",
    "del b/ --prefix -w fields",
    "put d 1",
    "put e 1",
    "del d --from-key --prev-kv -w fields",
    "del c d",
    "del '' --from-key -w json",
    "del '' --prefix",
    "del",
    "del a --prefix --from-key",
    "del a b --prefix",
    "get '' --prefix -w json",
  ]);
});

Deno.test("etcdctl txn", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  const txn = (compares: string, success: string, failure = "", flags = ""): CommandStep => ({
    run: `txn ${flags}`,
    stdin: [compares, success, failure].map((part) => `${part}\n`).join("\n") + "\n",
  });
  await compare(pair, [
    "put a 1",
    "put a 2",
    { run: "lease grant 600", lease: "one" },
    "put leased x --lease={one}",
    ...["=", "!=", "<", ">"].flatMap((is) => [
      txn(`value("a") ${is} "2"`, "get a", "get leased"),
      txn(`version("a") ${is} "2"`, "get a", "get leased"),
      txn(`create("a") ${is} "2"`, "get a", "get leased"),
      txn(`c("a") ${is} "1"`, "get a", "get leased"),
      txn(`mod("a") ${is} "3"`, "get a", "get leased"),
      txn(`value("nothing") ${is} ""`, "get a", "get leased"),
      txn(`version("nothing") ${is} "0"`, "get a", "get leased"),
    ]),
    txn("nonsense", "get a"),
    txn("", "put a 3\nput b 4\nget a\ndel leased", "", "-w json"),
    txn("", "put a 4\nget a\nput c 4\ndel c2", "", "-w fields"),
    txn('mod("a") = "0"', "put a 5", "put b 6\ndel a --prev-kv\nget b", "-w json"),
    {
      ...txn("", "put a 7 --prev-kv\nget a --prefix\ndel b --prev-kv", "", "-w protobuf"),
      as: TxnResponseSchema,
    },
    txn("", "put a 1\nput a 2"),
    txn("", "put a 1\ndel a"),
    txn("", "put x/1 1\ndel x/ --prefix"),
    txn("", "del a\ndel a"),
    txn("", "put a 1 --lease=123"),
    txn("", "put ghost 1 --ignore-value"),
    txn("", "put ghost --ignore-value"),
    txn("", 'put "" 1'),
    txn("", "get a --rev=1000"),
    txn("", "colour a"),
    txn("", "put a"),
    txn("", Array.from({ length: 128 }, (_, i) => `put many/${i} x`).join("\n")),
    txn("", Array.from({ length: 129 }, (_, i) => `put many/${i} x`).join("\n")),
    txn(Array.from({ length: 129 }, () => 'mod("a") > "0"').join("\n"), "get a"),
    txn("", "", ""),
    txn(
      "",
      "get many/ --prefix --keys-only --limit=3 --order=DESCEND --sort-by=VERSION\nget many/ --prefix --count-only",
    ),
    "txn a",
    { run: "txn --interactive", stdin: 'mod("a") > "0"\n\nget a\n\n\n' },
    "get '' --prefix -w json",
  ]);
});

Deno.test("etcdctl lease", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  const leaveOut = [/remaining\(\d+s\)/g, /"ttl":\d+/g, /"TTL" : \d+/g];
  await compare(pair, [
    "lease list",
    { run: "lease grant 600", lease: "one" },
    { run: "lease grant 700", lease: "two" },
    { run: "lease grant 1", lease: "short" },
    "lease grant",
    "lease grant 0",
    "lease grant -- -1",
    "lease grant 9000000001",
    "lease grant x",
    "lease grant 1 2",
    { run: "lease list", isUnordered: true },
    "put a 1 --lease={one}",
    "put b 1 --lease={one}",
    "put c 1 --lease={two}",
    { run: "lease timetolive {one}", leaveOut },
    { run: "lease timetolive {two} --keys", leaveOut },
    { run: "lease timetolive {two} --keys -w json", leaveOut },
    { run: "lease timetolive {two} -w fields", leaveOut },
    { run: "lease timetolive {two} --keys -w fields", leaveOut },
    "lease timetolive 123",
    "lease timetolive 123 --keys -w json",
    "lease timetolive xyz",
    "lease timetolive",
    "lease keep-alive {one} --once",
    "lease keep-alive {one} --once -w json",
    "lease keep-alive {one} --once -w fields",
    "lease keep-alive 123 --once",
    "lease keep-alive 123",
    "lease keep-alive xyz",
    "lease keep-alive",
    "lease revoke {one}",
    "lease revoke {one}",
    "lease revoke {two} -w json",
    "lease revoke 123",
    "lease revoke 0",
    "lease revoke xyz",
    "lease revoke",
    "lease timetolive {one}",
    "lease keep-alive {one} --once",
    "get '' --prefix -w json",
  ]);
});

Deno.test("etcdctl lease keep-alive goes on until the lease is revoked", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  const said = await Promise.all([pair.etcd, pair.ours].map(async (target) => {
    const [, id] = (await etcdctl(target, ["lease", "grant", "3"])).stdout.split(" ");
    await using running = new Running(target, `lease keep-alive ${id}`);
    await running.until(/keepalived with TTL\(3\)\n[^]*keepalived/);
    await etcdctl(target, ["lease", "revoke", id!]);
    const { code } = await running.ended;
    await running.until(/revoked/);
    return [code, ...new Set(running.stdout.replaceAll(id!, "…").split("\n"))];
  }));
  assertEquals(said[1], said[0]);
});

Deno.test("etcdctl compaction, defrag, endpoint, alarm, member, move-leader", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await compare(pair, [
    "endpoint hashkv",
    ...Array.from({ length: 9 }, (_, i) => `put key/${i % 4} ${i}`),
    "del key/2",
    "endpoint hashkv",
    "endpoint hashkv --rev=5 -w json",
    "endpoint hashkv --rev=100",
    "compaction 5",
    "compaction 5",
    "compaction 3",
    "compaction 100",
    "compaction 6 --physical",
    "compaction 7 -w json",
    "compaction x",
    "compaction",
    "compaction -- -1",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "endpoint hashkv -w fields",
    "endpoint hashkv --rev=8",
    "endpoint hashkv --rev=5",
    "get key/0 --rev=6",
    "get key/ --prefix --rev=7",
    "watch key/0 --rev=3",
    "defrag",
    "defrag --cluster",
    "endpoint health",
    "endpoint health -w json",
    "endpoint health --cluster",
    { run: "endpoint status", leaveOut: SIZES },
    { run: "endpoint status -w json", leaveOut: SIZES },
    { run: "endpoint status -w fields", leaveOut: SIZES },
    { run: "endpoint status --cluster", leaveOut: SIZES },
    "endpoint hashkv --cluster",
    { run: "endpoint health --endpoints=http://{address}", isUnordered: true },
    { run: "member list", leaveOut: PEER_URLS },
    { run: "member list -w json", leaveOut: PEER_URLS },
    { run: "member list -w fields", leaveOut: PEER_URLS },
    { run: "member list extra", leaveOut: PEER_URLS },
    "member add",
    "member add other",
    "member add other --peer-urls=nonsense",
    "member remove",
    "member remove xyz",
    "member remove 1",
    "member update",
    "member update {member}",
    "member update 1 --peer-urls=http://127.0.0.1:1",
    "member update {member} --peer-urls=nonsense",
    "member promote",
    "member promote 1",
    "member promote {member}",
    "move-leader",
    "move-leader 1",
    "move-leader xyz",
    "move-leader {member}",
    "alarm list",
    "alarm disarm",
  ]);
  for (const { address, names } of [pair.etcd, pair.ours]) {
    const memberID = [...names].find(([id, name]) => name === "<member>" && /^\d{10,}$/.test(id))?.[0];
    const body = JSON.stringify({ action: "ACTIVATE", memberID, alarm: "NOSPACE" });
    await (await fetch(`http://${address}/v3/maintenance/alarm`, { method: "POST", body })).body?.cancel();
  }
  await compare(pair, [
    "alarm list",
    "alarm list -w json",
    { run: "endpoint status", leaveOut: SIZES },
    { run: "endpoint status -w json", leaveOut: SIZES },
    "endpoint health",
    "put key/0 refused",
    { run: "txn", stdin: "\nput key/0 refused\n\n\n" },
    "lease grant 60",
    "del key/0",
    "get key/ --prefix -w json",
    "compaction 12",
    "alarm disarm",
    "alarm disarm -w json",
    "alarm list",
    "put key/0 taken",
    "endpoint health",
    "no-such-command",
    "get a --endpoints=127.0.0.1:1 --dial-timeout=100ms --command-timeout=200ms",
    "put",
    "role",
  ]);
});

/** What a server takes on disk, and how far its log is. */
const SIZES: readonly RegExp[] = [
  /\d+(\.\d+)? [kM]?B(?=,)/g,
  /(?<=true, false, )\d+, \d+, \d+/g,
  /(?<="(dbSize|raftIndex|raftTerm|raftAppliedIndex|dbSizeInUse)":)\d+/g,
  /(?<="(DBSize|RaftIndex|RaftAppliedIndex)" : )\d+/g,
];

/** Peers are not reached by URLs: there are none. */
const PEER_URLS: readonly RegExp[] = [
  /(?<=started, default, )[^,]*/g,
  /(?<="default",)("peerURLs":\[[^\]]*\],)?/g,
  /(?<="default"\n)("PeerURL" : .*\n)?/g,
];

Deno.test("etcdctl user, role, auth", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  const succeeded = await compare(pair, [
    "user list",
    "role list",
    "auth enable",
    "auth disable",
    { run: "lease grant 600", lease: "free" },
    { run: "lease grant 600", lease: "bound" },
    "put other/leased 1 --lease={bound}",
    "user add root:r00t",
    "user add root:again",
    "user add ann:secret",
    { run: "user add bob --interactive=false", stdin: "builder\n" },
    "user add eve --new-user-password=apple",
    "user add cn --no-password",
    "user add ''",
    "user add :x",
    "user add",
    "user list",
    "user list -w json",
    "user get ann",
    "user get nobody",
    "user get",
    "role add reader",
    "role add reader",
    "role add writer",
    "role add both",
    "role add spare",
    "role add ''",
    "role add",
    "role list",
    "role get reader",
    "role get nothing",
    "role grant-permission reader read docs/ --prefix",
    "role grant-permission reader read single",
    "role grant-permission reader read a b",
    "role grant-permission writer write docs/ --prefix",
    "role grant-permission writer write z --from-key",
    "role grant-permission both readwrite own/ own0",
    "role grant-permission both readwrite all --prefix --from-key",
    "role grant-permission both colour own/",
    "role grant-permission both",
    "role grant-permission nothing read a",
    "role get reader",
    "role get writer",
    "role get both -w json",
    "role get both -w fields",
    "role revoke-permission reader a b",
    "role revoke-permission reader a b",
    "role revoke-permission reader nothing",
    "role revoke-permission writer z --from-key",
    "role revoke-permission nothing a",
    "role get reader",
    "role get writer -w json",
    "user grant-role ann reader",
    "user grant-role ann nothing",
    "user grant-role nobody reader",
    "user grant-role ann",
    "user grant-role bob writer",
    "user grant-role eve both",
    "user grant-role eve spare",
    "user get eve",
    "user get eve --detail",
    "user get eve -w json",
    "user get ann --detail",
    "user revoke-role eve spare",
    "user revoke-role eve spare",
    "user revoke-role nobody spare",
    "role delete spare",
    "role delete spare",
    "role list -w json",
    "user grant-role root root",
    "auth enable",
    "auth enable --user=root:r00t",

    "get docs/a",
    "put docs/a 1",
    "get docs/a --user=ann:wrong",
    "get docs/a --user=nobody:secret",
    "get docs/a --user=cn:",
    "get docs/a --user=ann --password=secret",
    ...["root:r00t", "ann:secret", "bob:builder", "eve:apple"].flatMap((user) =>
      [
        "put docs/a 1",
        "put own/a 1",
        "put docs/a 2 --prev-kv",
        "put own/a 2 --prev-kv",
        "put docs/a --ignore-value --lease={bound}",
        "get docs/a",
        "get docs/ --prefix --keys-only",
        "get docs/ --prefix --count-only -w fields",
        "get single",
        "get single --prefix",
        "get own/ --prefix",
        "get own/ own1",
        "get '' --prefix --keys-only",
        "get a --from-key --keys-only",
        "del docs/b",
        "del docs/a --prev-kv",
        "del own/ --prefix",
        "del '' --from-key",
        "lease revoke {free}",
        "user list",
        "user get ann",
        "user get eve",
        "role list",
        "role get reader",
        "role get both",
        "user add mallory:x",
        "user delete mallory",
        "user grant-role ann root",
        "user revoke-role ann root",
        "role add more",
        "role delete more",
        "role grant-permission reader read more",
        "role revoke-permission reader more",
        "defrag",
        "snapshot save /dev/null/no",
        "alarm list",
        "alarm disarm",
        "member promote 1",
        "member remove 1",
        "member update 1 --peer-urls=http://127.0.0.1:1",
      ].map((line) => `${line} --user=${user}`)
    ),
    ...["root:r00t", "ann:secret", "bob:builder", "eve:apple"].flatMap((user) =>
      [
        'mod("docs/a") > "0"\n\nget docs/a\n\n\n',
        'mod("docs/a") > "0"\n\nput docs/a 3\n\n\n',
        "\nput docs/a 3\n\n\n",
        "\ndel docs/a\n\n\n",
        'value("own/a") = "x"\n\n\nput docs/a 4\n\n',
        "\nput own/a 3\nget own/a\ndel own/b\n\n\n",
      ].map((stdin) => ({ run: `txn --user=${user}`, stdin }))
    ),
    { run: "user passwd ann --interactive=false --user=root:r00t", stdin: "changed\n" },
    { run: "user passwd nobody --interactive=false --user=root:r00t", stdin: "changed\n" },
    { run: "user passwd ann --interactive=false --user=eve:apple", stdin: "changed\n" },
    "get docs/a --user=ann:secret",
    "get docs/a --user=ann:changed",
    "user delete ann --user=root:r00t",
    "user delete ann --user=root:r00t",
    "user delete root --user=root:r00t",
    "user revoke-role root root --user=root:r00t",
    "role delete root --user=root:r00t",
    "role delete both --user=root:r00t",
    "user get eve --user=root:r00t",
    "get own/a --user=eve:apple",
    "get docs/a --user=ann:changed",
    "auth disable",
    "auth disable --user=eve:apple",
    "auth disable --user=root:r00t",
    "get docs/ --prefix -w json",
  ]);
  assert(succeeded > 120, `${succeeded} steps succeeded`);
});

/** Starts a command at both, goes on when both wrote `until`, ends them and compares what they wrote. */
async function compareRunning(
  pair: Pair,
  line: string,
  until: RegExp,
  options: { stdin?: string; during?: (target: Target) => Promise<void>; isUnordered?: boolean } = {},
): Promise<void> {
  const said = await Promise.all([pair.etcd, pair.ours].map(async (target) => {
    await using running = new Running(target, line, options.stdin);
    await options.during?.(target);
    await running.until(until);
    const text = running.neutral();
    if (!options.isUnordered) return text;
    return text.split("\n").filter((line) => !line.startsWith("progress notify")).sort().join("\n");
  }));
  assertEquals(said[1], said[0], line);
}

Deno.test("etcdctl watch", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await compare(pair, [
    "put a 1",
    "put a 2",
    "put ab 1",
    "del a",
    { run: "lease grant 600", lease: "one" },
    "put a 3 --lease={one}",
    { run: "txn", stdin: "\nput ab 2\nput b 1\nput end 1\n\n\n" },
    "watch",
    "watch a --rev=xyz",
    "watch --progress-notify a",
    { run: "watch -i", stdin: "nonsense\nwatch\nwatch a --no-such-flag\n" },
  ]);
  const all = /^end$/m;
  await compareRunning(pair, "watch '' --prefix --rev=1", all);
  await compareRunning(pair, "watch '' --prefix --rev=1 --prev-kv", all);
  await compareRunning(pair, "watch '' --prefix --rev=1 --prev-kv --hex", /x65.x6e.x64|656e64/);
  await compareRunning(pair, "watch end --rev=3 -w json", /\}\n/);
  await compareRunning(pair, "watch end --rev=3 -w fields", /"Value" : "1"\n/);
  await compareRunning(pair, "watch a b --rev=2", /^ab\n2$/m);
  await compareRunning(pair, "watch a --rev=2", /^3$/m);
  await compareRunning(
    pair,
    "watch end --rev=2 -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_REVISION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'",
    /^"PUT" 7 /m,
  );
  const put = (key: string, value: string) => async (target: Target) => {
    await etcdctl(target, ["put", key, value]);
  };
  await compareRunning(pair, "watch later --rev=8", /^later\n1$/m, { during: put("later", "1") });
  await compareRunning(pair, "watch future --rev=10", /^future\n2$/m, {
    during: async (target) => {
      await put("future", "1")(target);
      await put("future", "2")(target);
    },
  });
  // Each watch delivers on its own; an answer to `progress` reaches those that are there when it comes, and with etcd
  // comes before what is older.
  await compareRunning(pair, "watch -i", /(?=([^]*PUT\n){5})(?=[^]*DELETE\n)(?=[^]*progress notify: 10)/, {
    stdin: "watch a --rev=3\nwatch ab --rev=2\nwatch end --rev=2\nprogress\n",
    isUnordered: true,
  });
  await compare(pair, ["compaction 4", { run: "watch a --rev=2", isUnordered: true }]);
});

Deno.test("etcdctl lock, elect", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  await compare(pair, [
    "lock",
    "elect",
    "elect a b c",
    "elect a --listen b",
    { run: "lock mutex true" },
    { run: "lock mutex -- sh -c 'exit 3'" },
    { run: "lock mutex -- sh -c 'echo $ETCD_LOCK_KEY $ETCD_LOCK_REV'", leaveOut: [/mutex\/\w+/g] },
    { run: "lock mutex --ttl=-1 true" },
    "get mutex --prefix",
    "lock mutex no-such-command",
  ]);
  const said = await Promise.all([pair.etcd, pair.ours].map(async (target) => {
    const key = /mutex\/\w+/;
    await using first = new Running(target, "lock mutex");
    await first.until(key);
    await using second = new Running(target, "lock mutex");
    // Its candidacy is there before the first lets go.
    await waitForKeys(target, "mutex/", 2);
    const before = second.stdout;
    first.kill("SIGINT");
    const end = await first.ended;
    await second.until(key);
    second.kill("SIGINT");
    const { code } = await second.ended;
    await waitForKeys(target, "mutex/", 0);

    await using leader = new Running(target, "elect chair first");
    await leader.until(/first/);
    await using listener = new Running(target, "elect --listen chair");
    await listener.until(/first/);
    await using follower = new Running(target, "elect chair second");
    await waitForKeys(target, "chair/", 2);
    leader.kill("SIGINT");
    await leader.ended;
    await follower.until(/second/);
    await listener.until(/second/);
    const heard = listener.stdout.replaceAll(/chair\/\w+/g, "chair/…");
    follower.kill("SIGINT");
    await follower.ended;
    await waitForKeys(target, "chair/", 0);
    return { before, first: end.code, second: code, heard };
  }));
  assertEquals(said[1], said[0]);
  assertEquals(said[1]?.before, "");
});

async function waitForKeys(target: Target, prefix: string, count: number): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const { stdout } = await etcdctl(target, ["get", prefix, "--prefix", "--keys-only"]);
    if (stdout.split("\n").filter((line) => line !== "").length === count) return;
  }
  throw new Error(`${target.name} never had ${count} keys under ${prefix}`);
}

Deno.test("etcdctl snapshot: a real etcd is restored from ours", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  const content: Step[] = ["get '' --prefix -w json", "get key/1 --rev=6", "role list", "endpoint hashkv"];
  await compare(pair, [
    ...Array.from({ length: 12 }, (_, i) => `put key/${i % 5} ${i}`),
    "del key/3",
    "compaction 5 --physical",
    "role add reader",
    "role grant-permission reader read key/ --prefix",
    "snapshot save",
    "snapshot status",
    "snapshot status /nowhere",
    "snapshot restore",
    ...content,
  ]);
  const [expected] = await sayAll(pair.ours, content);
  const file = `${pair.folder}/ours.db`;
  assertEquals((await etcdctl(pair.ours, ["snapshot", "save", file])).code, 0);
  const status = JSON.parse((await etcdctl(pair.ours, ["snapshot", "status", file, "-w", "json"])).stdout);
  assertEquals(status.revision, 14);
  const restored = await etcdctl(pair.ours, ["snapshot", "restore", file, `--data-dir=${pair.folder}/etcd`]);
  assertEquals(restored.code, 0, restored.stderr);
  await using etcd = await startEtcd(t, { unsafeNoFsync: true, dataDirectory: pair.folder });
  const again = await targetOf("etcd", etcd!.address);
  assertEquals((await sayAll(again, content))[0], expected);
});

Deno.test("etcdctl make-mirror copies a real etcd to ours and ours to a real etcd while keys change", async (t) => {
  await using pair = await startPair(t);
  if (pair === undefined) return;
  for (const [from, to] of [[pair.etcd, pair.ours], [pair.ours, pair.etcd]] as const) {
    const prefix = `from-${from.name}/`;
    for (let i = 0; i < 10; i++) await etcdctl(from, ["put", `${prefix}early/${i}`, `${i}`]);
    await using mirror = new Running(from, `make-mirror ${to.address} --prefix=${prefix}`);
    await waitForKeys(to, prefix, 10);
    for (let i = 0; i < 20; i++) await etcdctl(from, ["put", `${prefix}late/${i % 7}`, `${i}`]);
    await etcdctl(from, ["del", `${prefix}early/3`]);
    await etcdctl(from, ["txn"], { stdin: `\nput ${prefix}late/x 1\ndel ${prefix}early/4\n\n\n` });
    await etcdctl(from, ["del", `${prefix}late/`, "--prefix"]);
    await etcdctl(from, ["put", `${prefix}end`, "1"]);
    await waitForKeys(to, `${prefix}end`, 1);
    mirror.kill("SIGTERM");
    await mirror.ended;
    const there = await etcdctl(from, ["get", prefix, "--prefix"]);
    const here = await etcdctl(to, ["get", prefix, "--prefix"]);
    assertEquals(here.stdout, there.stdout);
    assertEquals(here.stdout.split("\n").length, 2 * 9 + 1);
  }
});

Deno.test("etcdctl check datascale passes", async (t) => {
  await using pair = await startPair(t, ["--set", "kv.durability=always"]);
  if (pair === undefined) return;
  const { code, stdout } = await etcdctl(pair.ours, [
    "check",
    "datascale",
    "--load=s",
    "--auto-compact",
    "--auto-defrag",
  ]);
  assertMatch(stdout, /PASS: Approximate system memory used/);
  assertEquals(code, 0);
  // It removes what it wrote.
  assertEquals((await etcdctl(pair.ours, ["get", "", "--prefix", "--keys-only"])).stdout, "");
});

Deno.test({
  name: "etcdctl check perf passes",
  // It takes a minute, whatever the server.
  ignore: Deno.env.get("AETHERFLOW_SOAK") !== "1",
  async fn(t) {
    await using pair = await startPair(t, ["--set", "kv.durability=always"]);
    if (pair === undefined) return;
    await using check = new Running(pair.ours, "check perf --load=s");
    const { code } = await check.ended;
    await check.until(/PASS\n$/);
    assertMatch(check.stdout, /PASS: Throughput is \d+ writes\/s/);
    assertEquals(code, 0);
  },
});
