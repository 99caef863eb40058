import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Access } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import { EXPOSED } from "./mod.ts";
import { describeApi } from "./openapi.ts";
import { PROBLEM_CODES, statusOfProblem } from "./problem.ts";
import { buildRouteTable } from "./routes.ts";

const { routes } = buildRouteTable(EXPOSED);
const document = describeApi(routes, "1.2.3") as Record<string, JsonObject>;

function* references(value: JsonValue): Generator<string> {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "$ref") yield inner as string;
    else yield* references(inner as JsonValue);
  }
}

/** Every operation with its path and method. */
function* operations(): Generator<{ path: string; method: string; operation: Record<string, JsonObject> }> {
  for (const [path, methods] of Object.entries(document.paths!)) {
    for (const [method, operation] of Object.entries(methods as JsonObject)) {
      yield { path, method, operation: operation as Record<string, JsonObject> };
    }
  }
}

Deno.test("describeApi() gives a whole OpenAPI 3.1 document", () => {
  assertEquals(document.openapi as unknown, "3.1.0");
  assertEquals(document.info!.version, "1.2.3");
  const tags = (document.tags as unknown as JsonObject[]).map(({ name }) => name as string);
  assertEquals(new Set(tags).size, tags.length);
  const ids = new Set<string>();
  for (const { path, method, operation } of operations()) {
    const what = `${method} ${path}`;
    assert(path.startsWith("/") && !path.includes("=") && !path.includes("?"), what);
    assert(["get", "put", "post", "delete", "patch"].includes(method), what);
    const id = operation.operationId as unknown as string;
    assert(!ids.has(id), `${id} is used twice`);
    ids.add(id);
    assert((operation.tags as unknown as string[]).every((tag) => tags.includes(tag)), what);
    assert("200" in operation.responses! && "default" in operation.responses!, what);
    for (const [status, response] of Object.entries(operation.responses!)) {
      assert(status === "default" || /^[1-5]\d\d$/.test(status), `${what} ${status}`);
      const { description, $ref } = response as JsonObject;
      assert(typeof description === "string" || typeof $ref === "string", `${what} ${status}`);
    }
    assert(!("requestBody" in operation) || method !== "get", `${what} has a body`);
    const parameters = operation.parameters as unknown as JsonObject[];
    const keys = parameters.map((each) => `${each.in} ${each.name}`);
    assertEquals(new Set(keys).size, keys.length, `${what} names a parameter twice`);
    assert(parameters.every(({ schema }) => typeof schema === "object"), what);
    const inPath = parameters.filter((parameter) => parameter.in === "path");
    assertEquals(inPath.map((parameter) => `{${parameter.name}}`), path.match(/\{[^}]+\}/g) ?? [], what);
    assert(inPath.every((parameter) => parameter.required === true), what);
    for (const requirement of operation.security as unknown as JsonObject[]) {
      for (const scheme of Object.keys(requirement)) {
        assert(scheme in (document.components!.securitySchemes as JsonObject), scheme);
      }
    }
  }
});

Deno.test("describeApi() has every route, and says who may call it", () => {
  for (const route of routes) {
    const path = route.template.replaceAll(/\{([^=}]+)(?:=[^}]*)?\}/g, "{$1}");
    const operation = (document.paths![path] as JsonObject)?.[route.httpMethod.toLowerCase()] as JsonObject;
    assert(operation !== undefined, `${route.httpMethod} ${path}`);
    assertEquals((operation.security as JsonValue[]).length === 0, route.access === Access.ANYONE, path);
  }
});

