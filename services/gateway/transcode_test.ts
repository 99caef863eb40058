import { create, type DescMessage, type Message, toJson } from "@bufbuild/protobuf";
import { assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  EntrySchema,
  GetRequestSchema,
  ListRequestSchema,
  PutRequestSchema as OurPutRequestSchema,
} from "$proto/aetherflow/kv/v1/kv_pb.ts";
import {
  CreateSessionRequestSchema,
  HeartbeatRequestSchema,
  ListSessionsResponseSchema,
  UpdateSessionRequestSchema,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import {
  CompareSchema,
  DeleteRangeResponseSchema,
  PutRequestSchema,
  PutResponseSchema,
  RangeRequest_SortOrder,
  RangeRequestSchema,
  RangeResponseSchema,
  TxnRequestSchema,
  TxnResponseSchema,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Event_EventType } from "$proto/mvccpb/kv_pb.ts";
import { GatewayError } from "./problem.ts";
import {
  bindQuery,
  fieldPath,
  formatTtl,
  JsonSplitter,
  matchHits,
  messageFromJson,
  messageToJson,
  noneMatchHits,
  parseLastEventId,
  parsePrecondition,
  parseQuery,
  parseTtl,
  percentDecode,
  queryFields,
} from "./transcode.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const header = {
  clusterId: 10144879847569953045n,
  memberId: 12428976124636271536n,
  revision: 4n,
  raftTerm: 2n,
};
const HEADER =
  '"header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"4","raft_term":"2"}';
const foo = { key: utf8("foo"), createRevision: 2n, modRevision: 4n, version: 3n, value: utf8("bar") };
const FOO = '{"key":"Zm9v","create_revision":"2","mod_revision":"4","version":"3","value":"YmFy"}';

Deno.test("messageToJson() writes what etcd 3.4.23's own gateway writes", () => {
  // Golden: recorded from etcd 3.4.23 with curl.
  assertEquals(
    messageToJson(PutResponseSchema, create(PutResponseSchema, { header }), "etcd"),
    `{${HEADER}}`,
  );
  assertEquals(
    messageToJson(PutResponseSchema, create(PutResponseSchema, { header, prevKv: foo }), "etcd"),
    `{${HEADER},"prev_kv":${FOO}}`,
  );
  assertEquals(
    messageToJson(
      RangeResponseSchema,
      create(RangeResponseSchema, { header, kvs: [foo], count: 1n }),
      "etcd",
    ),
    `{${HEADER},"kvs":[${FOO}],"count":"1"}`,
  );
  assertEquals(
    messageToJson(
      DeleteRangeResponseSchema,
      create(DeleteRangeResponseSchema, { header, deleted: 1n, prevKvs: [foo] }),
      "etcd",
    ),
    `{${HEADER},"deleted":"1","prev_kvs":[${FOO}]}`,
  );
  assertEquals(
    messageToJson(
      TxnResponseSchema,
      create(TxnResponseSchema, {
        header,
        succeeded: true,
        responses: [{
          response: { case: "responseRange", value: { header: { revision: 4n }, kvs: [foo], count: 1n } },
        }],
      }),
      "etcd",
    ),
    `{${HEADER},"succeeded":true,"responses":[{"response_range":{"header":{"revision":"4"},"kvs":[${FOO}],"count":"1"}}]}`,
  );
  assertEquals(
    messageToJson(
      WatchResponseSchema,
      create(WatchResponseSchema, {
        header,
        events: [{ kv: foo }, { type: Event_EventType.DELETE, kv: { key: utf8("foo"), modRevision: 5n } }],
      }),
      "etcd",
    ),
    `{${HEADER},"events":[{"kv":${FOO}},{"type":"DELETE","kv":{"key":"Zm9v","mod_revision":"5"}}]}`,
  );
});

Deno.test("messageToJson() writes our own messages in camelCase with zero values", () => {
  assertEquals(
    messageToJson(
      EntrySchema,
      create(EntrySchema, { key: utf8("k"), modRevision: 9007199254740993n }),
      "aetherflow",
    ),
    '{"key":"aw==","value":"","createRevision":"0","modRevision":"9007199254740993","version":"0"}',
  );
});

