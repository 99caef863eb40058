import { assertEquals } from "@std/assert";
import { exposureWarnings, openEdges } from "./exposure.ts";

const LOCAL = {
  http: { host: "127.0.0.1", tls: { certFile: "" } },
  grpc: { host: "localhost", tls: { certFile: "", clientCaFile: "" } },
  resp: { host: "::1" },
  trustedProxies: [],
};

Deno.test("openEdges() names the edges that a network reaches", () => {
  assertEquals(openEdges(LOCAL), []);
  const everywhere = {
    ...LOCAL,
    http: { ...LOCAL.http, host: "0.0.0.0" },
    grpc: { ...LOCAL.grpc, host: "::" },
    resp: { host: "10.0.0.1" },
  };
  assertEquals(openEdges(everywhere), ["http", "grpc", "resp"]);
  // Clients with a certificate have shown who they are.
  const certified = { ...LOCAL, grpc: { host: "::", tls: { certFile: "c", clientCaFile: "a" } } };
  assertEquals(openEdges(certified), []);
});

Deno.test("exposureWarnings() tells of what travels in the open", () => {
  assertEquals(exposureWarnings(LOCAL), []);
  const http = { ...LOCAL, http: { host: "0.0.0.0", tls: { certFile: "" } } };
  assertEquals(exposureWarnings(http).length, 1);
  assertEquals(exposureWarnings({ ...http, trustedProxies: ["10.0.0.1"] }), []);
  assertEquals(exposureWarnings({ ...http, http: { host: "0.0.0.0", tls: { certFile: "c" } } }), []);
  assertEquals(exposureWarnings({ ...LOCAL, resp: { host: "0.0.0.0" } }).length, 1);
});
