import { assertEquals, assertThrows } from "@std/assert";
import { clusterNetworks, dialableHost, parseAddress } from "./cluster_config.ts";
import { loadConfig } from "./config.ts";
import { ConfigError } from "./config_sources.ts";

const load = (cluster: string) =>
  loadConfig({ file: { name: "aetherflow.yaml", text: `cluster: { ${cluster} }` } }).cluster;

for (
  const [cluster, message] of [
    [
      "host: 10.0.0.1, networks: [10.0.0.0/8]",
      "cluster.host is 10.0.0.1, expected a loopback address, or cluster.secretFile",
    ],
    [
      "host: 10.0.0.1, secretFile: s",
      "cluster.networks is [], name the addresses or networks of the other hosts",
    ],
    [
      "host: 0.0.0.0, secretFile: s, networks: [10.0.0.0/8]",
      "name the address that others reach this host by",
    ],
    ["advertise: kv.example", "expected text that matches"],
    ["secretFile: s, networks: [fd00::/8]", "cluster.networks.0 is"],
    ["discovery: { kind: etcd, etcd: { endpoints: ['e:1'] } }", "the secret that the hosts share"],
    ["secretFile: s, discovery: { kind: static }", "is static, so name one or more"],
    ["secretFile: s, discovery: { kind: etcd }", "is etcd, so name one or more"],
    [
      "secretFile: s, discovery: { kind: static, peers: [{ service: gateway, address: '10.0.0.1:1' }] }",
      "expected one of kv, session",
    ],
  ] as const
) {
  Deno.test(`loadConfig() refuses cluster: { ${cluster} }`, () => {
    assertThrows(() => load(cluster), ConfigError, message);
  });
}

Deno.test("clusterNetworks() is nothing for a host that is alone, and this machine unless others are named", () => {
  assertEquals(clusterNetworks(load("")), []);
  assertEquals(clusterNetworks(load("secretFile: s")), ["127.0.0.0/8", "[::1]"]);
  assertEquals(clusterNetworks(load("secretFile: s, networks: [10.0.0.0/8]")), ["10.0.0.0/8"]);
});

Deno.test("dialableHost() finds a node that listens on all addresses, parseAddress() reads IPv6 in brackets", () => {
  assertEquals(["0.0.0.0", "::", "10.0.0.1"].map(dialableHost), ["127.0.0.1", "::1", "10.0.0.1"]);
  assertEquals(parseAddress("[fd00::1]:7402"), { hostname: "fd00::1", port: 7402 });
  assertEquals(parseAddress("https://e.example:2379"), { hostname: "e.example", port: 2379 });
});
