import { assert, assertEquals, assertMatch } from "@std/assert";
import { KvError, type KvErrorKind } from "../errors.ts";
import { KV_ERRORS } from "../errors.ts";
import { TRANSLATED_KINDS } from "./errors.ts";
import { textBytes } from "./reply.ts";
import { encodeCommand, testServer } from "./testing/gateway.ts";
import { WINDOW_BYTES } from "./link.ts";

/** Lines of commands and their replies, in one connection. */
async function script(lines: readonly (readonly [string, string])[], isAuthEnabled = false): Promise<void> {
  const test = testServer();
  test.isAuthEnabled = isAuthEnabled;
  const client = test.gateway.connect();
  for (const [line, expected] of lines) {
    client.send(textBytes(`${line}\r\n`));
    assertEquals((await client.replies(1))[0], expected.replaceAll("|", "\r\n") + "\r\n", line);
  }
  await test.gateway.close();
}

Deno.test("strings: every command answers", async () => {
  await script([
    ["GET a", "$-1"],
    ["SET a 1", "+OK"],
    ["SET a 2 NX", "$-1"],
    ["SET a 2 XX GET", "$1|1"],
    ["SET a 3 NX XX", "-ERR syntax error"],
    ["SET a 3 EX 0", "-ERR invalid expire time in 'set' command"],
    ["SET a 3 EX x", "-ERR value is not an integer or out of range"],
    ["SET a 3 EX 1 PX 1", "-ERR syntax error"],
    ["SET a 3 EX EX", "-ERR value is not an integer or out of range"],
    ["SET a", "-ERR wrong number of arguments for 'set' command"],
    ["SET a 3 EX 100", "+OK"],
    ["SET a 4 KEEPTTL", "+OK"],
    ["TTL a", ":100"],
    ["SET a 5", "+OK"],
    ["TTL a", ":-1"],
    ["SETNX a 6", ":0"],
    ["SETNX b 6", ":1"],
    ["SETEX c 10 x", "+OK"],
    ["PSETEX c 1500 x", "+OK"],
    ["PTTL c", ":1500"],
    ["SETEX c -1 x", "-ERR invalid expire time in 'setex' command"],
    ["GETSET c y", "$1|x"],
    ["TTL c", ":-1"],
    ["GETDEL c", "$1|y"],
    ["GETDEL c", "$-1"],
    ["GETEX a EX 50", "$1|5"],
    ["TTL a", ":50"],
    ["GETEX a PERSIST", "$1|5"],
    ["TTL a", ":-1"],
    ["MSET x 1 y 2 x 3", "+OK"],
    ["MSET x", "-ERR wrong number of arguments for 'mset' command"],
    ["MGET x nope y", "*3|$1|3|$-1|$1|2"],
    ["MSETNX y 1 z 1", ":0"],
    ["MSETNX z 1 zz 2", ":1"],
    ["INCR x", ":4"],
    ["INCRBY x 10", ":14"],
    ["DECR x", ":13"],
    ["DECRBY x 3", ":10"],
    ["INCRBY x 9223372036854775807", "-ERR increment or decrement would overflow"],
    ["DECRBY x -9223372036854775808", "-ERR decrement would overflow"],
    ["SET s hello", "+OK"],
    ["INCR s", "-ERR value is not an integer or out of range"],
    ["INCRBYFLOAT s 1", "-ERR value is not a valid float"],
    ["INCRBYFLOAT x 0.5", "$4|10.5"],
    ["INCRBYFLOAT x inf", "-ERR increment would produce NaN or Infinity"],
    ["APPEND s -x", ":7"],
    ["STRLEN s", ":7"],
    ["GETRANGE s 1 -2", "$5|ello-"],
    ["SUBSTR s 0 0", "$1|h"],
    ["SETRANGE s 5 !!!", ":8"],
    ["SETRANGE s -1 x", "-ERR offset is out of range"],
    ["SETRANGE s 2000000 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"],
    ["GET s", "$8|hello!!!"],
  ]);
});

