/** The OpenAPI 3.1 document of the routes: shapes from their descriptors, words from the comments of the contract. */
import type { DescField, DescMethod, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { COMMENTS } from "$proto/comments.ts";
import { Access } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import {
  COMPONENT_HEADERS,
  problemResponses,
  Schemas,
  SECURITY_SCHEMES,
  textSchema,
} from "./openapi_parts.ts";
import type { Route } from "./routes.ts";
import { isQueryParameter } from "./transcode.ts";

/** Describes `routes`. Routes that share path and method (one of them on a query parameter) become one operation. */
export function describeApi(routes: readonly Route[], version: string): JsonObject {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, JsonValue>> = {};
  const ids = new Map<string, number>();
  for (const route of routes) {
    const path = route.template.replaceAll(/\{([^=}]+)(?:=[^}]*)?\}/g, "{$1}");
    const operations = paths[path] ??= {};
    const method = route.httpMethod.toLowerCase();
    const operation = route.protocol === "rpc" ? rpcOperation(route, schemas) : restOperation(route, schemas);
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
        "Every RPC has paths of its own, and one by its name that speaks the Connect protocol and gRPC-Web. Bytes in " +
        "paths and query strings are the UTF-8 octets of the percent-decoded text; bytes in JSON bodies are base64 or " +
        "base64url. 64-bit integers are strings in JSON; numbers are read too. Enums are names or numbers.",
    },
    tags: tagsOf(routes),
    paths,
    components: {
      schemas: schemas.all(),
      responses: problemResponses(),
      headers: COMPONENT_HEADERS,
      securitySchemes: SECURITY_SCHEMES,
    },
  };
}

function tagsOf(routes: readonly Route[]): JsonObject[] {
  const names = new Set(routes.map(({ rpc }) => rpc.parent.typeName));
  return [...names].map((name) => ({ name, ...described(name) }));
}

/** An RPC with several paths is one operation each: the second and later ones get their number. */
function numbered(id: string, uses: Map<string, number>): string {
  const use = (uses.get(id) ?? 0) + 1;
  uses.set(id, use);
  return use === 1 ? id : `${id}_${use}`;
}

function described(name: string): JsonObject {
  const description = COMMENTS[name];
  return description === undefined ? {} : { description };
}

/** What every operation of an RPC says. */
function operationOf({ rpc, access }: Route, idSuffix: string): Record<string, JsonValue> {
  const [tag] = rpc.parent.typeName.split(".").slice(-1);
  const comment = COMMENTS[`${rpc.parent.typeName}.${rpc.name}`];
  return {
    operationId: `${tag}_${rpc.name}${idSuffix}`,
    tags: [rpc.parent.typeName],
    ...(comment === undefined ? {} : { summary: summaryOf(comment), description: comment }),
    // While there are no users, anybody on this machine may call, so that every scheme may be left out.
    ...(access === Access.ANYONE ? { security: [] } : {
      security: [{ bearer: [] }, { apiKey: [] }, { cookie: [] }, {}],
    }),
  };
}

function summaryOf(comment: string): string {
  return /^.*?\.(?= |$)/.exec(comment)?.[0] ?? comment;
}

// ---------------------------------------------------------------------------------------------------------------
// By google.api.http

function restOperation(route: Route, schemas: Schemas): Record<string, JsonValue> {
  const operation: Record<string, JsonValue> = {
    ...operationOf(route, ""),
    parameters: parametersOf(route),
    responses: { "200": success(route, schemas), ...restErrors(route, schemas) },
  };
  const body = requestBody(route, schemas);
  if (body !== undefined) operation.requestBody = body;
  return operation;
}

function parametersOf(route: Route): JsonObject[] {
  const parameters: JsonObject[] = route.pathFields.map((field) => ({
    name: field.name,
    in: "path",
    required: true,
    ...fieldWords(field.leaf),
    schema: textSchema(field.leaf),
    ...(route.template.includes(`{${field.name}=**}`)
      ? { allowReserved: true, description: "May hold any octets; slashes need no escape." }
      : {}),
  }));
  for (const field of new Set(route.body.kind === "json" ? [] : route.queryFields.values())) {
    if (!isQueryParameter(field)) continue;
    // The JSON name stands in the map before the proto name.
    const name = [...route.queryFields].find(([, each]) => each === field)![0];
    parameters.push({
      name,
      in: "query",
      ...fieldWords(field.leaf),
      schema: textSchema(field.leaf),
      ...(field === route.updateMask
        ? { description: "Fields to change; without it those that the body has." }
        : {}),
    });
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
    parameters.push(header("If-Match", "Entity tags; 412 when none is current."));
    parameters.push(header("If-None-Match", "Entity tags; 304 when one is current."));
  }
  if (route.ttl !== undefined) {
    parameters.push(header("TTL", "Seconds until it runs out, like 60 or 0.5; without it, it stays."));
  }
  if (route.resume !== undefined) {
    parameters.push(header("Last-Event-ID", "Id of the last event that was seen."));
  }
  if (takesIdempotencyKey(route)) {
    parameters.push(IDEMPOTENCY_KEY);
  }
  return parameters;
}

function takesIdempotencyKey({ httpMethod, dialect, rpc }: Route): boolean {
  return (httpMethod === "POST" || httpMethod === "PATCH") && dialect === "aetherflow" &&
    rpc.methodKind === "unary";
}

function header(name: string, description: string): JsonObject {
  return { name, in: "header", schema: { type: "string" }, description };
}

const IDEMPOTENCY_KEY: JsonObject = {
  ...header("Idempotency-Key", "A text in double quotes; the first answer to a key is the answer to all."),
  example: '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
};

