/** What operations of the OpenAPI document refer to: schemas of messages, answers of errors, headers, security schemes. */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonObject,
  ScalarType,
} from "@bufbuild/protobuf";
import { COMMENTS } from "$proto/comments.ts";
import { CODE_NAMES, PROBLEM_CODES, type ProblemCode, statusOfProblem } from "./problem.ts";

/** How clients show who they are. */
export const SECURITY_SCHEMES: JsonObject = {
  bearer: {
    type: "http",
    scheme: "bearer",
    description: "An access token, a session's token or an API key.",
  },
  apiKey: { type: "apiKey", in: "header", name: "X-API-Key", description: "An API key." },
  cookie: {
    type: "apiKey",
    in: "cookie",
    name: "__Host-aetherflow-access",
    description: "Of a signed-in browser; what changes something takes a request of our own pages.",
  },
};

/** Headers of answers. */
export const COMPONENT_HEADERS: JsonObject = {
  "X-Request-Id": { description: "Id of the request, as in the log.", schema: { type: "string" } },
  "RateLimit": {
    description: "What is left of the limit that is nearest to its end, and the seconds until it is whole.",
    schema: { type: "string" },
    example: '"caller";r=50;t=30',
  },
  "RateLimit-Policy": {
    description: "That limit.",
    schema: { type: "string" },
    example: '"caller";q=100;w=60',
  },
  "Retry-After": { description: "Seconds.", schema: { type: "integer" } },
};

/** One answer for each status that a problem can have, and one for any. */
export function problemResponses(): JsonObject {
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of PROBLEM_CODES) {
    const status = statusOfProblem(code);
    byStatus.set(status, [...byStatus.get(status) ?? [], code]);
  }
  const responses: Record<string, JsonObject> = {
    Problem: problemResponse("Any problem.", PROBLEM_CODES),
  };
  for (const [status, codes] of [...byStatus].sort(([a], [b]) => a - b)) {
    responses[`Problem${status}`] = problemResponse(`One of: ${codes.join(", ")}.`, codes);
  }
  return responses;
}

function problemResponse(description: string, codes: readonly ProblemCode[]): JsonObject {
  return {
    description,
    headers: {
      "X-Request-Id": { $ref: "#/components/headers/X-Request-Id" },
      "Retry-After": { $ref: "#/components/headers/Retry-After" },
    },
    content: { "application/problem+json": { schema: problemSchema(codes) } },
  };
}

function problemSchema(codes: readonly ProblemCode[]): JsonObject {
  return {
    type: "object",
    description: "RFC 9457.",
    required: ["type", "title", "status", "detail", "code", "requestId"],
    properties: {
      type: { type: "string", format: "uri" },
      title: { type: "string" },
      status: { type: "integer" },
      detail: { type: "string" },
      code: { type: "string", enum: [...codes] },
      requestId: { type: "string" },
    },
  };
}

/** A field as text in a path or query. */
export function textSchema(field: DescField): JsonObject {
  const known = field.message === undefined ? undefined : WELL_KNOWN[field.message.typeName];
  const one = known ??
    (field.enum !== undefined
      ? { type: "string", enum: field.enum.values.map((value) => value.name) }
      : scalarSchema(field.scalar ?? ScalarType.STRING, true));
  return field.fieldKind === "list" ? { type: "array", items: one } : one;
}

/** Component schemas, gathered while operations refer to them. Names of fields differ between etcd's JSON, which has those
 *  of the .proto, and the rest, so a message may have a schema of each. */
export class Schemas {
  readonly #all: Record<string, JsonObject> = {};

  all(): JsonObject {
    return this.#all;
  }