Deno.test("SET and GETEX count the last of several times of one kind and look at its amount alone", async () => {
  for (
    const [unit, other, amount, left] of [
      ["EX", "px", "50", "50"],
      ["PX", "ex", "7000", "7"],
      ["EXAT", "pxat", "2000", "1000"],
      ["PXAT", "EX", "2000500", "1001"],
    ] as const
  ) {
    await script([
      [`SET a 1 ${unit} ${unit} ${unit.toLowerCase()} ${amount}`, "+OK"],
      [`SET a 1 ${unit} ${amount} ${unit}`, "-ERR syntax error"],
      [`SET a 1 ${unit} ${amount} ${other} ${amount}`, "-ERR syntax error"],
      [`SET a 1 ${unit} 0 ${unit} -1 ${unit} x`, "-ERR value is not an integer or out of range"],
      [`SET a 1 KEEPTTL ${unit} ${amount}`, "-ERR syntax error"],
      [`SET a 1 ${unit} ${amount} KEEPTTL`, "-ERR syntax error"],
      [`TTL a`, `:${left}`],
      [`SET a 1`, "+OK"],
      [`GETEX a ${unit} nonsense ${unit} ${amount}`, "$1|1"],
      [`TTL a`, `:${left}`],
      [`GETEX a ${unit} ${amount} ${other} ${amount}`, "-ERR syntax error"],
      [`GETEX a PERSIST ${unit} ${amount}`, "-ERR syntax error"],
      [`GETEX a ${unit} ${amount} PERSIST`, "-ERR syntax error"],
      [`GETEX nope ${unit} x`, "$-1"],
    ]);
  }
});

Deno.test("keys: every command answers", async () => {
  await script([
    ["MSET a 1 b 2 c 3", "+OK"],
    ["EXISTS a a nope", ":2"],
    ["TOUCH a nope", ":1"],
    ["TYPE a", "+string"],
    ["TYPE nope", "+none"],
    ["DEL a a", ":1"],
    ["UNLINK a b", ":1"],
    ["EXPIRE c 100", ":1"],
    ["EXPIRE nope 100", ":0"],
    ["EXPIRE c 200 NX", ":0"],
    ["EXPIRE c 50 GT", ":0"],
    ["EXPIRE c 50 LT", ":1"],
    ["EXPIRE c 60 XX", ":1"],
    ["EXPIRE c 60 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible"],
    ["EXPIRE c 60 GT LT", "-ERR GT and LT options at the same time are not compatible"],
    ["EXPIRE c 60 foo", "-ERR Unsupported option foo"],
    ["PEXPIRE c 61000", ":1"],
    ["TTL c", ":61"],
    ["EXPIREAT c 2000", ":1"],
    ["EXPIRETIME c", ":2000"],
    ["PEXPIREAT c 2000500", ":1"],
    ["PEXPIRETIME c", ":2000500"],
    ["PERSIST c", ":1"],
    ["PERSIST c", ":0"],
    ["TTL c", ":-1"],
    ["TTL nope", ":-2"],
    ["DBSIZE", ":1"],
    ["KEYS ?", "*1|$1|c"],
    ["SCAN 0 MATCH c* COUNT 5 TYPE string", "*2|$1|0|*1|$1|c"],
    ["SCAN 0 TYPE list", "*2|$1|0|*0"],
    ["EXPIRE c -1", ":1"],
    ["EXISTS c", ":0"],
    ["SET d 1", "+OK"],
    ["FLUSHALL", "+OK"],
    ["DBSIZE", ":0"],
  ]);
});

Deno.test("EXPIREAT with GT or LT lets the same time be the same, whatever part of a millisecond has passed", async () => {
  for (const passedMs of [0, 0.4, 0.9]) {
    const { api, gateway } = testServer({ clock: { nowMs: () => 1_000_000 } });
    const client = gateway.connect();
    await client.call("SET", "a", "1", "PXAT", "2000500");
    api.nowMs += passedMs;
    const replies = await client.pipeline(
      "PEXPIREAT a 2000500 GT",
      "PEXPIREAT a 2000500 LT",
      "PEXPIREAT a 2000400 GT",
      "PEXPIREAT a 2000400 LT",
      "PEXPIREAT a 2000600 GT",
    );
    assertEquals(replies.map((reply) => reply.trim()), [":0", ":0", ":0", ":1", ":1"], `${passedMs} ms`);
    await gateway.close();
  }
});