function fieldWords(field: DescField): JsonObject {
  return described(`${field.parent.typeName}.${field.name}`);
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
        content: contentOf(route, schemas.reference(route.rpc.input, namesOf(route))),
      };
    case "field":
      return {
        required: true,
        content: { "application/json": { schema: schemas.field(route.body.field.leaf, namesOf(route)) } },
      };
  }
}

function namesOf({ dialect }: Route): "json" | "proto" {
  return dialect === "etcd" ? "proto" : "json";
}

function contentOf(route: Route, schema: JsonObject): JsonObject {
  const json = { "application/json": { schema } };
  return route.formBody ? { ...json, "application/x-www-form-urlencoded": { schema } } : json;
}

function success(route: Route, schemas: Schemas): JsonObject {
  const message = route.responseBody === undefined
    ? schemas.reference(route.rpc.output, namesOf(route))
    : schemas.field(route.responseBody.leaf, namesOf(route));
  const content: JsonObject = route.rawResponse !== undefined
    ? { "application/octet-stream": {} }
    : route.rpc.methodKind === "unary"
    ? { "application/json": { schema: message } }
    : route.dialect === "etcd"
    ? { "application/json": { schema: { type: "object", properties: { result: message } } } }
    : { "text/event-stream": { schema: message }, "application/x-ndjson": { schema: message } };
  const description = route.rpc.methodKind === "unary"
    ? "Done."
    : "A stream: events, or lines where Accept asks for them; an error is the last one.";
  const headers: Record<string, JsonObject> = { ...ANSWER_HEADERS };
  if (route.etag !== undefined) {
    headers.ETag = { schema: { type: "string" }, description: "The revision." };
  }
  if (route.ttlResponse !== undefined) {
    headers.TTL = { schema: { type: "integer" }, description: "Seconds until it runs out, if it does." };
  }
  return { description, headers, content };
}

const ANSWER_HEADERS: Readonly<Record<string, JsonObject>> = Object.fromEntries(
  Object.keys(COMPONENT_HEADERS).filter((name) => name !== "Retry-After")
    .map((name) => [name, { $ref: `#/components/headers/${name}` }]),
);

function restErrors(route: Route, schemas: Schemas): JsonObject {
  if (route.dialect === "etcd") {
    const schema = schemas.status();
    return { default: { description: "An error.", content: { "application/json": { schema } } } };
  }
  const statuses = [400, 404, 409, 429, 500, 503, 504];
  if (route.access !== Access.ANYONE) statuses.push(401, 403);
  if (route.precondition !== undefined || route.etag !== undefined) statuses.push(412);
  if (route.body.kind !== "none") statuses.push(408, 413);
  if (takesIdempotencyKey(route)) statuses.push(422);
  return {
    ...(route.etag !== undefined && route.httpMethod === "GET"
      ? { "304": { description: "Not changed." } }
      : {}),
    ...Object.fromEntries(
      statuses.map((status) => [status, { $ref: `#/components/responses/Problem${status}` }]),
    ),
    default: { $ref: "#/components/responses/Problem" },
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
  const description = [a.description, b.description].filter((text) => text !== undefined).join("\n\n");
  return { ...a, ...(description === "" ? {} : { description }), parameters, responses };
}

// ---------------------------------------------------------------------------------------------------------------
// By name: the Connect protocol

function rpcOperation(route: Route, schemas: Schemas): Record<string, JsonValue> {
  const { rpc } = route;
  const isGet = route.httpMethod === "GET";
  const output = schemas.reference(rpc.output, "json");
  const operation: Record<string, JsonValue> = {
    ...operationOf(route, isGet ? "_rpcGet" : "_rpc"),
    parameters: isGet ? GET_PARAMETERS : [
      header("Connect-Timeout-Ms", "Milliseconds that the call may take."),
      ...(takesIdempotencyKey(route) ? [IDEMPOTENCY_KEY] : []),
    ],
    responses: {
      "200": {
        description: rpc.methodKind === "unary"
          ? "Done."
          : "Enveloped messages and, last, how the call ended.",
        headers: ANSWER_HEADERS,
        content: contentByName(rpc, output, isGet),
      },
      default: {
        description: "An error; of a stream, it is in the envelope that ends it.",
        content: { "application/json": { schema: schemas.connectError() } },
      },
    },
  };
  if (!isGet) {
    operation.requestBody = {
      required: true,
      content: contentByName(rpc, schemas.reference(rpc.input, "json"), false),
    };
  }
  return operation;
}

const GET_PARAMETERS: JsonObject[] = [
  {
    name: "encoding",
    in: "query",
    required: true,
    schema: { type: "string", enum: ["json", "proto"] },
    description: "Of the message and the answer.",
  },
  { name: "message", in: "query", required: true, schema: { type: "string" }, description: "The request." },
  {
    name: "base64",
    in: "query",
    schema: { type: "string", enum: ["0", "1"] },
    description: "1: the message is base64url.",
  },
  {
    name: "connect",
    in: "query",
    schema: { type: "string", enum: ["v1"] },
    description: "Version of the protocol.",
  },
];

function contentByName({ methodKind }: DescMethod, schema: JsonObject, isGet: boolean): JsonObject {
  const web = isGet ? {} : { "application/grpc-web+proto": {}, "application/grpc-web-text+proto": {} };
  return methodKind === "unary"
    ? { "application/json": { schema }, "application/proto": {}, ...web }
    : { "application/connect+json": { schema }, "application/connect+proto": {}, ...web };
}
