/** The OpenAPI 3.1 document of the routes, from their descriptors. */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  ScalarType,
} from "@bufbuild/protobuf";
import { PROBLEM_CODES } from "./problem.ts";
import type { Route } from "./routes.ts";
import type { Dialect } from "./transcode.ts";

/** Describes `routes`. Routes that share path and method (one of them on a query parameter) become one operation. */
export function describeApi(routes: readonly Route[], version: string): JsonObject {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, JsonValue>> = {};
  const ids = new Map<string, number>();
  for (const route of routes) {
    if (route.protocol === "rpc") continue;
    const path = route.template.replaceAll(/\{([^=}]+)(?:=[^}]*)?\}/g, "{$1}");
    const operations = paths[path] ??= {};
    const method = route.httpMethod.toLowerCase();
    const operation = operationOf(route, schemas);
    operation.operationId = numbered(operation.operationId as string, ids);
    const other = operations[method] as JsonObject | undefined;
    operations[method] = other === undefined ? operation : mergeOperations(other, operation);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "AetherFlow",
      version,
      description:
        "Bytes in paths and query strings are the UTF-8 octets of the percent-decoded text; bytes in JSON " +
        "bodies are base64. 64-bit integers are strings in JSON.",
    },
    paths,
    components: { schemas: schemas.all() },
  };
}

/** An RPC with several paths is one operation each: the second and later ones get their number. */
function numbered(id: string, uses: Map<string, number>): string {
  const use = (uses.get(id) ?? 0) + 1;
  uses.set(id, use);
  return use === 1 ? id : `${id}_${use}`;
}

function operationOf(route: Route, schemas: Schemas): JsonObject {
  const [tag] = route.rpc.parent.typeName.split(".").slice(-1);
  const parameters: JsonObject[] = route.pathFields.map((field) => ({
    name: field.name,
    in: "path",
    required: true,
    schema: textSchema(field.leaf),
    ...(route.template.includes(`{${field.name}=**}`)
      ? { allowReserved: true, description: "May hold any octets; slashes need no escape." }
      : {}),
  }));
  const fields = new Set(route.body.kind === "json" ? [] : route.queryFields.values());
  for (const field of fields) {
    // The JSON name stands in the map before the proto name.
    const name = [...route.queryFields].find(([, each]) => each === field)![0];
    parameters.push({ name, in: "query", schema: textSchema(field.leaf) });
  }
  if (route.whenQuery !== "") {
    parameters.push({
      name: route.whenQuery,
      in: "query",
      schema: { type: "boolean" },
      description: route.rpc.methodKind === "unary" ? "true asks for it." : "true streams.",
    });
  }
  if (route.precondition !== undefined) {
    parameters.push(header("If-Match", 'Only if the entity tag is this one, like "7".'));
    parameters.push(header("If-None-Match", "*: only if it does not exist."));
  } else if (route.etag !== undefined) {
    parameters.push(header("If-None-Match", "Entity tags; 304 when one is current."));
  }
  if (route.ttl !== undefined) {
    parameters.push(header("TTL", "Seconds until it runs out, like 60 or 0.5; without it, it stays."));
  }
  if (route.resume !== undefined) {
    parameters.push(header("Last-Event-ID", "Id of the last event that was seen."));
  }

  const operation: Record<string, JsonValue> = {
    operationId: `${tag}_${route.rpc.name}`,
    tags: [route.rpc.parent.typeName],
    parameters,
    responses: { "200": success(route, schemas), ...errors(route, schemas) },
  };
  const body = requestBody(route, schemas);
  if (body !== undefined) operation.requestBody = body;
  return operation;
}

function header(name: string, description: string): JsonObject {
  return { name, in: "header", schema: { type: "string" }, description };
}

function requestBody(route: Route, schemas: Schemas): JsonObject | undefined {
  switch (route.body.kind) {
    case "none":
      return undefined;
    case "raw":
      return { required: true, content: { "application/octet-stream": {} } };
    case "json":
      return {
        required: true,
        content: contentOf(route, schemas.reference(route.rpc.input, route.dialect)),
      };
    case "field":
      return {
        required: true,
        content: { "application/json": { schema: schemas.field(route.body.field.leaf, route.dialect) } },
      };
  }
}

function contentOf(route: Route, schema: JsonObject): JsonObject {
  const json = { "application/json": { schema } };
  return route.formBody ? { ...json, "application/x-www-form-urlencoded": { schema } } : json;
}

function success(route: Route, schemas: Schemas): JsonObject {
  const message = route.responseBody === undefined
    ? schemas.reference(route.rpc.output, route.dialect)
    : schemas.field(route.responseBody.leaf, route.dialect);
  const content: JsonObject = route.rawResponse !== undefined
    ? { "application/octet-stream": {} }
    : route.rpc.methodKind === "unary"
    ? { "application/json": { schema: message } }
    : route.dialect === "etcd"
    ? { "application/json": { schema: { type: "object", properties: { result: message } } } }
    : { "text/event-stream": { schema: message } };
  const description = route.rpc.methodKind === "unary" ? "Done." : "A stream.";
  const headers: Record<string, JsonObject> = {};
  if (route.etag !== undefined) {
    headers.ETag = { schema: { type: "string" }, description: "The revision." };
  }
  if (route.ttlResponse !== undefined) {
    headers.TTL = { schema: { type: "integer" }, description: "Seconds until it runs out, if it does." };
  }
  return Object.keys(headers).length === 0 ? { description, content } : { description, content, headers };
}

