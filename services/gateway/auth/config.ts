/** Who may come in by which proof, under the key `gateway.auth`. */
import { z } from "zod";
import { isLoopbackHost } from "../limits/protected_mode.ts";

/** Algorithms by which issuers may sign: public-key ones only, since we hold no secret of theirs. */
export const ISSUER_ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

const grant = z.strictObject({
  service: z.enum(["kv", "documents", "queue", "sessions", "*"]).describe(
    "Whose things; `*` is every service's.",
  ),
  prefix: z.string().max(1024).default("").describe(
    "What keys or document ids begin with; empty: all of them.",
  ),
  write: z.boolean().default(false).describe("Whether writing is allowed too."),
});

const mapping = z.strictObject({
  role: z.string().min(1).max(256).describe("Value of the roles claim that this is for; `*` is everybody."),
  admin: z.boolean().default(false).describe("Whether they may do everything."),
  grants: z.array(grant).max(64).default([]).describe("What they may do."),
});

/** The URL, when it is one that keys may be fetched from: https, or http on this machine. */
function keysUrl(text: string): URL | undefined {
  const url = URL.parse(text);
  if (url === null || url.username !== "" || url.password !== "") return undefined;
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopbackHost(url.hostname))
    ? url
    : undefined;
}

const issuer = z.strictObject({
  issuer: z.string().min(1).max(1024).describe("`iss` of its tokens, to the letter."),
  jwksUrl: z.string().max(2048).refine((text) => keysUrl(text) !== undefined, {
    error: "expected an https URL (http only on this machine), without a user name",
  }).describe("Where its public keys are (JWKS)."),
  audience: z.string().min(1).max(1024).describe("`aud` that its tokens must name."),
  algorithms: z.array(z.enum(ISSUER_ALGORITHMS)).min(1).default(["RS256", "ES256", "EdDSA"]).describe(
    "Algorithms that its tokens may be signed with.",
  ),
  tokenType: z.enum(["at+jwt", "any"]).default("at+jwt").describe(
    "`typ` of its tokens: access tokens of RFC 9068, or any, for issuers that say nothing; the audience tells then.",
  ),
  rolesClaim: z.string().min(1).max(256).default("roles").describe(
    "Claim with the roles: a list or words with blanks between; dots go into objects.",
  ),
  mapping: z.array(mapping).max(64).default([]).describe(
    "What roles may do. Somebody without any may only see who they are.",
  ),
});

/** Schema of `gateway.auth`. */
export const gatewayAuthConfigSchema = z.strictObject({
  openPaths: z.array(z.enum(["/", "/version", "/openapi.json", "/metrics"])).default(["/", "/openapi.json"])
    .describe(
      "Paths that need no credential although users exist; health and the public keys never need one. The list of what " +
        "is here and its description tell no more than the documentation; /version and /metrics tell of this machine.",
    ),
  issuers: z.array(issuer).max(16).default([]).describe(
    "Others whose access tokens are taken (OpenID Connect).",
  ),
}).prefault({}).refine(
  ({ issuers }) => new Set(issuers.map((each) => each.issuer)).size === issuers.length,
  { path: ["issuers"], error: "expected each issuer once" },
);

/** Validated configuration of the gateway's authentication. */
export type GatewayAuthConfig = z.output<typeof gatewayAuthConfigSchema>;

/** One issuer. */
export type IssuerConfig = GatewayAuthConfig["issuers"][number];

/** Where the keys of the issuers are fetched from, once each: what the gateway's net permission needs. */
export function issuerAddresses(config: GatewayAuthConfig): { hostname: string; port: number }[] {
  const found = new Map<string, { hostname: string; port: number }>();
  for (const { jwksUrl } of config.issuers) {
    const url = keysUrl(jwksUrl)!;
    const port = url.port !== "" ? Number(url.port) : url.protocol === "https:" ? 443 : 80;
    found.set(url.host, { hostname: url.hostname, port });
  }
  return [...found.values()];
}