Deno.test("messageFromJson() takes both spellings, numbers and texts, and ignores what etcd would ignore", () => {
  const expected = create(RangeRequestSchema, {
    key: utf8("foo"),
    rangeEnd: utf8("fop"),
    limit: 5n,
    sortOrder: RangeRequest_SortOrder.DESCEND,
    countOnly: true,
  });
  for (
    const body of [
      '{"key":"Zm9v","range_end":"Zm9w","limit":"5","sort_order":"DESCEND","count_only":true,"unknown":1}',
      '{"key":"Zm9v","rangeEnd":"Zm9w","limit":5,"sortOrder":2,"countOnly":true}',
    ]
  ) assertEquals(messageFromJson(RangeRequestSchema, utf8(body), "etcd"), expected);
  assertEquals(messageFromJson(RangeRequestSchema, utf8(""), "etcd"), create(RangeRequestSchema));
  const txn = '{"compare":[{"key":"Zm9v","target":"MOD","result":"GREATER","mod_revision":"1"}],' +
    '"success":[{"requestRange":{"key":"Zm9v"}}]}';
  assertEquals(
    messageFromJson(TxnRequestSchema, utf8(txn), "etcd"),
    create(TxnRequestSchema, {
      compare: [{ key: utf8("foo"), target: 2, result: 1, targetUnion: { case: "modRevision", value: 1n } }],
      success: [{ request: { case: "requestRange", value: { key: utf8("foo") } } }],
    }),
  );
});

Deno.test("messageFromJson() says what does not fit", () => {
  const cases: [body: string | Uint8Array, words: string][] = [
    ["{bad", "not JSON"],
    ["[]", "RangeRequest"],
    ["7", "RangeRequest"],
    ["null", "RangeRequest"],
    ['{"key":7}', "key"],
    ['{"key":"*"}', "key"],
    ['{"limit":"9223372036854775808"}', "limit"],
    ['{"limit":1.5}', "limit"],
    ['{"sort_order":"UP"}', "SortOrder"],
    ['{"nothing":1}', "nothing"],
    [Uint8Array.of(0x7b, 0xff, 0x7d), "UTF-8"],
  ];
  for (const [body, words] of cases) {
    const error = assertThrows(() =>
      messageFromJson(RangeRequestSchema, typeof body === "string" ? utf8(body) : body, "aetherflow")
    );
    assertInstanceOf(error, GatewayError);
    assertEquals(error.code, "invalid_argument");
    assertStringIncludes(error.message, words);
  }
  const deep = '{"success":[{"request_txn":'.repeat(20_000) + "{}" + "}]}".repeat(20_000);
  const error = assertThrows(() => messageFromJson(TxnRequestSchema, utf8(deep), "etcd"));
  assertInstanceOf(error, GatewayError);
});

Deno.test("messageFromJson() fills one field when the body is that field", () => {
  const field = fieldPath(PutRequestSchema, "prev_kv")!.leaf;
  assertEquals(
    messageFromJson(PutRequestSchema, utf8("true"), "aetherflow", field),
    create(PutRequestSchema, { prevKv: true }),
  );
});

Deno.test("JSON of any message reads back as the message", () => {
  fc.assert(fc.property(
    fc.record({
      key: fc.uint8Array(),
      value: fc.uint8Array(),
      createRevision: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      keyText: fc.option(fc.string({ unit: "grapheme" }), { nil: undefined }),
    }, { requiredKeys: ["key", "value", "createRevision"] }),
    fc.constantFrom("etcd" as const, "aetherflow" as const),
    (init, dialect) => {
      const message = create(
        EntrySchema,
        init.keyText === undefined ? { ...init, keyText: "" } : init as never,
      );
      const back = messageFromJson(EntrySchema, utf8(messageToJson(EntrySchema, message, dialect)), dialect);
      assertEquals(messageToJson(EntrySchema, back, "etcd"), messageToJson(EntrySchema, message, "etcd"));
    },
  ));
});

Deno.test("percentDecode() gives back any octets, however they are spelled", () => {
  fc.assert(fc.property(fc.uint8Array(), fc.infiniteStream(fc.boolean()), (octets, upper) => {
    const text = [...octets].map((octet) => {
      const hex = octet.toString(16).padStart(2, "0");
      return `%${upper.next().value ? hex.toUpperCase() : hex}`;
    }).join("");
    assertEquals(percentDecode(text), octets);
  }));
  for (const broken of ["%", "%1", "a%zz", "%%30", "%-1", "\uFFFD"]) {
    assertEquals(percentDecode(broken), undefined, broken);
  }
  assertEquals(percentDecode("a+b"), utf8("a+b"));
  assertEquals(percentDecode("a+b", true), utf8("a b"));
});

