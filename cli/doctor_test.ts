import { assertEquals, assertStringIncludes } from "@std/assert";
import { loadConfig } from "../services/host/config.ts";
import { openDataFolder } from "../services/host/data_folder.ts";
import { checkRuntime, examine } from "./doctor.ts";

/** Everything on free ports. */
const FREE = {
  "quantum.basePort": "0",
  "gateway.http.port": "0",
  "gateway.grpc.port": "0",
  "gateway.resp.port": "0",
};

function configOf(settings: Record<string, string>) {
  return loadConfig({
    flags: Object.entries(settings).map(([path, value]) => ({ path, value, flag: "--set" })),
  });
}

Deno.test("examine() passes on a machine that can run the product, and leaves nothing but the folder behind", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-doctor-" });
  const findings = await examine(configOf({ data, ...FREE }));
  assertEquals(findings.filter(({ ok }) => !ok), []);
  assertEquals(findings.map(({ check }) => check), [
    "runtime",
    "permissions",
    "ports",
    "data folder",
    "open files",
    "sync to disk",
    "clock",
    "servers",
  ]);
  assertEquals((await Array.fromAsync(Deno.readDir(data))).map(({ name }) => name), ["host.lock"]);
  await Deno.remove(data, { recursive: true });
});

Deno.test("examine() has a hint for a taken port and for a data folder in use", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-doctor-" });
  {
    using _folder = openDataFolder(data);
    using tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const port = String((tcp.addr as Deno.NetAddr).port);
    const findings = await examine(configOf({ data, ...FREE, "gateway.http.port": port }));
    const failed = findings.filter(({ ok }) => !ok);
    assertEquals(failed.map(({ check }) => check), ["ports", "data folder"]);
    assertStringIncludes(failed[0]!.hint!, "gateway.http.port=PORT");
    assertStringIncludes(failed[1]!.hint!, "--data FOLDER");
  }
  await Deno.remove(data, { recursive: true });
});

Deno.test("examine() reaches for the servers that are configured, and names the key of one that is not there", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-doctor-" });
  const redis = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const gone = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  gone.close();
  const settings = {
    data,
    ...FREE,
    "session.engine": "redis",
    "session.redis.nodes": `["127.0.0.1:${redis.addr.port}"]`,
  };
  const servers = async (more: Record<string, string>) =>
    (await examine(configOf({ ...settings, ...more }))).find(({ check }) => check === "servers")!;
  const reached = await servers({});
  assertEquals([reached.ok, reached.detail], [true, `reached: 127.0.0.1:${redis.addr.port}`]);
  const missing = await servers({
    "statesync.engine": "postgres",
    "statesync.postgres.port": String(gone.addr.port),
  });
  assertEquals(missing.ok, false);
  assertStringIncludes(missing.detail, `127.0.0.1:${gone.addr.port} of statesync.postgres: `);
  redis.close();
  await Deno.remove(data, { recursive: true });
});

Deno.test("checkRuntime() wants Deno 2.9 or newer", () => {
  const versions = ["2.8.9", "2.9.0", "2.10.1", "3.0.0", "1.46.3"];
  assertEquals(versions.map((version) => checkRuntime(version).ok), [false, true, true, true, false]);
});
