import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { HostService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { EXPOSED } from "./mod.ts";
import { buildRouteTable, compileTemplate, templateVariables } from "./routes.ts";

const table = buildRouteTable(EXPOSED);

Deno.test("buildRouteTable() has exactly the routes that the descriptors tell", () => {
  const told = table.routes.map((route) =>
    `${route.httpMethod} ${route.template}${route.whenQuery && `?${route.whenQuery}=true`}${
      route.whenQueryHas && `?${route.whenQueryHas}`
    } → ${route.rpcName} ${route.body.kind}${route.formBody ? " or form" : ""}`
  );
  assertEquals(told, [
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

Deno.test("buildRouteTable() refuses two RPCs on one path, and leaves out RPCs without a path", () => {
  const exposure = { service: KeyValueService, peer: "kv", dialect: "aetherflow" } as const;
  const error = assertThrows(() => buildRouteTable([exposure, exposure]), TypeError) as TypeError;
  assertMatch(error.message, /both have GET/);
  assertEquals(buildRouteTable([{ service: HostService, peer: "host", dialect: "aetherflow" }]).routes, []);
});

Deno.test("methodsOf() lists what a path takes", () => {
  assertEquals(table.methodsOf("/api/v1/kv/x"), ["DELETE", "GET", "HEAD", "PUT"]);
  assertEquals(table.methodsOf("/api/v1/kv"), ["DELETE", "GET", "HEAD", "POST"]);
  assertEquals(table.methodsOf("/api/v1/kv:txn"), ["POST"]);
  assertEquals(table.methodsOf("/v3/watch"), ["POST"]);
  assertEquals(table.methodsOf("/nothing"), []);
});
