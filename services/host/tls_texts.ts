/** Reads the certificate files that the configuration names, because the worker that uses them may read no file. */
import type { TlsTexts } from "../gateway/config.ts";
import type { EtcdTlsTexts } from "../kv/config.ts";
import type { Config } from "./config.ts";
import type { RegistryTlsTexts } from "./discovery/mod.ts";
import { EXIT, HostError } from "./exit_code.ts";

/** Texts of the files of `gateway.grpc.tls`; undefined when it names none.
 *  @throws {HostError} naming the key and the file that cannot be read, or that holds no PEM text. */
export function readTlsTexts(config: Config): TlsTexts | undefined {
  const { tls } = config.gateway.grpc;
  if (tls.certFile === "") return undefined;
  return {
    cert: readPem("gateway.grpc.tls.certFile", tls.certFile, "CERTIFICATE"),
    key: readPem("gateway.grpc.tls.keyFile", tls.keyFile, "PRIVATE KEY"),
    clientCa: readOptional("gateway.grpc.tls.clientCaFile", tls.clientCaFile, "CERTIFICATE"),
  };
}

/** Texts of the files of `gateway.http.tls`; undefined when it names none. @throws {HostError} as readTlsTexts. */
export function readHttpTlsTexts(config: Config): TlsTexts | undefined {
  const { tls } = config.gateway.http;
  if (tls.certFile === "") return undefined;
  return {
    cert: readPem("gateway.http.tls.certFile", tls.certFile, "CERTIFICATE"),
    key: readPem("gateway.http.tls.keyFile", tls.keyFile, "PRIVATE KEY"),
    clientCa: undefined,
  };
}

/** Texts of the files of `kv.etcd.tls`; undefined when another engine is chosen.
 *  @throws {HostError} as readTlsTexts. */
export function readEtcdTlsTexts(config: Config): EtcdTlsTexts | undefined {
  if (config.kv.engine !== "etcd") return undefined;
  const { tls } = config.kv.etcd;
  return {
    ca: readOptional("kv.etcd.tls.caFile", tls.caFile, "CERTIFICATE"),
    cert: readOptional("kv.etcd.tls.certFile", tls.certFile, "CERTIFICATE"),
    key: readOptional("kv.etcd.tls.keyFile", tls.keyFile, "PRIVATE KEY"),
  };
}

/** Texts of the files of `cluster.discovery.etcd.tls`; undefined without such a registry.
 *  @throws {HostError} as readTlsTexts. */
export function readRegistryTlsTexts({ cluster: { discovery } }: Config): RegistryTlsTexts | undefined {
  if (discovery.kind !== "etcd") return undefined;
  const { tls } = discovery.etcd;
  const key = "cluster.discovery.etcd.tls";
  return {
    ca: readOptional(`${key}.caFile`, tls.caFile, "CERTIFICATE"),
    cert: readOptional(`${key}.certFile`, tls.certFile, "CERTIFICATE"),
    key: readOptional(`${key}.keyFile`, tls.keyFile, "PRIVATE KEY"),
  };
}

/** Certificate files whose change takes effect while the product runs: the gateway's. */
export function certificateFiles({ gateway }: Config): string[] {
  const { certFile, keyFile, clientCaFile } = gateway.grpc.tls;
  const { http } = gateway;
  return [certFile, keyFile, clientCaFile, http.tls.certFile, http.tls.keyFile].filter((path) => path !== "");
}

function readOptional(key: string, path: string, what: string): string | undefined {
  return path === "" ? undefined : readPem(key, path, what);
}

function readPem(key: string, path: string, what: string): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HostError(`cannot read ${path} (${key}): ${reason}`, EXIT.config, {
      cause: error,
    });
  }
  if (!new RegExp(`-----BEGIN ([A-Z]+ )?${what}-----`).test(text)) {
    throw new HostError(`${path} (${key}) holds no PEM ${what}`, EXIT.config);
  }
  return text;
}
