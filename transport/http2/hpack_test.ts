import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ERROR, Http2Error } from "./errors.ts";
import { encodeFields, HpackDecoder } from "./hpack.ts";
import { huffmanCode, huffmanDecode } from "./huffman.ts";
import { HEADER_TABLE_BYTES } from "./params.ts";

const hex = (text: string) =>
  Uint8Array.from(text.replaceAll(" ", "").match(/../g)!, (byte) => parseInt(byte, 16));
const decode = (decoder: HpackDecoder, bytes: Uint8Array) => decoder.decode(bytes, 0, bytes.length);
const pairs = (fields: readonly string[]) =>
  fields.filter((_, i) => i % 2 === 0).map((name, i) => `${name}: ${fields[2 * i + 1]}`);

/** RFC 7541 appendix C: blocks of one connection, what they say, and the table's size after each. */
const EXAMPLES: Readonly<
  Record<string, readonly (readonly [block: string, fields: string[], table: number])[]>
> = {
  "C.2.1 literal with indexing": [[
    "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
    ["custom-key: custom-header"],
    55,
  ]],
  "C.2.2 literal without indexing": [["040c 2f73 616d 706c 652f 7061 7468", [":path: /sample/path"], 0]],
  "C.2.3 literal never indexed": [["1008 7061 7373 776f 7264 0673 6563 7265 74", ["password: secret"], 0]],
  "C.2.4 indexed": [["82", [":method: GET"], 0]],
  "C.3 requests": [
    [
      "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
      [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
      57,
    ],
    [
      "8286 84be 5808 6e6f 2d63 6163 6865",
      [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
      110,
    ],
    [
      "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
      [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
      ],
      164,
    ],
  ],
  "C.4 requests, Huffman": [
    [
      "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
      [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
      57,
    ],
    [
      "8286 84be 5886 a8eb 1064 9cbf",
      [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
      110,
    ],
    [
      "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
      [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
      ],
      164,
    ],
  ],
  // With a table of 256 bytes, which the first block's size update sets here (the RFC sets it by SETTINGS).
  "C.6 responses, Huffman, eviction": [
    [
      "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
      [
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "4883 640e ffc1 c0bf",
      [
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
      [
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
      ],
      215,
    ],
  ],
};

for (const [name, blocks] of Object.entries(EXAMPLES)) {
  Deno.test(`HpackDecoder.decode() reads RFC 7541 ${name}`, () => {
    const decoder = new HpackDecoder(16_384);
    for (const [block, fields, tableBytes] of blocks) {
      const { fields: read, isMalformed, isTooLarge } = decode(decoder, hex(block));
      assertEquals([pairs(read), isMalformed, isTooLarge, decoder.tableBytes], [
        fields,
        false,
        false,
        tableBytes,
      ]);
    }
  });
}

Deno.test("the Huffman code is the RFC's: complete, with its first, last and odd codes", () => {
  let kraft = 0;
  for (let symbol = 0; symbol <= 256; symbol++) kraft += 2 ** -huffmanCode(symbol).bits;
  assertEquals(kraft, 1);
  const known = [[0, 0x1ff8, 13], [48, 0x0, 5], [88, 0xfc, 8], [123, 0x7ffe, 15], [
    220,
    0xffffffd,
    28,
  ]] as const;
  for (const [symbol, code, bits] of known) assertEquals(huffmanCode(symbol), { code, bits });
  assertEquals(huffmanCode(249), { code: 0xffffffe, bits: 28 });
  assertEquals(huffmanCode(255), { code: 0x3ffffee, bits: 26 });
  assertEquals(huffmanCode(256), { code: 0x3fffffff, bits: 30 });
});

function huffmanEncode(bytes: Uint8Array): Uint8Array {
  let bits = "";
  for (const byte of bytes) {
    const { code, bits: count } = huffmanCode(byte);
    bits += code.toString(2).padStart(count, "0");
  }
  return Uint8Array.from(bits.match(/.{1,8}/g) ?? [], (octet) => parseInt(octet.padEnd(8, "1"), 2));
}

Deno.test("huffmanDecode() reads what the code writes, and refuses wrong ends", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    const coded = huffmanEncode(bytes);
    const to = new Uint8Array(2 * coded.length);
    const length = huffmanDecode(coded, 0, coded.length, to);
    assertEquals(to.slice(0, length), bytes);
  }));
  for (
    const wrong of [
      [0xff], // eight bits of padding
      [0x00], // zeros as padding
      [0xff, 0xff, 0xff, 0xff], // the end of the string
      [0x1f, 0xff], // a character, and too much padding
    ]
  ) {
    assertEquals(huffmanDecode(Uint8Array.from(wrong), 0, wrong.length, new Uint8Array(16)), -1);
  }
});

Deno.test("HpackDecoder.decode() refuses malformed blocks with COMPRESSION_ERROR", () => {
  const cases: Record<string, string> = {
    "index 0": "80",
    "an index beyond both tables": "be",
    "a name's index beyond both tables": "7f00",
    "an integer that is cut short": "ff",
    "an integer that never ends": "ffffffffffffffffff01",
    "a text that is missing": "40",
    "a text that is cut short": "400a6375",
    "a Huffman text with the end of string": "4084ffffffff00",
    "a table larger than allowed": "3fe21f",
    "a table size update behind a field": "8220",
  };
  for (const [name, block] of Object.entries(cases)) {
    const error = assertThrows(
      () => decode(new HpackDecoder(16_384), hex(block)),
      Http2Error,
    );
    assertEquals((error as Http2Error).code, ERROR.COMPRESSION_ERROR, name);
  }
});

Deno.test("HpackDecoder.decode() says which fields HTTP/2 does not allow, also when they are indexed later", () => {
  const cases: [name: string, value: string][] = [
    ["Upper", "a"],
    ["", "a"],
    [":", "a"],
    ["sp ace", "a"],
    ["a:b", "a"],
    ["a", "line\nbreak"],
    ["a", "\0"],
    ["a", " blank"],
    ["a", "blank\t"],
  ];
  for (const [name, value] of cases) {
    const bytes = (text: string) => [text.length, ...Array.from(text, (c) => c.charCodeAt(0))];
    const decoder = new HpackDecoder(16_384);
    assertEquals(decode(decoder, Uint8Array.from([0x40, ...bytes(name), ...bytes(value)])).isMalformed, true);
    assertEquals(decode(decoder, Uint8Array.of(0xbe)).isMalformed, true, JSON.stringify([name, value]));
    assertEquals(decode(decoder, Uint8Array.of(0x82)).isMalformed, false);
  }
});

Deno.test("HpackDecoder bounds a list that a small block makes large, and keeps its table in order", () => {
  const decoder = new HpackDecoder(8_192);
  const value = "v".repeat(3_000);
  const first = Uint8Array.from([
    0x40,
    1,
    0x61,
    0x7f,
    0xb9,
    0x16,
    ...Array.from(value, (c) => c.charCodeAt(0)),
  ]);
  assertEquals(decode(decoder, first).fields, ["a", value]);
  assertEquals(decode(decoder, new Uint8Array(10_000).fill(0xbe)), {
    fields: [],
    isMalformed: false,
    isTooLarge: true,
    memo: undefined,
  });
  assertEquals(decode(decoder, Uint8Array.of(0xbe)).fields, ["a", value]);
  // An entry larger than the table empties it.
  const huge = Uint8Array.from([0x40, 1, 0x61, 0x7f, 0x81, 0x3f, ...new Uint8Array(8_192).fill(0x76)]);
  assertEquals(decode(decoder, huge).isTooLarge, true);
  assertEquals(decoder.tableBytes, 0);
});

Deno.test("HpackDecoder.decode() gives the same object for a block that says the same, and only then", () => {
  const decoder = new HpackDecoder(16_384);
  decode(decoder, hex("4001 6101 31"));
  const one = decode(decoder, hex("82be"));
  assertEquals(one.fields, [":method", "GET", "a", "1"]);
  assertEquals(decode(decoder, hex("82be")) === one, true);
  decode(decoder, hex("4001 6101 32"));
  assertEquals(decode(decoder, hex("82be")).fields, [":method", "GET", "a", "2"]);
});

Deno.test("encodeFields() writes what any decoder reads, without a table", () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,30}$/);
  const value = fc.stringMatching(/^[!-~]{0,300}$/);
  fc.assert(fc.property(fc.array(fc.tuple(name, value), { maxLength: 20 }), (fields) => {
    const decoder = new HpackDecoder(1_000_000);
    assertEquals(decode(decoder, encodeFields(fields)).fields, fields.flat());
    assertEquals(decoder.tableBytes, 0);
  }));
  assertEquals(encodeFields([[":status", "200"], ["content-type", "x"]]), hex("88 0f10 0178"));
  assertThrows(() => encodeFields([["Upper", ""]]), TypeError);
  assertThrows(() => encodeFields([["a", "b\r\nc: d"]]), TypeError);
});

Deno.test("HpackDecoder.decode() throws nothing but Http2Error on any bytes, and its table stays bounded", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 120 }), { maxLength: 10 }), (blocks) => {
      const decoder = new HpackDecoder(1_000);
      for (const block of blocks) {
        try {
          decode(decoder, block);
        } catch (error) {
          if (!(error instanceof Http2Error)) throw error;
        }
        assertEquals(decoder.tableBytes >= 0 && decoder.tableBytes <= HEADER_TABLE_BYTES, true);
      }
    }),
    { numRuns: 2_000 },
  );
});
