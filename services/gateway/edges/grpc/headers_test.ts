import { assertEquals } from "@std/assert";
import { encodeStatusMessage, isGrpc, parseTimeout } from "./headers.ts";

Deno.test("parseTimeout() knows gRPC's units and nothing else", () => {
  const texts = ["2H", "3M", "5S", "250m", "1500u", "7000000n", "", "5", "S", "123456789S", "-1S", "1.5S"];
  assertEquals(texts.map(parseTimeout), [
    7_200_000,
    180_000,
    5_000,
    250,
    1.5,
    7,
    ...Array.from({ length: 6 }, () => undefined),
  ]);
});

Deno.test("encodeStatusMessage() percent-encodes what a header cannot hold", () => {
  assertEquals(encodeStatusMessage("etcdserver: key is not provided"), "etcdserver: key is not provided");
  assertEquals(encodeStatusMessage("100 % ☃\n"), "100 %25 %E2%98%83%0A");
  assertEquals([" a b ", " ", ""].map(encodeStatusMessage), ["%20a b%20", "%20", ""]);
});

Deno.test("isGrpc() takes gRPC with protobuf only", () => {
  const types = [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc;x=y",
    "application/grpc-web",
  ];
  assertEquals([...types, "application/json", undefined].map(isGrpc), [
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
});
