/** The secret that the hosts of a cluster share. */
import { Buffer } from "node:buffer";
import { hkdfSync } from "node:crypto";
import type { Random } from "../runtime/random.ts";
import { EXIT, HostError } from "./exit_code.ts";

/** Least length of the secret, in bytes: it must not be guessed from a recorded handshake. */
export const CLUSTER_SECRET_BYTES = 32;

/** Length of what Quantum nodes share, in bytes. */
const QUANTUM_SECRET_BYTES = 32;

/** What the derived secret is for, so that the same file could serve another purpose later. */
const LABEL = "aetherflow cluster quantum v1";

/** A new secret as text. */
export function newClusterSecret(random: Random): string {
  return Buffer.from(random.fill(new Uint8Array(CLUSTER_SECRET_BYTES))).toString("base64");
}

/** The Quantum secret of all workers of the cluster: HKDF-SHA256 of what the file holds.
 *  @throws {HostError} if it cannot be read, or holds less than 32 bytes as hex or base64. */
export function readClusterSecret(path: string): Uint8Array {
  let text: string;
  try {
    text = Deno.readTextFileSync(path).trim();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HostError(`cannot read ${path} (cluster.secretFile): ${reason}`, EXIT.config, { cause: error });
  }
  const bytes = decode(text);
  if (bytes === undefined || bytes.length < CLUSTER_SECRET_BYTES) {
    throw new HostError(
      `${path} (cluster.secretFile) holds no secret: expected at least ${CLUSTER_SECRET_BYTES} random bytes as hex or ` +
        "base64, as `aetherflow cluster secret` prints them",
      EXIT.config,
    );
  }
  return new Uint8Array(hkdfSync("sha256", bytes, new Uint8Array(0), LABEL, QUANTUM_SECRET_BYTES));
}

function decode(text: string): Uint8Array | undefined {
  if (/^([0-9A-Fa-f]{2})+$/.test(text)) return Buffer.from(text, "hex");
  if (/^[A-Za-z0-9+/_-]+={0,2}$/.test(text)) return Buffer.from(text, "base64");
  return undefined;
}
