import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { formatIp, isInBlock, parseBlock, parseIp } from "./ip_address.ts";

function canonical(text: string): string | undefined {
  const address = parseIp(text);
  return address && formatIp(address);
}

Deno.test("parseIp() and formatIp() give an address one text", () => {
  const cases: [text: string, expected: string | undefined][] = [
    ["192.0.2.1", "192.0.2.1"],
    ["0.0.0.0", "0.0.0.0"],
    ["255.255.255.255", "255.255.255.255"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::FFFF:c000:201", "192.0.2.1"],
    ["::", "::"],
    ["::1", "::1"],
    ["1::", "1::"],
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["2001:db8:0:1:0:0:0:1", "2001:db8:0:1::1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:0:0:1:1:0:0:1", "2001::1:1:0:0:1"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"],
    ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
    ["0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7"],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
    ["fe80::1%eth0", "fe80::1"],
    ["", undefined],
    ["1.2.3", undefined],
    ["1.2.3.4.5", undefined],
    ["1.2.3.256", undefined],
    ["01.2.3.4", undefined],
    ["0x1.2.3.4", undefined],
    ["1.2.3.4%eth0", undefined],
    ["1.2.3.4 ", undefined],
    [":", undefined],
    [":::", undefined],
    ["1::2::3", undefined],
    ["1:2:3:4:5:6:7", undefined],
    ["1:2:3:4:5:6:7:8:9", undefined],
    ["1:2:3:4:5:6:7:8::", undefined],
    ["12345::", undefined],
    ["g::", undefined],
    ["1.2.3.4::", undefined],
    ["::1.2.3.4:5", undefined],
    ["::1%", undefined],
    ["[::1]", undefined],
    ["1".repeat(1_000), undefined],
  ];
  for (const [text, expected] of cases) assertEquals(canonical(text), expected, text);
});

Deno.test("parseIp() reads every text that formatIp() writes", () => {
  const group = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }));
  fc.assert(fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
    assertEquals(parseIp(formatIp(groups)), groups);
  }));
});

Deno.test("isInBlock() compares as many bits as the block has", () => {
  const cases: [address: string, block: string, expected: boolean][] = [
    ["10.1.2.3", "10.0.0.0/8", true],
    ["11.0.0.0", "10.0.0.0/8", false],
    ["::ffff:10.1.2.3", "10.0.0.0/8", true],
    ["192.168.1.127", "192.168.1.0/25", true],
    ["192.168.1.128", "192.168.1.0/25", false],
    ["192.0.2.1", "192.0.2.1", true],
    ["192.0.2.2", "192.0.2.1", false],
    ["1.2.3.4", "0.0.0.0/0", true],
    ["::1", "0.0.0.0/0", false],
    ["1.2.3.4", "::/0", true],
    ["fd12::1", "fd00::/8", true],
    ["fe00::1", "fd00::/8", false],
    ["2001:db8::1", "2001:db8::/127", true],
    ["2001:db8::2", "2001:db8::/127", false],
  ];
  for (const [address, block, expected] of cases) {
    assertEquals(isInBlock(parseIp(address)!, parseBlock(block)!), expected, `${address} in ${block}`);
  }
});

Deno.test("parseBlock() refuses what is no block", () => {
  const texts = [
    "",
    "/",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/-1",
    "::/129",
    "10.0.0.1/8",
    "fe80::%e/64",
  ];
  for (const text of texts) assertEquals(parseBlock(text), undefined, text);
});
