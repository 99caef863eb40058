/** Checks certificates before a server takes them: the platform's servers would only fail the handshakes that follow. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { TlsTexts } from "../config.ts";

/** @throws {Error} that says what is wrong: a text that holds no certificate or key, or a key of another certificate. */
export function checkCertificate({ cert, key, clientCa }: Pick<TlsTexts, "cert" | "key" | "clientCa">): void {
  const certificate = read("certificate", () => new X509Certificate(cert));
  const privateKey = read("private key", () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) throw new Error("the private key is not the certificate's");
  if (clientCa !== undefined) read("authority of clients", () => new X509Certificate(clientCa));
}

function read<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw new Error(`the ${what} cannot be read`, { cause });
  }
}
