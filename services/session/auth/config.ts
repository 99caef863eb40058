/** How people and programs show who they are, under the key `session.auth`. */
import { z } from "zod";

/** Schema of `session.auth`. */
export const authConfigSchema = z.strictObject({
  mode: z.enum(["auto", "required"]).default("auto").describe(
    "Whether callers must show who they are: `auto`, as soon as there is a user; `required`, always.",
  ),
  issuer: z.string().min(1).max(256).default("aetherflow").describe("`iss` of access tokens."),
  audience: z.string().min(1).max(256).default("aetherflow").describe("`aud` of access tokens."),
  algorithm: z.enum(["EdDSA", "HS256"]).default("EdDSA").describe(
    "How access tokens are signed: Ed25519, whose public keys are at /.well-known/jwks.json; or HS256 with hs256Secret.",
  ),
  hs256Secret: z.string().max(1024).default("").describe(
    "Secret of HS256, at least 32 bytes; empty: made at the first start and kept.",
  ),
  accessTokenMs: z.int().min(1_000).max(86_400_000).default(600_000).describe(
    "How long an access token is good, in milliseconds.",
  ),
  refreshTokenMs: z.int().min(1_000).max(31_536_000_000).default(604_800_000).describe(
    "How long a refresh token is good if it is not used, in milliseconds.",
  ),
  refreshGraceMs: z.int().min(0).max(300_000).default(30_000).describe(
    "How long a used refresh token gives the same successor again, in milliseconds; later its use ends the session.",
  ),
  keyRotationMs: z.int().min(60_000).max(31_536_000_000).default(2_592_000_000).describe(
    "Age at which a signing key is replaced, in milliseconds.",
  ),
  loginFailuresMax: z.int().min(1).max(1_000).default(10).describe(
    "Failed logins of one name, or from one address, within loginWindowMs, after which further ones are refused (429).",
  ),
  loginWindowMs: z.int().min(1_000).max(86_400_000).default(900_000).describe(
    "Length of that window, in milliseconds.",
  ),
  usersMax: z.int().min(1).max(10_000_000).default(100_000).describe("Users; one more is refused."),
  keysPerUserMax: z.int().min(1).max(10_000).default(100).describe(
    "API keys of one user; one more is refused.",
  ),
  bootstrap: z.strictObject({
    username: z.string().max(64).default("").describe(
      "Administrator that is made at a start without users; empty: none.",
    ),
    password: z.string().max(256).default("").describe("The administrator's first password."),
  }).prefault({}),
}).prefault({}).refine((value) => value.hs256Secret === "" || value.hs256Secret.length >= 32, {
  path: ["hs256Secret"],
  error: "expected at least 32 bytes",
}).refine((value) => (value.bootstrap.username === "") === (value.bootstrap.password === ""), {
  path: ["bootstrap", "password"],
  error: "expected both session.auth.bootstrap.username and password, or neither",
});

/** Validated configuration of authentication. */
export type AuthConfig = z.output<typeof authConfigSchema>;