Deno.test("connection and server: every command answers", async () => {
  await script([
    ["PING", "+PONG"],
    ["PING hi", "$2|hi"],
    ["ECHO hi", "$2|hi"],
    ["SELECT 0", "+OK"],
    ["SELECT 1", "-ERR DB index is out of range"],
    [
      "AUTH x",
      "-ERR AUTH <password> called without any password configured for the default user. " +
      "Are you sure your configuration is correct?",
    ],
    ["AUTH default x", "+OK"],
    ["AUTH somebody x", "-WRONGPASS invalid username-password pair or user is disabled."],
    ["CLIENT ID", ":1"],
    ["CLIENT SETNAME me", "+OK"],
    ["CLIENT GETNAME", "$2|me"],
    ["CLIENT SETINFO LIB-NAME x", "+OK"],
    ["CLIENT NO-EVICT on", "+OK"],
    ["CLIENT NO-TOUCH on", "+OK"],
    ["CLIENT KILL 1.2.3.4:5", "-ERR No such client"],
    ["CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."],
    ["CONFIG GET appendfsync save", "*4|$11|appendfsync|$6|always|$4|save|$0|"],
    ["COMMAND INFO get nope", "*2|*10|$3|get|:2|*2|+readonly|+fast|:1|:1|:1|*2|+@string|+@fast|*0|*0|*0|$-1"],
    ["COMMAND GETKEYS MSET a 1 b 2", "*2|$1|a|$1|b"],
    ["TIME", "*2|$4|1000|$1|0"],
    ["FOO bar 1", "-ERR unknown command 'FOO', with args beginning with: 'bar' '1' "],
    ["HELLO 4", "-NOPROTO unsupported protocol version"],
    ["PUBLISH ch x", ":0"],
    ["RESET", "+RESET"],
    ["CLIENT GETNAME", "$-1"],
    ["QUIT", "+OK"],
  ]);
});

Deno.test("with authentication, nothing but AUTH and its like is answered before it", async () => {
  await script([
    ["GET a", "-NOAUTH Authentication required."],
    [
      "HELLO 3",
      "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH " +
      "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
    ],
    ["AUTH root wrong", "-WRONGPASS invalid username-password pair or user is disabled."],
    ["AUTH root right", "+OK"],
    ["GET a", "$-1"],
  ], true);
});

Deno.test("MULTI queues, EXEC runs all at one revision and writes a key once", async () => {
  const { api, gateway } = testServer();
  const client = gateway.connect();
  const before = api.revision;
  const replies = await client.pipeline(
    "MULTI",
    "SET a 1",
    "INCR a",
    "APPEND a x",
    "INCR a",
    "SET b 1 EX 10",
    "TTL b",
    "DEL b",
    "PING",
    "EXEC",
  );
  assertEquals(
    replies.at(-1),
    "*8\r\n+OK\r\n:2\r\n:2\r\n-ERR value is not an integer or out of range\r\n+OK\r\n:10\r\n:1\r\n+PONG\r\n",
  );
  assertEquals(api.revision, before + 1);
  assertEquals(await client.call("GET", "a"), "$2\r\n2x\r\n");
  await gateway.close();
});

Deno.test("EXEC refuses what was refused while it was queued, and what was not queued", async () => {
  await script([
    ["EXEC", "-ERR EXEC without MULTI"],
    ["DISCARD", "-ERR DISCARD without MULTI"],
    ["MULTI", "+OK"],
    ["MULTI", "-ERR MULTI calls can not be nested"],
    ["WATCH a", "-ERR WATCH inside MULTI is not allowed"],
    ["SET a 1", "+QUEUED"],
    ["DISCARD", "+OK"],
    ["MULTI", "+OK"],
    ["NOPE", "-ERR unknown command 'NOPE', with args beginning with: "],
    ["SET a 1", "+QUEUED"],
    ["EXEC", "-EXECABORT Transaction discarded because of previous errors."],
    ["MULTI", "+OK"],
    ["KEYS *", "-ERR Command not allowed inside a transaction"],
    ["EXEC x", "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"],
    ["GET a", "$-1"],
  ]);
});

Deno.test("WATCH lets EXEC do nothing when a key was changed, made, or made and deleted", async () => {
  const { gateway } = testServer();
  const [one, two] = [gateway.connect(), gateway.connect()];
  await one.call("SET", "old", "1");
  for (const changes of [["SET old 2"], ["SET new 1"], ["SET brief 1", "DEL brief"], ["EXPIRE old 100"]]) {
    await one.call("WATCH", "old", "new", "brief", "other");
    await two.pipeline(...changes);
    assertEquals((await one.pipeline("MULTI", "SET other x", "EXEC"))[2], "*-1\r\n", changes.join());
  }
  await one.call("WATCH", "old");
  assertEquals((await one.pipeline("MULTI", "SET old x", "EXEC"))[2], "*1\r\n+OK\r\n");
  await gateway.close();
});

