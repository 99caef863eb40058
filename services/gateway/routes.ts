/** The route table, built from descriptors: `google.api.http` says which path is which RPC, and
 *  `aetherflow.gateway.v1.edge` what HTTP itself carries of it. A new RPC needs no code here. */
import { type DescMethod, type DescService, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { type Access, edge as edgeOption } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import { http as httpOption } from "$proto/google/api/annotations_pb.ts";
import type { HttpRule } from "$proto/google/api/http_pb.ts";
import { type Dialect, type FieldPath, fieldPath, type QueryFields, queryFields } from "./transcode.ts";

/** A service that the gateway offers, and the worker that has it. */
export interface Exposure {
  readonly service: DescService;
  /** Name of the service in the address book. */
  readonly peer: string;
  readonly dialect: Dialect;
  /** Service whose grants a member needs to call it; undefined: none. */
  readonly grant?: string;
  /** Whether its calls may wait for one another as long as their callers like, as for a lock: that one runs out of time then
   *  says nothing of the service. */
  readonly mayWait?: boolean;
}

/** One way to call one RPC over HTTP. */
export interface Route {
  /** `rest`: by `google.api.http`; `rpc`: by the RPC's own name, for the Connect protocol and gRPC-Web. */
  readonly protocol: "rest" | "rpc";
  readonly httpMethod: string;
  /** Path template as in the .proto; label of metrics together with the method. */
  readonly template: string;
  readonly rpc: DescMethod;
  readonly peer: string;
  readonly dialect: Dialect;
  /** Who may call at all. */
  readonly access: Access;
  /** Service whose grants a member needs: to read, or to write if not `isRead`. */
  readonly grant: string | undefined;
  /** Whether the RPC has no side effects, by its `idempotency_level`: it may be called again, and for several at once. */
  readonly isRead: boolean;
  /** Whether calling twice does no more than calling once. */
  readonly isIdempotent: boolean;
  /** `aetherflow.kv.v1.KeyValueService/Get`, for logs. */
  readonly rpcName: string;
  /** The fields the path's variables set, in order of appearance. */
  readonly pathFields: readonly FieldPath[];
  readonly queryFields: QueryFields;
  /** The field mask that says what of the body's field is meant; filled from the fields that the body has when the
   *  query gives none. */
  readonly updateMask: FieldPath | undefined;
  /** `none`: no body; `raw`: the body is a bytes field; `json`: the whole message; `field`: one field as JSON. */
  readonly body: { readonly kind: "none" } | { readonly kind: "json" } | {
    readonly kind: "raw" | "field";
    readonly field: FieldPath;
  };
  /** Field that is answered instead of the whole response. */
  readonly responseBody: FieldPath | undefined;
  readonly rawResponse: FieldPath | undefined;
  readonly etag: FieldPath | undefined;
  readonly precondition: FieldPath | undefined;
  /** What the service answers when it did not hold. */
  readonly preconditionCode: Code;
  /** Fields in milliseconds that the header TTL sets, and that it is made of. */
  readonly ttl: FieldPath | undefined;
  readonly ttlResponse: FieldPath | undefined;
  /** The route is taken only when this query parameter is "true"; "" is always. */
  readonly whenQuery: string;
  /** The route is taken only when the query has this parameter; "" is always. */
  readonly whenQueryHas: string;
  /** Whether the body may be a form. */
  readonly formBody: boolean;
  /** Query parameters that choose among the RPCs of this path ("watch"): no fields, and "false" is as good as none. */
  readonly switches: ReadonlySet<string>;
  readonly eventId: FieldPath | undefined;
  readonly resume: FieldPath | undefined;
  /** Field that tells of answers that several requests got. */
  readonly shared: FieldPath | undefined;
  /** Whether its calls may wait for one another. */
  readonly mayWait: boolean;
}

/** A found route and the raw (still encoded) texts of its path variables. */
export interface RouteMatch {
  readonly route: Route;
  readonly variables: readonly string[];
}

/** Finds routes by method and path. */
export interface RouteTable {
  /** All routes, in the order of the descriptors. */
  readonly routes: readonly Route[];
  /** The route of a request, by its raw path and raw query string; HEAD finds GET routes. */
  match(method: string, path: string, query: string): RouteMatch | undefined;
  /** The methods that some route has for a path; empty when the path is nobody's. */
  methodsOf(path: string): string[];
}

interface Entry {
  readonly route: Route;
  readonly pattern: RegExp;
  /** Text before the first variable: a cheap test before the pattern. */
  readonly literalPrefix: string;
}

const NO_VARIABLES: readonly string[] = [];

/** Builds the table.
 *  @throws {TypeError} for options that name what does not exist, and for two RPCs on one path: mistakes in proto/. */
export function buildRouteTable(exposures: readonly Exposure[]): RouteTable {
  const drafts = exposures.flatMap((exposure) =>
    exposure.service.methods.flatMap((rpc) => routesOf(exposure, rpc))
  );
  const routes = drafts.map((draft): Route => ({ ...draft, switches: switchesOf(draft, drafts) }));
  refuseDuplicates(routes);

  // Conditional routes first, then longer literal prefixes and more literal text, so that the most specific one is met
  // first: `/users/{name}:revoke` before `/users/{name}`.
  const byMethod = new Map<string, Entry[]>();
  const literal = new Map<string, Route[]>();
  for (const route of routes) {
    if (route.pathFields.length === 0) {
      const key = `${route.httpMethod} ${route.template}`;
      literal.set(key, [...literal.get(key) ?? [], route].sort(conditionalFirst));
    } else {
      const entries = byMethod.get(route.httpMethod) ?? [];
      entries.push({ route, ...compileTemplate(route.template) });
      byMethod.set(route.httpMethod, entries);
    }
  }
  for (const entries of byMethod.values()) {
    entries.sort((a, b) =>
      conditionalFirst(a.route, b.route) || b.literalPrefix.length - a.literalPrefix.length ||
      literalLength(b.route.template) - literalLength(a.route.template)
    );
  }

  function match(method: string, path: string, query: string): RouteMatch | undefined {
    const wanted = method === "HEAD" ? "GET" : method;
    const exact = literal.get(`${wanted} ${path}`);
    if (exact !== undefined) {
      for (const route of exact) {
        if (isChosen(route, query)) {
          return { route, variables: NO_VARIABLES };
        }
      }
    }
    const entries = byMethod.get(wanted);
    if (entries === undefined) return undefined;
    for (const { route, pattern, literalPrefix } of entries) {
      if (!isChosen(route, query)) continue;
      if (!path.startsWith(literalPrefix)) continue;
      const found = pattern.exec(path);
      if (found !== null) return { route, variables: found.slice(1) };
    }
    return undefined;
  }

  function methodsOf(path: string): string[] {
    const methods = new Set<string>();
    for (const route of routes) {
      if (match(route.httpMethod, path, "") !== undefined) methods.add(route.httpMethod);
    }
    if (methods.has("GET")) methods.add("HEAD");
    return [...methods].sort();
  }

  return { routes, match, methodsOf };
}

function switchesOf(route: RouteDraft, all: readonly RouteDraft[]): ReadonlySet<string> {
  const names = all
    .filter((each) => each.httpMethod === route.httpMethod && each.template === route.template)
    .map((each) => each.whenQuery);
  return new Set(names.filter((name) => name !== ""));
}

function conditionalFirst(a: Route, b: Route): number {
  return Number(isConditional(b)) - Number(isConditional(a));
}

function isConditional(route: Route): boolean {
  return route.whenQuery !== "" || route.whenQueryHas !== "";
}

function literalLength(template: string): number {
  return template.replaceAll(VARIABLE, "").length;
}

/** Whether the query chooses the route, or the route does not ask. */
function isChosen({ whenQuery, whenQueryHas }: Route, query: string): boolean {
  return (whenQuery === "" || queryIsTrue(query, whenQuery)) &&
    (whenQueryHas === "" || queryHas(query, whenQueryHas));
}

/** True when the query string has `name=true`. Names of options are plain, so nothing needs decoding. */
function queryIsTrue(query: string, name: string): boolean {
  return query !== "" && query.split("&").includes(`${name}=true`);
}

/** True when the query string has a parameter of this name. */
function queryHas(query: string, name: string): boolean {
  return query !== "" && query.split("&").some((part) => part === name || part.startsWith(`${name}=`));
}

// ---------------------------------------------------------------------------------------------------------------
// One RPC → its routes

type RouteDraft = Omit<Route, "switches">;

function routesOf(exposure: Exposure, rpc: DescMethod): RouteDraft[] {
  const direct = directRoutesOf(exposure, rpc);
  if (!hasOption(rpc, httpOption)) return direct;
  const rule = getOption(rpc, httpOption);
  return [rule, ...rule.additionalBindings].map((binding) => routeOf(exposure, rpc, binding)).concat(direct);
}

/** What every route to an RPC says of it, however it is reached. */
function factsOf(exposure: Exposure, rpc: DescMethod) {
  return {
    rpc,
    peer: exposure.peer,
    dialect: exposure.dialect,
    access: getOption(rpc, edgeOption).access,
    grant: exposure.grant,
    isRead: rpc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    isIdempotent: rpc.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
    rpcName: `${rpc.parent.typeName}/${rpc.name}`,
    mayWait: exposure.mayWait ?? false,
  };
}

/** The routes by name: POST, and GET for what has no side effects and one answer. */
function directRoutesOf(exposure: Exposure, rpc: DescMethod): RouteDraft[] {
  const facts = factsOf(exposure, rpc);
  const post: RouteDraft = {
    ...facts,
    protocol: "rpc",
    httpMethod: "POST",
    template: `/${facts.rpcName}`,
    pathFields: [],
    queryFields: new Map(),
    updateMask: undefined,
    body: { kind: "json" },
    responseBody: undefined,
    rawResponse: undefined,
    etag: undefined,
    precondition: undefined,
    preconditionCode: Code.FailedPrecondition,
    ttl: undefined,
    ttlResponse: undefined,
    whenQuery: "",
    whenQueryHas: "",
    formBody: false,
    eventId: undefined,
    resume: undefined,
    shared: undefined,
  };
  return facts.isRead && rpc.methodKind === "unary"
    ? [post, { ...post, httpMethod: "GET", body: { kind: "none" } }]
    : [post];
}

function routeOf(exposure: Exposure, rpc: DescMethod, rule: HttpRule): RouteDraft {
  const facts = factsOf(exposure, rpc);
  const { rpcName } = facts;
  if (rpc.methodKind === "client_streaming") {
    throw new TypeError(`${rpcName}: an RPC that streams only requests cannot be reached over HTTP`);
  }
  const { httpMethod, template } = patternOf(rule, rpcName);
  const edge = getOption(rpc, edgeOption);
  const input = (path: string) => required(fieldPath(rpc.input, path), rpcName, rpc.input.typeName, path);
  const output = (path: string) =>
    path === "" ? undefined : required(fieldPath(rpc.output, path), rpcName, rpc.output.typeName, path);

  const pathFields = templateVariables(template).map(input);
  const raw = edge.rawRequestField === "" ? undefined : bytesField(input(edge.rawRequestField), rpcName);
  const body: Route["body"] = raw !== undefined && rule.body !== ""
    ? { kind: "raw", field: raw }
    : rule.body === ""
    ? { kind: "none" }
    : rule.body === "*"
    ? { kind: "json" }
    : { kind: "field", field: input(rule.body) };

  const bound = new Set(pathFields.map((field) => field.name));
  if ("field" in body) bound.add(body.field.name);
  const rawResponse = output(edge.rawResponseField);
  return {
    ...facts,
    protocol: "rest",
    httpMethod,
    template,
    pathFields,
    queryFields: body.kind === "json" && !edge.formBody ? new Map() : queryFields(rpc.input, bound),
    updateMask: httpMethod === "PATCH" && body.kind === "field" ? maskField(rpc) : undefined,
    body,
    responseBody: output(rule.responseBody),
    rawResponse: rawResponse && bytesField(rawResponse, rpcName),
    etag: output(edge.etagField),
    precondition: edge.preconditionField === "" ? undefined : input(edge.preconditionField),
    preconditionCode: edge.preconditionCode === 0 ? Code.FailedPrecondition : edge.preconditionCode,
    ttl: edge.ttlField === "" ? undefined : input(edge.ttlField),
    ttlResponse: output(edge.ttlResponseField),
    whenQuery: edge.whenQuery,
    whenQueryHas: edge.whenQueryHas,
    formBody: edge.formBody,
    eventId: output(edge.eventIdField),
    resume: edge.resumeField === "" ? undefined : input(edge.resumeField),
    shared: output(edge.sharedField),
  };
}

/** The request's `update_mask`, if it has one (AIP-134). */
function maskField(rpc: DescMethod): FieldPath | undefined {
  const field = fieldPath(rpc.input, "update_mask");
  return field?.leaf.message?.typeName === "google.protobuf.FieldMask" ? field : undefined;
}

function patternOf(rule: HttpRule, rpcName: string): { httpMethod: string; template: string } {
  const { pattern } = rule;
  if (pattern.case === undefined) throw new TypeError(`${rpcName}: google.api.http names no path`);
  return { httpMethod: pattern.case.toUpperCase(), template: pattern.value };
}

function required(field: FieldPath | undefined, rpcName: string, type: string, path: string): FieldPath {
  if (field === undefined) {
    throw new TypeError(`${rpcName}: an HTTP option names ${path}, which ${type} does not have`);
  }
  return field;
}

function bytesField(field: FieldPath, rpcName: string): FieldPath {
  if (field.leaf.scalar !== ScalarType.BYTES) {
    throw new TypeError(`${rpcName}: ${field.name} is a raw body and must be of type bytes`);
  }
  return field;
}

function refuseDuplicates(routes: readonly Route[]): void {
  const seen = new Map<string, Route>();
  for (const route of routes) {
    const shape = route.template.replaceAll(/\{[^=}]*(?:=([^}]*))?\}/g, (_, inner?: string) => inner ?? "*");
    const key = `${route.httpMethod} ${shape} ${route.whenQuery} ${route.whenQueryHas}`;
    const other = seen.get(key);
    if (other !== undefined) {
      throw new TypeError(
        `${route.rpcName} and ${other.rpcName} both have ${route.httpMethod} ${route.template}`,
      );
    }
    seen.set(key, route);
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Path templates: "/v1/{name=shelves/*}/books/{id}:archive", "/api/v1/kv/{key=**}"

const VARIABLE = /\{([A-Za-z0-9_.]+)(?:=([^{}]+))?\}/g;

/** Names of a template's variables, in order. */
export function templateVariables(template: string): string[] {
  return [...template.matchAll(VARIABLE)].map((match) => match[1]!);
}

/** A template as a pattern with one group for each variable. `*` is one segment that is not empty, `**` any rest,
 *  the empty one too (binding refuses an empty variable with a better message than "no such path").
 *  @throws {TypeError} for a template that is not one. */
export function compileTemplate(template: string): { pattern: RegExp; literalPrefix: string } {
  if (!template.startsWith("/")) {
    throw new TypeError(`Cannot compile ${template}: a path template starts with /`);
  }
  let source = "";
  let end = 0;
  for (const match of template.matchAll(VARIABLE)) {
    source += literalSource(template.slice(end, match.index));
    source += `(${literalSource(match[2] ?? "*")})`;
    end = match.index + match[0].length;
  }
  const rest = template.slice(end);
  if (rest.includes("{") || rest.includes("}")) {
    throw new TypeError(`Cannot compile ${template}: unbalanced braces`);
  }
  source += literalSource(rest);
  return { pattern: new RegExp(`^${source}$`, "s"), literalPrefix: /^[^{*]*/.exec(template)![0] };
}

function literalSource(text: string): string {
  return text.split(/(\*\*|\*)/).map((part) =>
    part === "**" ? ".*" : part === "*" ? "[^/]+" : part.replaceAll(/[.?+^$()|[\]\\]/g, "\\$&")
  ).join("");
}