  reference(desc: DescMessage, names: "json" | "proto"): JsonObject {
    const known = WELL_KNOWN[desc.typeName];
    if (known !== undefined) return known;
    const key = names === "json" ? desc.typeName : `proto.${desc.typeName}`;
    if (!(key in this.#all)) {
      this.#all[key] = {}; // before its fields, since messages may contain themselves
      const properties: Record<string, JsonObject> = {};
      for (const field of desc.fields) {
        const description = COMMENTS[`${desc.typeName}.${field.name}`];
        const schema = this.field(field, names);
        properties[names === "proto" ? field.name : field.jsonName] = description === undefined
          ? schema
          : { ...schema, description };
      }
      const description = COMMENTS[desc.typeName];
      this.#all[key] = { type: "object", ...(description === undefined ? {} : { description }), properties };
    }
    return { $ref: `#/components/schemas/${key}` };
  }

  field(field: DescField, names: "json" | "proto"): JsonObject {
    switch (field.fieldKind) {
      case "list":
        return { type: "array", items: this.#value(field, names) };
      case "map":
        return { type: "object", additionalProperties: this.#value(field, names) };
      default:
        return this.#value(field, names);
    }
  }

  /** `google.rpc.Status`, as etcd's paths answer errors. */
  status(): JsonObject {
    this.#all["google.rpc.Status"] ??= {
      type: "object",
      required: ["code", "message", "details"],
      properties: {
        code: { type: "integer", description: "gRPC status code." },
        message: { type: "string" },
        details: { type: "array", items: {} },
      },
    };
    return { $ref: "#/components/schemas/google.rpc.Status" };
  }

  /** An error of the Connect protocol. */
  connectError(): JsonObject {
    this.#all["connect.error"] ??= {
      type: "object",
      required: ["code"],
      properties: {
        code: { type: "string", enum: Object.values(CODE_NAMES) },
        message: { type: "string" },
        details: {
          type: "array",
          items: {
            type: "object",
            required: ["type", "value"],
            properties: {
              type: { type: "string", description: "Full name of a message, such as google.rpc.ErrorInfo." },
              value: { type: "string", contentEncoding: "base64", description: "The message as protobuf." },
            },
          },
        },
      },
    };
    return { $ref: "#/components/schemas/connect.error" };
  }

  #value(field: DescField, names: "json" | "proto"): JsonObject {
    if (field.message !== undefined) return this.reference(field.message, names);
    if (field.enum !== undefined) return this.#enumeration(field.enum);
    return scalarSchema(field.scalar as ScalarType, false);
  }

  #enumeration(desc: DescEnum): JsonObject {
    this.#all[desc.typeName] ??= {
      type: "string",
      enum: desc.values.map((value) => value.name),
      ...(COMMENTS[desc.typeName] === undefined ? {} : { description: COMMENTS[desc.typeName]! }),
    };
    return { $ref: `#/components/schemas/${desc.typeName}` };
  }
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

/** Messages with a form of their own in the protobuf JSON mapping. */
const WELL_KNOWN: Readonly<Record<string, JsonObject>> = {
  "google.protobuf.Timestamp": { type: "string", format: "date-time" },
  "google.protobuf.Duration": { type: "string", pattern: "^-?[0-9]+(\\.[0-9]{1,9})?s$" },
  "google.protobuf.FieldMask": { type: "string", description: "Names of fields, comma-separated." },
  "google.protobuf.Struct": { type: "object", additionalProperties: true },
  "google.protobuf.Value": {},
  "google.protobuf.ListValue": { type: "array", items: {} },
  "google.protobuf.Any": {
    type: "object",
    required: ["@type"],
    properties: { "@type": { type: "string" } },
    additionalProperties: true,
  },
  "google.protobuf.Empty": { type: "object" },
  "google.protobuf.StringValue": { type: ["string", "null"] },
  "google.protobuf.BytesValue": { type: ["string", "null"], contentEncoding: "base64" },
  "google.protobuf.BoolValue": { type: ["boolean", "null"] },
  "google.protobuf.Int32Value": { type: ["integer", "null"] },
  "google.protobuf.UInt32Value": { type: ["integer", "null"] },
  "google.protobuf.Int64Value": { type: ["string", "null"] },
  "google.protobuf.UInt64Value": { type: ["string", "null"] },
  "google.protobuf.FloatValue": { type: ["number", "null"] },
  "google.protobuf.DoubleValue": { type: ["number", "null"] },
};