Deno.test("WATCH of an absent key notices one command that makes it and lets it go again", async () => {
  const { gateway } = testServer();
  const [one, two] = [gateway.connect(), gateway.connect()];
  for (
    const changes of [
      ["SET brief 1 EXAT 1"],
      ["SET brief 1 PXAT 1 GET"],
      ["MULTI", "SET brief 1", "DEL brief", "EXEC"],
      ["MULTI", "APPEND brief 1", "SET old 1", "EXPIRE brief -1", "EXEC"],
    ]
  ) {
    await one.call("WATCH", "brief", "nope");
    await two.pipeline(...changes);
    assertEquals((await one.pipeline("MULTI", "SET other x", "EXEC"))[2], "*-1\r\n", changes.join());
  }
  for (const nothing of ["DEL brief", "SET brief 1 XX EXAT 1", "GETEX brief EXAT 1", "PERSIST brief"]) {
    await one.call("WATCH", "brief");
    await two.pipeline(nothing);
    assertEquals((await one.pipeline("MULTI", "SET other x", "EXEC"))[2], "*1\r\n+OK\r\n", nothing);
  }
  await gateway.close();
});

Deno.test("a pipeline sees its own writes before they are durable, others do not", async () => {
  const { api, gateway } = testServer();
  const [one, two] = [gateway.connect(), gateway.connect()];
  await one.call("PING");
  api.isManual = true;
  const replies = one.pipeline("SET a 1", "GET a", "INCR a", "MGET a b", "PING");
  assertEquals(await two.call("GET", "a"), "$-1\r\n");
  api.sync();
  assertEquals(await replies, ["+OK\r\n", "$1\r\n1\r\n", ":2\r\n", "*2\r\n$1\r\n2\r\n$-1\r\n", "+PONG\r\n"]);
  assertEquals(await two.call("GET", "a"), "$1\r\n2\r\n");
  await gateway.close();
});

Deno.test("on an engine that starts writes in no order, a connection runs one command at a time", async () => {
  const { api, gateway } = testServer({ startsInOrder: false });
  const client = gateway.connect();
  assertEquals(await client.pipeline("SET a 1", "INCR a", "GET a", "DEL a", "EXISTS a"), [
    "+OK\r\n",
    ":2\r\n",
    "$1\r\n2\r\n",
    ":1\r\n",
    ":0\r\n",
  ]);
  assertEquals(api.state.keyCount, 0);
  await gateway.close();
});

Deno.test("errors of the store become Redis's", async () => {
  const { api, gateway } = testServer();
  const client = gateway.connect();
  const cases: readonly (readonly [KvErrorKind, string])[] = [
    ["noSpace", "-OOM command not allowed when used memory > 'maxmemory'.\r\n"],
    ["permissionDenied", "-NOPERM "],
    ["readOnly", "-MISCONF "],
    ["tooManyRequests", "-TRYAGAIN "],
    ["keyTooLarge", "-ERR kv: key is too large\r\n"],
  ];
  for (const [kind, text] of cases) {
    api.refusal = new KvError(kind);
    for (const words of [["SET", "a", "1"], ["INCR", "a"], ["FLUSHALL"]]) {
      assert((await client.call(...words)).startsWith(text), `${kind} ${words}`);
    }
  }
  for (const kind of TRANSLATED_KINDS) assert(kind in KV_ERRORS, kind);
  await gateway.close();
});

Deno.test("keyspace events tell what the store tells", async () => {
  const { api, gateway } = testServer();
  const [listener, client] = [gateway.connect(), gateway.connect()];
  await listener.call("PSUBSCRIBE", "__keyevent@0__:*");
  assertEquals(
    await listener.call("GET", "a"),
    "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
  );
  const heard = listener.replies(8);
  await client.call("SET", "a", "1");
  await client.call("SET", "b", "1", "PX", "1000");
  await client.call("EXPIRE", "a", "100");
  await client.call("PERSIST", "a");
  await client.call("DEL", "a");
  await client.call("SET", "c", "1", "EX", "100");
  await client.call("DEL", "c");
  const events = (await heard).map((reply) => reply.split("\r\n").slice(6, 9).join(" "));
  assertEquals(
    events.map((text) => text.replace(/^__keyevent@0__:(\S+) \S+ (.*)$/, "$1 $2")),
    ["set a", "set b", "expire b", "expire a", "persist a", "del a", "set c", "expire c"],
  );
  const rest = listener.replies(2);
  api.nowMs += 2_000;
  await client.call("GET", "b");
  await client.call("SET", "d", "1");
  assertMatch((await rest).join(), /:del\r\n\$1\r\nc[^]*:expired\r\n\$1\r\nb/);
  await gateway.close();
});

