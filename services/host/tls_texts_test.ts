import { assertEquals, assertThrows } from "@std/assert";
import { loadConfig } from "./config.ts";
import { HostError } from "./exit_code.ts";
import { readEtcdTlsTexts, readTlsTexts } from "./tls_texts.ts";

function configOf(settings: Record<string, string>) {
  return loadConfig({
    flags: Object.entries(settings).map(([key, value]) => ({
      path: `gateway.grpc.tls.${key}`,
      value,
      flag: "--set",
    })),
  });
}

Deno.test("readTlsTexts() reads the files that are named and refuses what is no PEM text", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-tls-" });
  try {
    const [certFile, keyFile] = [`${folder}/cert.pem`, `${folder}/key.pem`];
    const cert = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const key = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
    await Deno.writeTextFile(certFile, cert);
    await Deno.writeTextFile(keyFile, key);
    assertEquals(readTlsTexts(loadConfig({})), undefined);
    assertEquals(readTlsTexts(configOf({ certFile, keyFile })), { cert, key, clientCa: undefined });
    assertEquals(readTlsTexts(configOf({ certFile, keyFile, clientCaFile: certFile }))?.clientCa, cert);
    assertThrows(
      () => readTlsTexts(configOf({ certFile: keyFile, keyFile })),
      HostError,
      `${keyFile} (gateway.grpc.tls.certFile) holds no PEM CERTIFICATE`,
    );
    assertThrows(
      () => readTlsTexts(configOf({ certFile: `${folder}/none`, keyFile })),
      HostError,
      `cannot read ${folder}/none (gateway.grpc.tls.certFile)`,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("readEtcdTlsTexts() reads what is named, and nothing for another engine", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-tls-" });
  try {
    const caFile = `${folder}/ca.pem`;
    const ca = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    await Deno.writeTextFile(caFile, ca);
    const load = (engine: string, path: string) =>
      loadConfig({
        file: {
          name: "aetherflow.yaml",
          text: `kv: { engine: ${engine}, etcd: { endpoints: ["https://a:1"], tls: { caFile: "${path}" } } }`,
        },
      });
    assertEquals(readEtcdTlsTexts(load("etcd", caFile)), { ca, cert: undefined, key: undefined });
    assertEquals(readEtcdTlsTexts(load("memory", `${folder}/none`)), undefined);
    assertThrows(
      () => readEtcdTlsTexts(load("etcd", `${folder}/none`)),
      HostError,
      `cannot read ${folder}/none (kv.etcd.tls.caFile)`,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