function errors(route: Route, schemas: Schemas): JsonObject {
  const schema = schemas.error(route.dialect);
  const type = route.dialect === "etcd" ? "application/json" : "application/problem+json";
  const error = (description: string) => ({ description, content: { [type]: { schema } } });
  return {
    ...(route.etag !== undefined && route.httpMethod === "GET"
      ? { "304": { description: "Not changed." } }
      : {}),
    ...(route.precondition === undefined ? {} : { "412": error("The precondition does not hold.") }),
    "default": error("An error."),
  };
}

function mergeOperations(a: JsonObject, b: JsonObject): JsonObject {
  const parameters = [...a.parameters as JsonObject[]];
  for (const each of b.parameters as JsonObject[]) {
    if (!parameters.some((other) => other.name === each.name && other.in === each.in)) parameters.push(each);
  }
  const responses: Record<string, JsonValue> = { ...a.responses as JsonObject };
  for (const [status, response] of Object.entries(b.responses as JsonObject)) {
    const present = responses[status] as JsonObject | undefined;
    responses[status] = present?.content === undefined ? response : {
      ...present,
      content: { ...present.content as JsonObject, ...(response as JsonObject).content as JsonObject },
    };
  }
  return { ...a, parameters, responses };
}

// ---------------------------------------------------------------------------------------------------------------

/** A field as text in a path or query. */
function textSchema(field: DescField): JsonObject {
  const one = field.enum !== undefined
    ? enumSchema(field.enum)
    : scalarSchema(field.scalar ?? ScalarType.STRING, true);
  return field.fieldKind === "list" ? { type: "array", items: one } : one;
}

/** Component schemas, gathered while operations refer to them. Dialects differ in names, so each has its own. */
class Schemas {
  readonly #all: Record<string, JsonValue> = {};

  all(): JsonObject {
    return this.#all;
  }

  reference(desc: DescMessage, dialect: Dialect): JsonObject {
    if (!(desc.typeName in this.#all)) {
      this.#all[desc.typeName] = {}; // before its fields, since messages may contain themselves
      const properties: Record<string, JsonValue> = {};
      for (const field of desc.fields) {
        properties[dialect === "etcd" ? field.name : field.jsonName] = this.field(field, dialect);
      }
      this.#all[desc.typeName] = { type: "object", properties };
    }
    return { $ref: `#/components/schemas/${desc.typeName}` };
  }

  field(field: DescField, dialect: Dialect): JsonObject {
    switch (field.fieldKind) {
      case "list":
        return { type: "array", items: this.#value(field, dialect) };
      case "map":
        return { type: "object", additionalProperties: this.#value(field, dialect) };
      default:
        return this.#value(field, dialect);
    }
  }

  #value(field: DescField, dialect: Dialect): JsonObject {
    if (field.message !== undefined) return this.reference(field.message, dialect);
    if (field.enum !== undefined) return enumSchema(field.enum);
    return scalarSchema(field.scalar as ScalarType, false);
  }

  error(dialect: Dialect): JsonObject {
    const name = dialect === "etcd" ? "google.rpc.Status" : "Problem";
    this.#all[name] ??= dialect === "etcd" ? STATUS_SCHEMA : PROBLEM_SCHEMA;
    return { $ref: `#/components/schemas/${name}` };
  }
}

function enumSchema(desc: DescEnum): JsonObject {
  return { type: "string", enum: desc.values.map((value) => value.name) };
}

function scalarSchema(type: ScalarType, asText: boolean): JsonObject {
  switch (type) {
    case ScalarType.BYTES:
      return asText ? { type: "string" } : { type: "string", contentEncoding: "base64" };
    case ScalarType.STRING:
      return { type: "string" };
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return { type: "number" };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: "integer", format: "int32" };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: "integer", format: "int64", minimum: 0 };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: "string", format: "uint64", pattern: "^[0-9]+$" };
    default:
      return { type: "string", format: "int64", pattern: "^-?[0-9]+$" };
  }
}

const PROBLEM_SCHEMA: JsonObject = {
  type: "object",
  description: "RFC 9457.",
  required: ["type", "title", "status", "detail", "code", "requestId"],
  properties: {
    type: { type: "string", format: "uri" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string", enum: PROBLEM_CODES },
    requestId: { type: "string" },
  },
};

const STATUS_SCHEMA: JsonObject = {
  type: "object",
  required: ["code", "message", "details"],
  properties: {
    code: { type: "integer", description: "gRPC status code." },
    message: { type: "string" },
    details: { type: "array", items: {} },
  },
};