Deno.test("RESP3 has its own types, and messages beside answers", async () => {
  const { gateway } = testServer();
  const client = gateway.connect();
  assertMatch(await client.call("HELLO", "3", "SETNAME", "me"), /^%7\r\n/);
  assertEquals(await client.call("GET", "nope"), "_\r\n");
  assertEquals(await client.call("SUBSCRIBE", "ch"), ">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n");
  assertEquals(await client.call("PUBLISH", "ch", "hi"), ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n");
  assertEquals(await client.replies(1), [":1\r\n"]);
  assertEquals(await client.call("CONFIG", "GET", "save"), "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
  await gateway.close();
});

Deno.test("CLIENT REPLY turns replies off and on", async () => {
  const { gateway } = testServer();
  const client = gateway.connect();
  client.send(textBytes("CLIENT REPLY OFF\r\nSET a 1\r\nGET a\r\nCLIENT REPLY ON\r\n"));
  assertEquals(await client.replies(1), ["+OK\r\n"]);
  client.send(textBytes("CLIENT REPLY SKIP\r\nGET a\r\nGET nope\r\n"));
  assertEquals(await client.replies(1), ["$-1\r\n"]);
  await gateway.close();
});

Deno.test("a protocol error is answered behind what came before, and ends that connection alone", async () => {
  const { gateway } = testServer();
  const [bad, good] = [gateway.connect(), gateway.connect()];
  bad.send(textBytes("SET a 1\r\n*1\r\n+x\r\nPING\r\n"));
  assertEquals(await bad.replies(3), ["+OK\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"]);
  assertEquals(bad.end, "close");
  assertEquals(await good.call("GET", "a"), "$1\r\n1\r\n");
  await gateway.close();
});

Deno.test("a client that does not read is stopped, and closed when it is told more than the bound", async () => {
  const { server, gateway } = testServer({ limits: { valueBytesMax: 1_000_000, outputBytesMax: 8_000_000 } });
  const client = gateway.connect();
  await client.call("SET", "big", "x".repeat(900_000));
  gateway.acknowledges = false;
  client.send(encodeCommand(["GET", "big"]));
  await client.replies(1);
  const request = encodeCommand(["GET", "big"]);
  for (let i = 0; i < 20; i++) client.send(request);
  const other = gateway.connect();
  await other.call("PING");
  const session = [...server.sessions.values()].find(({ number }) => number === client.number)!;
  assert(session.unreadBytes < 6_000_000, `${session.unreadBytes}`);
  gateway.send({ writtenConnection: [client.number], writtenBytes: [5_000_000] });
  await client.replies(8);
  client.close();

  const listener = gateway.connect();
  await listener.call("SUBSCRIBE", "ch");
  for (let i = 0; i < 10; i++) await other.call("PUBLISH", "ch", "x".repeat(900_000));
  await listener.closed();
  assertEquals(listener.end, "abort");
  const tooMuch = Array.from({ length: 9 }, () => "big");
  assertEquals(await other.call("MGET", ...tooMuch), "-ERR the answer is too large\r\n");
  await gateway.close();
});

Deno.test("large input is taken up in windows, an unfinished command too", async () => {
  const { gateway } = testServer({ limits: { valueBytesMax: 4_000_000, outputBytesMax: 8_000_000 } });
  const client = gateway.connect();
  const bytes = encodeCommand(["SET", "a", "x".repeat(3_000_000)]);
  for (let at = 0; at < bytes.length; at += 65_536) client.send(bytes.subarray(at, at + 65_536));
  assertEquals(await client.replies(1), ["+OK\r\n"]);
  assert(client.takenBytes > bytes.length - WINDOW_BYTES, `${client.takenBytes}`);
  assertEquals(await client.call("STRLEN", "a"), ":3000000\r\n");
  await gateway.close();
});

Deno.test("a client that goes is forgotten, with all it watched and listened to", async () => {
  const { server, gateway } = testServer();
  const [client, other] = [gateway.connect(), gateway.connect()];
  await client.call("WATCH", "a");
  await client.call("SUBSCRIBE", "x");
  client.send(textBytes("*2\r\n$3\r\nGE"));
  client.close();
  assertEquals(await other.call("PUBLISH", "x", "m"), ":0\r\n");
  assertEquals(server.sessions.size, 1);
  assert(server.absentWatches.isEmpty);
  await gateway.close();
  assertEquals(server.sessions.size, 0);
});

Deno.test("CLIENT KILL closes other connections, and its own after the answer", async () => {
  const { gateway } = testServer();
  const [one, two] = [gateway.connect(), gateway.connect()];
  await two.call("PING");
  assertEquals(await one.call("CLIENT", "KILL", "TYPE", "normal"), ":1\r\n");
  await two.closed();
  assertEquals(two.end, "abort");
  assertEquals(await one.call("CLIENT", "KILL", "ID", "1", "SKIPME", "no"), ":1\r\n");
  await one.closed();
  assertEquals(one.end, "close");
  await gateway.close();
});
