import { assertEquals, assertThrows } from "@std/assert";
import { createClientAddresses } from "./client_address.ts";

const PROXIES = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"];

/** `ip port secure`, as the fields tell. */
function told(fields: Record<string, string>, hostname = "10.0.0.1", proxies = PROXIES): string {
  const { ip, port, isSecure } = createClientAddresses(proxies)
    .of({ hostname, port: 5000, isSecure: false }, new Headers(fields));
  return `${ip} ${port} ${isSecure}`;
}

Deno.test("ClientAddresses.of() reads X-Forwarded-For from the right, through trusted proxies only", () => {
  const cases: [chain: string, expected: string][] = [
    ["198.51.100.1", "198.51.100.1 0 false"],
    ["198.51.100.1:1234", "198.51.100.1 1234 false"],
    ["[2001:db8::1]:1234", "2001:db8::1 1234 false"],
    ["[2001:db8::1]", "2001:db8::1 0 false"],
    ["2001:DB8::0:1", "2001:db8::1 0 false"],
    ["fe80::1%eth0", "fe80::1 0 false"],
    ["6.6.6.6, 198.51.100.1", "198.51.100.1 0 false"],
    ["6.6.6.6, 198.51.100.1, 10.0.0.2,10.0.0.3", "198.51.100.1 0 false"],
    ["6.6.6.6, 198.51.100.1, fd00::2, 192.0.2.7", "198.51.100.1 0 false"],
    ["10.0.0.9, 10.0.0.2", "10.0.0.9 0 false"],
    ["6.6.6.6, garbage, 10.0.0.2", "10.0.0.2 0 false"],
    ["6.6.6.6, garbage", "10.0.0.1 5000 false"],
    ["6.6.6.6,", "10.0.0.1 5000 false"],
    ["unknown", "10.0.0.1 5000 false"],
    ["198.51.100.1:99999", "10.0.0.1 5000 false"],
    ["198.51.100.1:", "10.0.0.1 5000 false"],
    ["198.051.100.1", "10.0.0.1 5000 false"],
    [Array.from({ length: 100 }, () => "10.0.0.2").join(), "10.0.0.2 0 false"],
  ];
  for (const [chain, expected] of cases) assertEquals(told({ "x-forwarded-for": chain }), expected, chain);
});

Deno.test("ClientAddresses.of() reads Forwarded the same way, whatever clients wrote before it", () => {
  const cases: [chain: string, expected: string][] = [
    ["for=198.51.100.1", "198.51.100.1 0 false"],
    ["For=198.51.100.1;Proto=HTTPS;by=10.0.0.1", "198.51.100.1 0 true"],
    ['for="198.51.100.1:1234" ; proto=https', "198.51.100.1 1234 true"],
    ['for="[2001:db8::1]:1234"', "2001:db8::1 1234 false"],
    ['for="[2001:db8::1]:_p"', "2001:db8::1 0 false"],
    [
      "for=6.6.6.6;proto=https, for=198.51.100.1;proto=http, for=10.0.0.2;proto=https",
      "198.51.100.1 0 false",
    ],
    ['for=", for=198.51.100.1', "198.51.100.1 0 false"],
    ['for="6.6.6.6, for=198.51.100.1;proto=https', "198.51.100.1 0 true"],
    ['for=198.51.100.1;by="a,b"', "198.51.100.1 0 false"],
    ['for=198.51.100.1;by="a\\",b"', "198.51.100.1 0 false"],
    ["for=6.6.6.6, for=_hidden;proto=https", "10.0.0.1 5000 true"],
    ["for=6.6.6.6, for=unknown, for=10.0.0.2", "10.0.0.2 0 false"],
    ["proto=https", "10.0.0.1 5000 true"],
    ["for=198.51.100.1;for=6.6.6.6", "10.0.0.1 5000 false"],
    ["for=198.51.100.1 proto=https", "10.0.0.1 5000 false"],
    ["for = 198.51.100.1", "10.0.0.1 5000 false"],
    ["for=2001:db8::1", "10.0.0.1 5000 false"],
    ["for=198.51.100.1;proto=gopher", "198.51.100.1 0 false"],
    [",", "10.0.0.1 5000 false"],
  ];
  for (const [chain, expected] of cases) assertEquals(told({ forwarded: chain }), expected, chain);
});

Deno.test("ClientAddresses.of() takes X-Forwarded-Proto of the client's own connection", () => {
  const cases: [chain: string | undefined, protocols: string, expected: string][] = [
    ["198.51.100.1", "https", "198.51.100.1 0 true"],
    ["198.51.100.1", "http", "198.51.100.1 0 false"],
    ["6.6.6.6, 198.51.100.1, 10.0.0.2", "http, https, http", "198.51.100.1 0 true"],
    ["198.51.100.1, 10.0.0.2", "https", "198.51.100.1 0 true"],
    ["198.51.100.1", "https, http", "198.51.100.1 0 false"],
    ["198.51.100.1", "quic", "198.51.100.1 0 false"],
    [undefined, "wss", "10.0.0.1 5000 true"],
  ];
  for (const [chain, protocols, expected] of cases) {
    const fields = {
      ...(chain === undefined ? {} : { "x-forwarded-for": chain }),
      "x-forwarded-proto": protocols,
    };
    assertEquals(told(fields), expected, `${chain} ${protocols}`);
  }
});

Deno.test("ClientAddresses.of() believes nobody else, and two kinds of fields only if they agree", () => {
  const spoofed = {
    forwarded: "for=6.6.6.6;proto=https",
    "x-forwarded-for": "6.6.6.6",
    "x-forwarded-proto": "https",
  };
  assertEquals(told(spoofed, "203.0.113.5"), "203.0.113.5 5000 false");
  assertEquals(told(spoofed, "10.0.0.1", []), "10.0.0.1 5000 false");
  assertEquals(told(spoofed), "6.6.6.6 0 true");
  assertEquals(told({ ...spoofed, "x-forwarded-for": "198.51.100.1" }), "10.0.0.1 5000 false");
  assertEquals(told({ "x-forwarded-for": "6.6.6.6" }, "::ffff:203.0.113.5"), "203.0.113.5 5000 false");
  assertEquals(told({ "x-forwarded-for": "6.6.6.6" }, "::ffff:10.0.0.1"), "6.6.6.6 0 false");
  assertEquals(told({}, "fe80::1%eth0"), "fe80::1 5000 false");
  assertEquals(told({}, "not an address"), "not an address 5000 false");
  assertThrows(() => createClientAddresses(["10.0.0.1/8"]), RangeError, "10.0.0.1/8");
});
