import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { AdminService } from "$proto/aetherflow/gateway/v1/admin_pb.ts";
import { HostService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { AuthService, UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { GetDocumentResponseSchema, StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { EXPOSED } from "./mod.ts";
import { fromServiceError } from "./problem.ts";
import { buildRouteTable, compileTemplate, type Exposure, templateVariables } from "./routes.ts";

const ADMIN: Exposure = { service: AdminService, peer: "gateway", dialect: "aetherflow" };
const table = buildRouteTable([...EXPOSED.filter(({ service }) => service !== AdminService), ADMIN]);

Deno.test("buildRouteTable() has exactly the routes that the descriptors tell", () => {
  const told = table.routes.filter(({ protocol }) => protocol === "rest").map((route) =>
    `${route.httpMethod} ${route.template}${route.whenQuery && `?${route.whenQuery}=true`}${
      route.whenQueryHas && `?${route.whenQueryHas}`
    } → ${route.rpcName} ${route.body.kind}${route.formBody ? " or form" : ""}`
  );
  assertEquals(told, [
    "POST /api/v1/channels/{channel} → aetherflow.gateway.v1.ChannelService/PublishToChannel json",
    "GET /api/v1/channels/{channel}/history → aetherflow.gateway.v1.ChannelService/GetChannelHistory none",
    "GET /api/v1/channels/{channel}/presence → aetherflow.gateway.v1.ChannelService/ListChannelUsers none",
    "GET /ws/stats → aetherflow.gateway.v1.ChannelService/GetHubStats none",
    "POST /api/v1/auth/login → aetherflow.auth.v1.AuthService/Login json",
    "POST /api/v1/auth/refresh → aetherflow.auth.v1.AuthService/Refresh json",
    "POST /api/v1/auth/logout → aetherflow.auth.v1.AuthService/Logout json",
    "GET /api/v1/auth/me → aetherflow.auth.v1.AuthService/GetMe none",
    "GET /api/v1/auth/sessions → aetherflow.auth.v1.AuthService/ListMySessions none",
    "DELETE /api/v1/auth/sessions/{session_id} → aetherflow.auth.v1.AuthService/EndMySession none",
    "DELETE /api/v1/auth/sessions → aetherflow.auth.v1.AuthService/EndMySessions none",
    "POST /api/v1/auth/password → aetherflow.auth.v1.AuthService/ChangePassword json",
    "POST /api/v1/auth/keys → aetherflow.auth.v1.AuthService/CreateApiKey json",
    "GET /api/v1/auth/keys → aetherflow.auth.v1.AuthService/ListApiKeys none",
    "DELETE /api/v1/auth/keys/{key_id} → aetherflow.auth.v1.AuthService/DeleteApiKey none",
    "POST /api/v1/users → aetherflow.auth.v1.UserService/CreateUser json",
    "GET /api/v1/users/{username} → aetherflow.auth.v1.UserService/GetUser none",
    "GET /api/v1/users → aetherflow.auth.v1.UserService/ListUsers none",
    "PATCH /api/v1/users/{user.username} → aetherflow.auth.v1.UserService/UpdateUser field",
    "POST /api/v1/users/{username}:setPassword → aetherflow.auth.v1.UserService/SetPassword json",
    "POST /api/v1/users/{username}:revoke → aetherflow.auth.v1.UserService/RevokeUser json",
    "DELETE /api/v1/users/{username} → aetherflow.auth.v1.UserService/DeleteUser none",
    "POST /api/v1/auth/signingKeys:rotate → aetherflow.auth.v1.UserService/RotateSigningKey json",
    "POST /api/v1/sessions → aetherflow.session.v1.SessionService/CreateSession json",
    "POST /api/v1/session → aetherflow.session.v1.SessionService/CreateSession json",
    "GET /api/v1/sessions/{session_id} → aetherflow.session.v1.SessionService/GetSession none",
    "GET /api/v1/session → aetherflow.session.v1.SessionService/GetSession none",
    "PATCH /api/v1/sessions/{session.session_id} → aetherflow.session.v1.SessionService/UpdateSession field",
    "DELETE /api/v1/sessions/{session_id} → aetherflow.session.v1.SessionService/DeleteSession none",
    "DELETE /api/v1/session → aetherflow.session.v1.SessionService/DeleteSession none",
    "GET /api/v1/sessions → aetherflow.session.v1.SessionService/ListSessions none",
    "POST /api/v1/sessions/{session_id}:heartbeat → aetherflow.session.v1.SessionService/Heartbeat json",
    "POST /api/v1/session/heartbeat → aetherflow.session.v1.SessionService/Heartbeat json",
    "POST /api/v1/sessions:verify → aetherflow.session.v1.SessionService/VerifySession json",
    "POST /api/v1/sessions:revokeUser → aetherflow.session.v1.SessionService/RevokeUserSessions json",
    "GET /api/v1/sessions?watch=true → aetherflow.session.v1.SessionService/WatchSessions none",
    "GET /api/v1/sessions:count → aetherflow.session.v1.SessionService/CountSessions none",
    "POST /api/v1/documents → aetherflow.statesync.v1.StateSyncService/CreateDocument json",
    "POST /api/v1/document → aetherflow.statesync.v1.StateSyncService/CreateDocument json",
    "GET /api/v1/documents/{doc_id} → aetherflow.statesync.v1.StateSyncService/GetDocument none",
    "GET /api/v1/document → aetherflow.statesync.v1.StateSyncService/GetDocument none",
    "PATCH /api/v1/documents/{document.id} → aetherflow.statesync.v1.StateSyncService/UpdateDocument field",
    "DELETE /api/v1/documents/{doc_id} → aetherflow.statesync.v1.StateSyncService/DeleteDocument none",
    "DELETE /api/v1/document → aetherflow.statesync.v1.StateSyncService/DeleteDocument none",
    "POST /api/v1/documents/{doc_id}:restore → aetherflow.statesync.v1.StateSyncService/RestoreDocument json",
    "GET /api/v1/documents → aetherflow.statesync.v1.StateSyncService/ListDocuments none",
    "GET /api/v1/documents/{doc_id}/access → aetherflow.statesync.v1.StateSyncService/GetAccess none",
    "POST /api/v1/documents/{operation.doc_id}/operations → aetherflow.statesync.v1.StateSyncService/ApplyOperation field",
    "POST /api/v1/document/operation → aetherflow.statesync.v1.StateSyncService/ApplyOperation field",
    "GET /api/v1/documents/{doc_id}/operations → aetherflow.statesync.v1.StateSyncService/GetOperationHistory none",
    "GET /api/v1/document/operations → aetherflow.statesync.v1.StateSyncService/GetOperationHistory none",
    "GET /api/v1/documents/{doc_id}/events → aetherflow.statesync.v1.StateSyncService/SubscribeDocument none",
    "GET /api/v1/documents:events → aetherflow.statesync.v1.StateSyncService/SubscribeEvents none",
    "DELETE /api/v1/documents/{doc_id}/subscriptions/{subscriber_id} → aetherflow.statesync.v1.StateSyncService/UnsubscribeDocument none",
    "POST /api/v1/documents/{doc_id}/locks → aetherflow.statesync.v1.StateSyncService/AcquireLock json",
    "POST /api/v1/document/lock → aetherflow.statesync.v1.StateSyncService/AcquireLock json",
    "POST /api/v1/documents/{doc_id}/locks/{lock_id}:extend → aetherflow.statesync.v1.StateSyncService/ExtendLock json",
    "DELETE /api/v1/documents/{doc_id}/locks → aetherflow.statesync.v1.StateSyncService/ReleaseLock none",
    "DELETE /api/v1/documents/{doc_id}/locks/{lock_id} → aetherflow.statesync.v1.StateSyncService/ReleaseLock none",
    "DELETE /api/v1/document/lock → aetherflow.statesync.v1.StateSyncService/ReleaseLock none",
    "GET /api/v1/documents/{doc_id}/locks → aetherflow.statesync.v1.StateSyncService/IsLocked none",
    "GET /api/v1/document/lock → aetherflow.statesync.v1.StateSyncService/IsLocked none",
    "GET /api/v1/documents/{doc_id}/conflicts → aetherflow.statesync.v1.StateSyncService/ListConflicts none",
    "POST /api/v1/documents/{doc_id}/conflicts/{conflict_id}:resolve → aetherflow.statesync.v1.StateSyncService/ResolveConflict json",
    "GET /api/v1/documents/{doc_id}/versions → aetherflow.statesync.v1.StateSyncService/ListVersions none",
    "GET /api/v1/documents/{doc_id}/versions/{version} → aetherflow.statesync.v1.StateSyncService/GetVersion none",
    "GET /api/v1/documents/{doc_id}/versions:at → aetherflow.statesync.v1.StateSyncService/GetVersion none",
    "POST /api/v1/documents/{doc_id}/versions → aetherflow.statesync.v1.StateSyncService/NameVersion json",
    "DELETE /api/v1/documents/{doc_id}/versions/{version} → aetherflow.statesync.v1.StateSyncService/DeleteVersionName none",
    "GET /api/v1/documents/{doc_id}/versions:diff → aetherflow.statesync.v1.StateSyncService/DiffVersions none",
    "POST /api/v1/documents/{doc_id}/versions/{version}:restore → aetherflow.statesync.v1.StateSyncService/RestoreVersion json",
    "POST /api/v1/documents/{doc_id}:undo → aetherflow.statesync.v1.StateSyncService/UndoEdits json",
    "GET /api/v1/documents:stats → aetherflow.statesync.v1.StateSyncService/GetStats none",
    "GET /api/v1/stats → aetherflow.statesync.v1.StateSyncService/GetStats none",
    "GET /api/v1/kv/{key=**} → aetherflow.kv.v1.KeyValueService/Get none",
    "PUT /api/v1/kv/{key=**} → aetherflow.kv.v1.KeyValueService/Put raw",
    "DELETE /api/v1/kv/{key=**} → aetherflow.kv.v1.KeyValueService/Delete none",
    "GET /api/v1/kv → aetherflow.kv.v1.KeyValueService/List none",
    "GET /api/v1/kv/{key=**}?watch=true → aetherflow.kv.v1.KeyValueService/Watch none",
    "GET /api/v1/kv?watch=true → aetherflow.kv.v1.KeyValueService/Watch none",
    "GET /api/v1/kv/{key=**}?history=true → aetherflow.kv.v1.KeyValueService/History none",
    "POST /api/v1/kv:batchGet → aetherflow.kv.v1.KeyValueService/BatchGet json",
    "POST /api/v1/kv:batchPut → aetherflow.kv.v1.KeyValueService/BatchPut json",
    "POST /api/v1/kv:txn → aetherflow.kv.v1.KeyValueService/Txn json",
    "POST /api/v1/kv → aetherflow.kv.v1.KeyValueService/PutText json or form",
    "GET /api/v1/kv?key → aetherflow.kv.v1.KeyValueService/GetText none",
    "DELETE /api/v1/kv → aetherflow.kv.v1.KeyValueService/DeleteText none",
    "POST /v3/kv/range → etcdserverpb.KV/Range json",
    "POST /v3/kv/put → etcdserverpb.KV/Put json",
    "POST /v3/kv/deleterange → etcdserverpb.KV/DeleteRange json",
    "POST /v3/kv/txn → etcdserverpb.KV/Txn json",
    "POST /v3/kv/compaction → etcdserverpb.KV/Compact json",
    "POST /v3/watch → etcdserverpb.Watch/Watch json",
    "POST /v3/lease/grant → etcdserverpb.Lease/LeaseGrant json",
    "POST /v3/lease/revoke → etcdserverpb.Lease/LeaseRevoke json",
    "POST /v3/kv/lease/revoke → etcdserverpb.Lease/LeaseRevoke json",
    "POST /v3/lease/keepalive → etcdserverpb.Lease/LeaseKeepAlive json",
    "POST /v3/lease/timetolive → etcdserverpb.Lease/LeaseTimeToLive json",
    "POST /v3/kv/lease/timetolive → etcdserverpb.Lease/LeaseTimeToLive json",
    "POST /v3/lease/leases → etcdserverpb.Lease/LeaseLeases json",
    "POST /v3/kv/lease/leases → etcdserverpb.Lease/LeaseLeases json",
    "POST /v3/cluster/member/add → etcdserverpb.Cluster/MemberAdd json",
    "POST /v3/cluster/member/remove → etcdserverpb.Cluster/MemberRemove json",
    "POST /v3/cluster/member/update → etcdserverpb.Cluster/MemberUpdate json",
    "POST /v3/cluster/member/list → etcdserverpb.Cluster/MemberList json",
    "POST /v3/cluster/member/promote → etcdserverpb.Cluster/MemberPromote json",
    "POST /v3/maintenance/alarm → etcdserverpb.Maintenance/Alarm json",
    "POST /v3/maintenance/status → etcdserverpb.Maintenance/Status json",
    "POST /v3/maintenance/defragment → etcdserverpb.Maintenance/Defragment json",
    "POST /v3/maintenance/hash → etcdserverpb.Maintenance/Hash json",
    "POST /v3/maintenance/hashkv → etcdserverpb.Maintenance/HashKV json",
    "POST /v3/maintenance/snapshot → etcdserverpb.Maintenance/Snapshot json",
    "POST /v3/maintenance/transfer-leadership → etcdserverpb.Maintenance/MoveLeader json",
    "POST /v3/maintenance/downgrade → etcdserverpb.Maintenance/Downgrade json",
    "POST /v3/auth/enable → etcdserverpb.Auth/AuthEnable json",
    "POST /v3/auth/disable → etcdserverpb.Auth/AuthDisable json",
    "POST /v3/auth/status → etcdserverpb.Auth/AuthStatus json",
    "POST /v3/auth/authenticate → etcdserverpb.Auth/Authenticate json",
    "POST /v3/auth/user/add → etcdserverpb.Auth/UserAdd json",
    "POST /v3/auth/user/get → etcdserverpb.Auth/UserGet json",
    "POST /v3/auth/user/list → etcdserverpb.Auth/UserList json",
    "POST /v3/auth/user/delete → etcdserverpb.Auth/UserDelete json",
    "POST /v3/auth/user/changepw → etcdserverpb.Auth/UserChangePassword json",
    "POST /v3/auth/user/grant → etcdserverpb.Auth/UserGrantRole json",
    "POST /v3/auth/user/revoke → etcdserverpb.Auth/UserRevokeRole json",
    "POST /v3/auth/role/add → etcdserverpb.Auth/RoleAdd json",
    "POST /v3/auth/role/get → etcdserverpb.Auth/RoleGet json",
    "POST /v3/auth/role/list → etcdserverpb.Auth/RoleList json",
    "POST /v3/auth/role/delete → etcdserverpb.Auth/RoleDelete json",
    "POST /v3/auth/role/grant → etcdserverpb.Auth/RoleGrantPermission json",
    "POST /v3/auth/role/revoke → etcdserverpb.Auth/RoleRevokePermission json",
    "POST /v3/lock/lock → v3lockpb.Lock/Lock json",
    "POST /v3/lock/unlock → v3lockpb.Lock/Unlock json",
    "POST /v3/election/campaign → v3electionpb.Election/Campaign json",
    "POST /v3/election/proclaim → v3electionpb.Election/Proclaim json",
    "POST /v3/election/leader → v3electionpb.Election/Leader json",
    "POST /v3/election/observe → v3electionpb.Election/Observe json",
    "POST /v3/election/resign → v3electionpb.Election/Resign json",
    "GET /api/v1/admin/breakers → aetherflow.gateway.v1.AdminService/ListBreakers none",
    "POST /api/v1/admin/breakers/{name}:reset → aetherflow.gateway.v1.AdminService/ResetBreakers json",
    "POST /api/v1/admin/breakers/reset → aetherflow.gateway.v1.AdminService/ResetBreakers json",
    "GET /api/v1/admin/stats → aetherflow.gateway.v1.AdminService/GetStats none",
  ]);
});

Deno.test("match() finds the RPC and the raw variables, the conditional one first", () => {
  const cases: [
    method: string,
    path: string,
    query: string,
    found: string | undefined,
    variables?: string[],
  ][] = [
    ["GET", "/api/v1/kv/a", "", "Get", ["a"]],
    ["HEAD", "/api/v1/kv/a", "", "Get", ["a"]],
    ["GET", "/api/v1/kv/a/b%2Fc", "", "Get", ["a/b%2Fc"]],
    ["GET", "/api/v1/kv/a\nb", "", "Get", ["a\nb"]],
    ["GET", "/api/v1/kv/", "", "Get", [""]],
    ["GET", "/api/v1/kv/a", "watch=true", "Watch", ["a"]],
    ["GET", "/api/v1/kv/a", "x=1&watch=true", "Watch", ["a"]],
    ["GET", "/api/v1/kv/a", "watch=false", "Get", ["a"]],
    ["GET", "/api/v1/kv/a", "notwatch=true", "Get", ["a"]],
    ["GET", "/api/v1/kv", "", "List", []],
    ["GET", "/api/v1/kv", "prefix=a&watch=true", "Watch", []],
    ["PUT", "/api/v1/kv/a", "watch=true", "Put", ["a"]],
    ["POST", "/v3/kv/put", "", "Put", []],
    ["POST", "/api/v1/session/heartbeat", "", "Heartbeat", []],
    ["POST", "/api/v1/sessions/x:heartbeat", "", "Heartbeat", ["x"]],
    ["POST", "/api/v1/sessions/x", "", undefined],
    ["GET", "/api/v1/sessions/x", "", "GetSession", ["x"]],
    ["GET", "/api/v1/session", "session_id=x", "GetSession", []],
    ["DELETE", "/api/v1/session", "sessionId=x", "DeleteSession", []],
    ["PATCH", "/api/v1/sessions/x", "", "UpdateSession", ["x"]],
    ["GET", "/api/v1/sessions:count", "", "CountSessions", []],
    ["GET", "/api/v1/sessions", "watch=true", "WatchSessions", []],
    ["POST", "/api/v1/users/a%3Ab:setPassword", "", "SetPassword", ["a%3Ab"]],
    ["POST", "/api/v1/users/a:b:revoke", "", "RevokeUser", ["a:b"]],
    ["POST", "/api/v1/admin/breakers/reset", "", "ResetBreakers", []],
    ["POST", "/api/v1/admin/breakers/session@10.0.0.2:7402:reset", "", "ResetBreakers", [
      "session@10.0.0.2:7402",
    ]],
    ["POST", "/api/v1/documents/a%2F..%3A*:restore", "", "RestoreDocument", ["a%2F..%3A*"]],
    ["GET", "/api/v1/documents/a:b/versions/7", "", "GetVersion", ["a:b", "7"]],
    ["GET", "/api/v1/documents/a/versions:diff", "from=1", "DiffVersions", ["a"]],
    ["GET", "/api/v1/documents:stats", "", "GetStats", []],
    ["POST", "/aetherflow.kv.v1.KeyValueService/Put", "", "Put", []],
    ["GET", "/aetherflow.kv.v1.KeyValueService/Get", "connect=v1", "Get", []],
    ["GET", "/aetherflow.kv.v1.KeyValueService/Put", "", undefined],
    ["POST", "/aetherflow.kv.v1.KeyValueService/Nothing", "", undefined],
    ["GET", "/v3/kv/put", "", undefined],
    ["POST", "/v3/kv/put/", "", undefined],
    ["GET", "/api/v1/kvs", "", undefined],
    ["GET", "/API/v1/kv", "", undefined],
    ["get", "/api/v1/kv", "", undefined],
  ];
  for (const [method, path, query, found, variables] of cases) {
    const match = table.match(method, path, query);
    assertEquals(match?.route.rpc.name, found, `${method} ${path}?${query}`);
    if (variables !== undefined) assertEquals([...match!.variables], variables);
  }
});

Deno.test("compileTemplate() follows google.api.http's path syntax", () => {
  const cases: [template: string, path: string, variables: string[] | undefined][] = [
    ["/v1/{name=shelves/*}/books/{id}", "/v1/shelves/s1/books/b1", ["shelves/s1", "b1"]],
    ["/v1/{name=shelves/*}/books/{id}", "/v1/shelves/books/b1", undefined],
    ["/v1/{name=shelves/*}/books/{id}", "/v1/shelves/s1/books/", undefined],
    ["/v1/{id}:archive", "/v1/x:archive", ["x"]],
    ["/v1/{id}:archive", "/v1/x", undefined],
    ["/v1/*/{a.b}", "/v1/any/x", ["x"]],
    ["/v1/{rest=**}", "/v1/a/b/", ["a/b/"]],
    ["/v1/{rest=**}:copy", "/v1/a/b:copy", ["a/b"]],
    ["/v1/a.b", "/v1/aXb", undefined],
  ];
  for (const [template, path, variables] of cases) {
    const found = compileTemplate(template).pattern.exec(path);
    assertEquals(found === null ? undefined : found.slice(1), variables, `${template} ${path}`);
  }
  assertEquals(templateVariables("/v1/{name=shelves/*}/{a.b}"), ["name", "a.b"]);
  assertThrows(() => compileTemplate("v1"), TypeError, "starts with /");
  assertThrows(() => compileTemplate("/v1/{name"), TypeError, "unbalanced");
});

Deno.test("buildRouteTable() reaches every exposed RPC by its name", () => {
  for (const { service } of [...EXPOSED, ADMIN]) {
    for (const rpc of service.methods) {
      const path = `/${service.typeName}/${rpc.name}`;
      assertEquals(table.match("POST", path, "")?.route.rpc, rpc, path);
      const isRead = rpc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
      const hasGet = isRead && rpc.methodKind === "unary";
      assertEquals(table.match("GET", path, "")?.route.rpc, hasGet ? rpc : undefined, path);
    }
  }
});

// A gateway of another maker left these RPCs out of HTTP, and the pages and filters of lists.
Deno.test("every RPC of sessions has a path, and every field of lists and removals is a query parameter", () => {
  for (const service of [AuthService, UserService, SessionService, StateSyncService, AdminService]) {
    for (const rpc of service.methods) {
      assert(
        table.routes.some((route) => route.rpc === rpc && route.protocol === "rest"),
        `${rpc.name} has no path`,
      );
    }
  }
  const fieldsOf = (method: string, path: string) => [
    ...table.match(method, path, "")!.route.queryFields.keys(),
  ];
  assertEquals(fieldsOf("GET", "/api/v1/sessions"), [
    "userId",
    "user_id",
    "state",
    "connectionId",
    "connection_id",
    "pageSize",
    "page_size",
    "pageToken",
    "page_token",
  ]);
  assertEquals(fieldsOf("DELETE", "/api/v1/sessions/x"), ["reason"]);
  assertEquals(fieldsOf("DELETE", "/api/v1/session"), ["sessionId", "session_id", "reason"]);
  assert(fieldsOf("GET", "/api/v1/users").includes("pageToken"));
});

Deno.test("a document's version is its entity tag, and a version that is another by now fails If-Match", () => {
  const get = table.match("GET", "/api/v1/documents/a", "")!.route;
  const answer = create(GetDocumentResponseSchema, { document: { version: 7n } });
  assertEquals([get.etag?.get(answer), get.etag?.get(create(GetDocumentResponseSchema))], [7n, undefined]);
  const patch = table.match("PATCH", "/api/v1/documents/a", "")!.route;
  assertEquals([patch.precondition?.name, patch.etag?.name], ["if_version", "document.version"]);
  const said = (code: Code) => fromServiceError(new ConnectError("", code), patch.preconditionCode).code;
  assertEquals(said(Code.Aborted), "precondition_failed");
  // Locked by another: that is none of the condition.
  assertEquals(said(Code.FailedPrecondition), "failed_precondition");
  const put = table.match("PUT", "/api/v1/kv/a", "")!.route;
  assertEquals(put.preconditionCode, Code.FailedPrecondition);
});

Deno.test("buildRouteTable() refuses two RPCs on one path, and leaves out RPCs without a path", () => {
  const exposure = { service: KeyValueService, peer: "kv", dialect: "aetherflow" } as const;
  const error = assertThrows(() => buildRouteTable([exposure, exposure]), TypeError) as TypeError;
  assertMatch(error.message, /both have GET/);
  const host = buildRouteTable([{ service: HostService, peer: "host", dialect: "aetherflow" }]);
  assertEquals(host.routes.filter(({ protocol }) => protocol === "rest"), []);
});

Deno.test("methodsOf() lists what a path takes", () => {
  assertEquals(table.methodsOf("/api/v1/kv/x"), ["DELETE", "GET", "HEAD", "PUT"]);
  assertEquals(table.methodsOf("/api/v1/kv"), ["DELETE", "GET", "HEAD", "POST"]);
  assertEquals(table.methodsOf("/api/v1/kv:txn"), ["POST"]);
  assertEquals(table.methodsOf("/v3/watch"), ["POST"]);
  assertEquals(table.methodsOf("/nothing"), []);
});
