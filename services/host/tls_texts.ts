/** Reads the certificate files that the configuration names, because the worker that uses them may read no file. */
import type { TlsTexts } from "../gateway/config.ts";
import type { Config } from "./config.ts";
import { EXIT, HostError } from "./exit_code.ts";

/** Texts of the files of `gateway.grpc.tls`; undefined when it names none.
 *  @throws {HostError} naming the key and the file that cannot be read, or that holds no PEM text. */
export function readTlsTexts(config: Config): TlsTexts | undefined {
  const { tls } = config.gateway.grpc;
  if (tls.certFile === "") return undefined;
  return {
    cert: readPem("certFile", tls.certFile, "CERTIFICATE"),
    key: readPem("keyFile", tls.keyFile, "PRIVATE KEY"),
    clientCa: tls.clientCaFile === "" ? undefined : readPem("clientCaFile", tls.clientCaFile, "CERTIFICATE"),
  };
}

function readPem(key: string, path: string, what: string): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HostError(`cannot read ${path} (gateway.grpc.tls.${key}): ${reason}`, EXIT.config, {
      cause: error,
    });
  }
  if (!new RegExp(`-----BEGIN ([A-Z]+ )?${what}-----`).test(text)) {
    throw new HostError(`${path} (gateway.grpc.tls.${key}) holds no PEM ${what}`, EXIT.config);
  }
  return text;
}
