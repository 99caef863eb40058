import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { assert, assertEquals } from "@std/assert";
import { EXPOSED } from "./mod.ts";
import { describeApi } from "./openapi.ts";
import { buildRouteTable } from "./routes.ts";

const document = describeApi(buildRouteTable(EXPOSED).routes, "1.2.3") as Record<string, JsonObject>;

function* references(value: JsonValue): Generator<string> {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "$ref") yield inner as string;
    else yield* references(inner as JsonValue);
  }
}

Deno.test("describeApi() gives a whole OpenAPI 3.1 document", () => {
  assertEquals(document.openapi as unknown, "3.1.0");
  assertEquals(document.info!.version, "1.2.3");
  const paths = Object.keys(document.paths!);
  for (const path of ["/api/v1/kv/{key}", "/api/v1/sessions/{session_id}:heartbeat", "/v3/kv/range"]) {
    assert(paths.includes(path), path);
  }
  const ids = new Set<string>();
  for (const [path, operations] of Object.entries(document.paths!)) {
    for (const [method, each] of Object.entries(operations as Record<string, JsonObject>)) {
      const operation = each as Record<string, JsonObject>;
      assert(["get", "put", "post", "delete", "patch"].includes(method), method);
      const id = operation.operationId as unknown as string;
      assert(!ids.has(id), `${id} is used twice`);
      ids.add(id);
      assert("200" in operation.responses! && "default" in operation.responses!, `${method} ${path}`);
      const inPath = (operation.parameters as unknown as JsonObject[]).filter((parameter) =>
        parameter.in === "path"
      );
      assertEquals(inPath.map((parameter) => `{${parameter.name}}`), path.match(/\{[^}]+\}/g) ?? []);
      assert(inPath.every((parameter) => parameter.required === true));
    }
  }
});

Deno.test("describeApi() has a schema for everything it refers to", () => {
  const schemas = document.components!.schemas as JsonObject;
  const used = new Set(references(document as JsonObject));
  assert(used.size > 10);
  for (const reference of used) {
    const name = reference.replace("#/components/schemas/", "");
    assert(name in schemas && Object.keys(schemas[name] as JsonObject).length > 0, reference);
  }
  assertEquals(schemas["aetherflow.kv.v1.PutResponse"] as JsonObject, {
    type: "object",
    properties: {
      modRevision: { type: "string", format: "int64", pattern: "^-?[0-9]+$" },
      version: { type: "string", format: "int64", pattern: "^-?[0-9]+$" },
    },
  });
  assert("create_revision" in ((schemas["mvccpb.KeyValue"] as JsonObject).properties as JsonObject));
});

Deno.test("describeApi() joins the RPCs of one path and method", () => {
  const list = (document.paths!["/api/v1/kv"] as JsonObject).get as Record<string, JsonObject>;
  const parameters = list.parameters as unknown as JsonObject[];
  assertEquals(parameters.map((each) => each.name), [
    "prefix",
    "pageSize",
    "pageToken",
    "keysOnly",
    "key",
    "startRevision",
    "watch",
    "Last-Event-ID",
  ]);
  const ok = list.responses!["200"] as Record<string, JsonObject>;
  assertEquals(Object.keys(ok.content!), ["application/json", "text/event-stream"]);
});