Deno.test("bindQuery() sets scalars, enums, lists and nested fields by type", () => {
  function bound(query: string): Message {
    const message = create(CompareSchema);
    bindQuery(message, parseQuery(query), queryFields(CompareSchema, new Set()), new Set());
    return message;
  }
  assertEquals(
    bound("key=a%20b&result=LESS&target=2&mod_revision=-7&rangeEnd=%FF"),
    create(CompareSchema, {
      key: utf8("a b"),
      result: 2,
      target: 2,
      targetUnion: { case: "modRevision", value: -7n },
      rangeEnd: Uint8Array.of(255),
    }),
  );
  for (
    const query of ["result=NO", "version=1.5", "version=", "version=9223372036854775808", "other=1", "key=%"]
  ) {
    assertThrows(() => bound(query), GatewayError);
  }
  const list = create(ListRequestSchema);
  bindQuery(
    list,
    parseQuery("pageSize=5&keys_only=true&page_token=%C3%A9"),
    queryFields(ListRequestSchema, new Set()),
    new Set(),
  );
  assertEquals(list, create(ListRequestSchema, { pageSize: 5, keysOnly: true, pageToken: "é" }));
  assertThrows(
    () => bindQuery(list, parseQuery("page_token=%ff"), queryFields(ListRequestSchema, new Set()), new Set()),
    GatewayError,
  );
  assertThrows(
    () =>
      bindQuery(
        create(GetRequestSchema),
        parseQuery("key=x"),
        queryFields(GetRequestSchema, new Set(["key"])),
        new Set(),
      ),
    GatewayError,
  );
});

Deno.test("fieldPath() reaches through messages that are not there yet", () => {
  const path = fieldPath(WatchResponseSchema, "header.revision")!;
  const message = create(WatchResponseSchema);
  assertEquals(path.get(message), undefined);
  path.set(message, 7n);
  assertEquals(path.get(message), 7n);
  assertEquals(fieldPath(WatchResponseSchema, "header.nothing"), undefined);
  assertEquals(fieldPath(WatchResponseSchema, "watch_id.deeper"), undefined);
});

Deno.test("parsePrecondition() is a revision, never, nothing or an error", () => {
  const cases: [ifMatch: string | undefined, ifNoneMatch: string | undefined, expected: unknown][] = [
    [undefined, undefined, undefined],
    ['"7"', undefined, 7n],
    [' "7" ', undefined, 7n],
    ['"9223372036854775807"', undefined, 9223372036854775807n],
    ['"9999999999999999999"', undefined, "never"],
    ['"0"', undefined, "never"],
    ['W/"7"', undefined, "never"],
    ['"x"', undefined, "never"],
    ["7", undefined, "never"],
    [undefined, "*", 0n],
    ["*", undefined, GatewayError],
    ['"1","2"', undefined, GatewayError],
    [undefined, '"1"', GatewayError],
    ['"1"', "*", GatewayError],
  ];
  for (const [ifMatch, ifNoneMatch, expected] of cases) {
    if (expected === GatewayError) assertThrows(() => parsePrecondition(ifMatch, ifNoneMatch), GatewayError);
    else assertEquals(parsePrecondition(ifMatch, ifNoneMatch), expected as bigint);
  }
});

Deno.test("parseTtl() takes seconds above 0 with up to three decimals; formatTtl() rounds up", () => {
  const cases: [header: string, ttlMs: bigint | undefined][] = [
    ["60", 60_000n],
    [" 0.5 ", 500n],
    ["1.05", 1_050n],
    ["0.001", 1n],
    ["0", undefined],
    ["0.0005", undefined],
    ["-1", undefined],
    ["1e3", undefined],
    ["", undefined],
    ["1.", undefined],
    ["9999999999999", undefined],
  ];
  for (const [header, ttlMs] of cases) {
    if (ttlMs === undefined) assertThrows(() => parseTtl(header), GatewayError, "TTL must be seconds");
    else assertEquals(parseTtl(header), ttlMs);
  }
  assertEquals([1n, 1_000n, 1_001n].map(formatTtl), ["1", "1", "2"]);
});

Deno.test("entity tags compare weakly for If-None-Match and strongly for If-Match", () => {
  assertEquals(
    [noneMatchHits('W/"1", "2"', '"2"'), noneMatchHits('W/"2"', '"2"'), noneMatchHits("*", '"2"')],
    [true, true, true],
  );
  assertEquals([noneMatchHits('"22"', '"2"'), noneMatchHits("", '"2"')], [false, false]);
  assertEquals([matchHits('"1", "2"', '"2"'), matchHits("*", '"2"'), matchHits('W/"2"', '"2"')], [
    true,
    true,
    false,
  ]);
});

