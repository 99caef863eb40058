/** How several hosts make one system, under the key `cluster`. */
import { z } from "zod";

/** What can be found on other hosts: who calls it reaches it over Quantum. */
export const REMOTE_SERVICES = ["kv", "session", "statesync"] as const;
export type RemoteServiceName = typeof REMOTE_SERVICES[number];

const HOST = String.raw`(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)`;
const ADDRESS = new RegExp(`^${HOST}:[0-9]{1,5}$`);
const ENDPOINT = new RegExp(`^(https?://)?${HOST}:[0-9]{1,5}$`);
/** As the permissions of a worker can say it: an address, or an IPv4 network. */
const NETWORK = /^([0-9]{1,3}(\.[0-9]{1,3}){3}(\/(3[0-2]|[12]?[0-9]))?|\[[0-9A-Fa-f:.]+\])$/;

const etcd = z.strictObject({
  endpoints: z.array(
    z.string().regex(ENDPOINT, 'expected "host:port", "http://host:port" or "https://host:port"'),
  ).max(64).default([]).describe(
    "Members of the registry: an etcd cluster, or the gRPC address of a gateway in front of our own store. With https all of them.",
  ),
  prefix: z.string().min(1).max(256).default("/services/").describe(
    "What the registry's keys begin with: <prefix><service>/<address>.",
  ),
  ttlSeconds: z.int().min(2).max(3_600).default(10).describe(
    "How long entries of a host that is silent stay in the registry, in seconds.",
  ),
  tls: z.strictObject({
    caFile: z.string().default("").describe(
      "PEM file of the authorities of the members' certificates; empty is the platform's.",
    ),
    certFile: z.string().default("").describe("PEM file of the certificate shown to the members."),
    keyFile: z.string().default("").describe("PEM file of that certificate's key."),
    serverName: z.string().default("").describe(
      "Name that the members' certificates must carry when it is not the endpoint's.",
    ),
  }).prefault({}),
  username: z.string().default("").describe("Account at the registry; empty: none."),
  password: z.string().default("").describe("Password of that account."),
}).prefault({});

const discovery = z.strictObject({
  kind: z.enum(["none", "static", "etcd"]).default("none").describe(
    "How services on other hosts are found: `static`, the list `peers`; `etcd`, a registry, where this host enters its own.",
  ),
  peers: z.array(z.strictObject({
    service: z.enum(REMOTE_SERVICES).describe("What runs there."),
    address: z.string().regex(ADDRESS, "expected host:port").describe("Its Quantum address."),
  })).max(1_000).default([]).describe("Services on other hosts, with kind static."),
  checkIntervalMs: z.int().min(50).max(600_000).default(1_000).describe(
    "How often each service on another host is asked for its health, in milliseconds.",
  ),
  checkTimeoutMs: z.int().min(50).max(60_000).default(1_000).describe(
    "Time for that answer, in milliseconds; after two that fail in a row the service counts as down.",
  ),
  etcd,
}).prefault({});

/** Schema of `cluster`: every key has a default, a range and a description. */
export const clusterConfigSchema = z.strictObject({
  secretFile: z.string().default("").describe(
    "File with the secret that all hosts share (`aetherflow cluster secret` makes one). Empty: this host is alone, and its " +
      "secret is new with each start. Who holds it may call every worker as if it were a gateway.",
  ),
  host: z.string().min(1).default("127.0.0.1").describe(
    "IP address that the Quantum nodes listen on; another than loopback needs secretFile and networks.",
  ),
  advertise: z.string().regex(
    /^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[?[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*\]?)?$/,
    "expected an IP address",
  )
    .default("").describe(
      "IP address under which other hosts reach the Quantum nodes; empty: cluster.host.",
    ),
  networks: z.array(z.string().regex(NETWORK, "expected an IP address or an IPv4 network such as 10.0.0.0/8"))
    .max(64).default([]).describe(
      "Addresses and IPv4 networks of the other hosts. The workers may talk to these, and no others; empty with secretFile: " +
        "those of this machine.",
    ),
  discovery,
}).prefault({}).superRefine((value, context) => {
  const problem = (path: string[], message: string) => context.addIssue({ code: "custom", path, message });
  const { secretFile, host, advertise, networks, discovery: { kind, peers, etcd } } = value;
  if (!isLoopbackAddress(host) && secretFile === "") {
    problem(["host"], "expected a loopback address, or cluster.secretFile beside it");
  }
  if (!isLoopbackAddress(host) && networks.length === 0) {
    problem(
      ["networks"],
      "name the addresses or networks of the other hosts: cluster.host is no loopback address",
    );
  }
  if (isWildcard(host) && advertise === "") {
    problem(["advertise"], `name the address that others reach this host by: cluster.host is ${host}`);
  }
  if (kind !== "none" && secretFile === "") {
    problem(
      ["secretFile"],
      "name the file of the secret that the hosts share: cluster.discovery.kind is not none",
    );
  }
  if (kind === "static" && peers.length === 0) {
    problem(["discovery", "peers"], "cluster.discovery.kind is static, so name one or more");
  }
  if (kind === "etcd" && etcd.endpoints.length === 0) {
    problem(["discovery", "etcd", "endpoints"], "cluster.discovery.kind is etcd, so name one or more");
  }
  const secure = etcd.endpoints.filter((endpoint) => endpoint.startsWith("https://")).length;
  if (secure !== 0 && secure !== etcd.endpoints.length) {
    problem(["discovery", "etcd", "endpoints"], "expected https for all of them or for none");
  }
  if ((etcd.tls.certFile === "") !== (etcd.tls.keyFile === "")) {
    problem(["discovery", "etcd", "tls"], "expected certFile and keyFile together");
  }
});

/** The validated configuration of the cluster. */
export type ClusterConfig = z.output<typeof clusterConfigSchema>;

/** Whether only this machine reaches an address. */
export function isLoopbackAddress(host: string): boolean {
  return /^(127(\.[0-9]{1,3}){3}|\[?::1\]?|localhost)$/.test(host);
}

/** Whether an address stands for all of the machine's. */
export function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || /^\[?::\]?$/.test(host);
}

/** What the workers may talk to besides one another, as their permissions say it. */
export function clusterNetworks({ secretFile, networks }: ClusterConfig): readonly string[] {
  if (networks.length > 0 || secretFile === "") return networks;
  return ["127.0.0.0/8", "[::1]"];
}

/** Where this machine's own workers reach a node that listens on `host`. */
export function dialableHost(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return isWildcard(host) ? "::1" : host;
}

/** Reads `host:port`, with brackets around IPv6; the schema has checked its form. */
export function parseAddress(text: string): { hostname: string; port: number } {
  const bare = text.replace(/^https?:\/\//, "");
  const colon = bare.lastIndexOf(":");
  return { hostname: bare.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(bare.slice(colon + 1)) };
}