Deno.test("describeApi() has something for everything it refers to, under names that may be", () => {
  const used = new Set(references(document as JsonObject));
  assert(used.size > 10);
  for (const reference of used) {
    let at: JsonValue = document;
    for (const part of reference.split("/").slice(1)) at = (at as JsonObject)?.[part]!;
    assert(typeof at === "object" && Object.keys(at as JsonObject).length > 0, reference);
  }
  for (const kind of Object.values(document.components!)) {
    for (const name of Object.keys(kind as JsonObject)) assert(/^[a-zA-Z0-9._-]+$/.test(name), name);
  }
  const schemas = document.components!.schemas as JsonObject;
  assertEquals(schemas["aetherflow.kv.v1.PutResponse"] as JsonObject, {
    type: "object",
    properties: {
      modRevision: { type: "string", format: "int64", pattern: "^-?[0-9]+$" },
      version: { type: "string", format: "int64", pattern: "^-?[0-9]+$" },
    },
  });
  assert("create_revision" in ((schemas["proto.mvccpb.KeyValue"] as JsonObject).properties as JsonObject));
  assert("createRevision" in ((schemas["mvccpb.KeyValue"] as JsonObject).properties as JsonObject));
});

Deno.test("describeApi() says what the contract's comments say", () => {
  const { get } = document.paths!["/api/v1/sessions/{session_id}"] as Record<string, JsonObject>;
  assertEquals(get!.summary, "GetSession returns one session.");
  assertStringIncludes(get!.description as string, "NOT_FOUND");
  const session = (document.components!.schemas as JsonObject)["aetherflow.session.v1.Session"] as JsonObject;
  assertEquals(session.description, "One session.");
  const properties = session.properties as Record<string, JsonObject>;
  assertEquals(properties.sessionId, { type: "string", description: "GUUID as 26 characters." });
  assertEquals(properties.createdAt, { type: "string", format: "date-time" });
  assertEquals(properties.metadata, { type: "object", additionalProperties: { type: "string" } });
  assertEquals(properties.state, { $ref: "#/components/schemas/aetherflow.session.v1.SessionState" });
});

Deno.test("describeApi() has an answer for every status of a problem, with its codes", () => {
  const responses = document.components!.responses as Record<string, JsonObject>;
  for (const code of PROBLEM_CODES) {
    const { content } = responses[`Problem${statusOfProblem(code)}`] as Record<string, JsonObject>;
    const { schema } = content!["application/problem+json"] as Record<string, JsonObject>;
    const codes = ((schema!.properties as JsonObject).code as JsonObject).enum as string[];
    assert(codes.includes(code), code);
  }
});

Deno.test("describeApi() tells of headers, streams and the Connect protocol", () => {
  const headersOf = (path: string, method: string) =>
    ((document.paths![path] as Record<string, JsonObject>)[method]!.parameters as JsonObject[])
      .filter((each) => each.in === "header").map((each) => each.name);
  assertEquals(headersOf("/api/v1/kv/{key}", "put"), ["If-Match", "If-None-Match", "TTL"]);
  assertEquals(headersOf("/api/v1/sessions", "post"), ["Idempotency-Key"]);
  assertEquals(headersOf("/api/v1/sessions", "get"), ["Last-Event-ID"]);
  assertEquals(headersOf("/api/v1/users/{user.username}", "patch"), ["Idempotency-Key"]);
  assertEquals(headersOf("/aetherflow.session.v1.SessionService/CreateSession", "post"), [
    "Connect-Timeout-Ms",
    "Idempotency-Key",
  ]);
  const contentOf = (path: string, method: string) => {
    const operation = (document.paths![path] as Record<string, JsonObject>)[method]!;
    return Object.keys(((operation.responses as JsonObject)["200"] as JsonObject).content as JsonObject);
  };
  assertEquals(contentOf("/api/v1/sessions", "get"), [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
  ]);
  assertEquals(contentOf("/aetherflow.session.v1.SessionService/WatchSessions", "post"), [
    "application/connect+json",
    "application/connect+proto",
    "application/grpc-web+proto",
    "application/grpc-web-text+proto",
  ]);
  assertEquals(contentOf("/aetherflow.session.v1.SessionService/GetSession", "get"), [
    "application/json",
    "application/proto",
  ]);
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
  assertEquals(Object.keys(ok.content!), ["application/json", "text/event-stream", "application/x-ndjson"]);
});