Deno.test("parseLastEventId() takes revisions only", () => {
  assertEquals(parseLastEventId(undefined), undefined);
  assertEquals(parseLastEventId(""), undefined);
  assertEquals(parseLastEventId("17"), 17n);
  for (const bad of ["-1", "x", "1.0", "9223372036854775807"]) {
    assertThrows(() => parseLastEventId(bad), GatewayError);
  }
});

Deno.test("JsonSplitter cuts objects wherever the chunks end", () => {
  const objects = ['{"a":"}{\\"]["}', "{}", '{"b":[{"c":[1,{}]}]}', '{"é":"\\\\"}'];
  const whole = utf8(` ${objects[0]}${objects[1]}\n\t${objects[2]} \r\n${objects[3]}\n`);
  for (let size = 1; size <= whole.length; size++) {
    const splitter = new JsonSplitter(1000);
    const found: string[] = [];
    for (let at = 0; at < whole.length; at += size) {
      for (const each of splitter.push(whole.subarray(at, at + size))) {
        found.push(new TextDecoder().decode(each));
      }
    }
    assertEquals(found, objects, `chunks of ${size}`);
    assertEquals(splitter.isPartial, false);
  }
});

Deno.test("JsonSplitter refuses what is no object, and objects that are too large", () => {
  for (const bad of ["[1]", "1", '"x"', "}", "nul", "{} x"]) {
    assertThrows(() => new JsonSplitter(100).push(utf8(bad)), GatewayError, "sequence of JSON objects");
  }
  const splitter = new JsonSplitter(10);
  assertEquals(splitter.push(utf8('{"a":1}{"a":2}')).length, 2);
  splitter.push(utf8('{"a":"'));
  assertEquals(splitter.isPartial, true);
  const error = assertThrows(() => splitter.push(utf8("12345"))) as GatewayError;
  assertEquals(error.code, "body_too_large");
});

Deno.test("bindQuery() takes messages that are one text, and says what only a body can hold", () => {
  const bind = (desc: DescMessage, query: string) => {
    const message = create(desc);
    bindQuery(message, parseQuery(query), queryFields(desc, new Set()), new Set());
    return toJson(desc, message);
  };
  assertEquals(bind(HeartbeatRequestSchema, "session_id=x&client_timestamp=2026-01-02T03:04:05Z"), {
    sessionId: "x",
    clientTimestamp: "2026-01-02T03:04:05Z",
  });
  assertEquals(bind(UpdateSessionRequestSchema, "session.session_id=x&updateMask=state,clientIp"), {
    session: { sessionId: "x" },
    updateMask: "state,clientIp",
  });
  for (
    const [desc, query, words] of [
      [HeartbeatRequestSchema, "clientTimestamp=soon", '"soon", expected a Timestamp'],
      [CreateSessionRequestSchema, "metadata=x", "metadata is a map, which only a body can hold"],
      [CreateSessionRequestSchema, "metadata.a=x", "metadata is a map, which only a body can hold"],
      [CreateSessionRequestSchema, "metadata%5Ba%5D=x", "metadata is a map, which only a body can hold"],
      [
        ListSessionsResponseSchema,
        "sessions=x",
        "sessions is a list of messages, which only a body can hold",
      ],
      [CreateSessionRequestSchema, "constructor=x", "unknown query parameter"],
    ] as const
  ) {
    const error = assertThrows(() => bind(desc, query), GatewayError) as GatewayError;
    assertStringIncludes(error.message, words);
  }
});

Deno.test("messageFromJson() bounds how deep a body is nested, whatever its texts hold", () => {
  // The brackets in the text count for nothing, and its quotes do not end it.
  const nested = (depth: number) =>
    utf8(
      `{"metadata":{"x":${JSON.stringify('[{"'.repeat(200))}},"y":${"[".repeat(depth)}${"]".repeat(depth)}}`,
    );
  const read = (depth: number) => messageFromJson(CreateSessionRequestSchema, nested(depth), "etcd");
  assertThrows(() => read(100), GatewayError, "nested more than 100 deep");
  read(99);
});

Deno.test("bytes of JSON bodies are base64 in either alphabet; 64-bit integers are texts or numbers", () => {
  const read = (json: string) => messageFromJson(OurPutRequestSchema, utf8(json), "aetherflow");
  const expected = create(OurPutRequestSchema, { key: new Uint8Array([0xfb, 0xff]), ttlMs: 5n });
  for (const key of ["+/8=", "-_8=", "-_8", "+/8"]) {
    assertEquals(read(`{"key":"${key}","ttlMs":5}`), expected);
    assertEquals(read(`{"key":"${key}","ttl_ms":"5"}`), expected);
  }
});
