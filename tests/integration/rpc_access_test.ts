/** RPCs that are not everybody's, at every way in that calls RPCs by their names. */
import { create, type DescMethod, type DescService, fromBinary, toBinary } from "@bufbuild/protobuf";
import { getOption } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import {
  AuthService,
  CredentialService,
  PasswordService,
  UserService,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { AdminService } from "$proto/aetherflow/gateway/v1/admin_pb.ts";
import { Access, edge } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import { HostService, WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { CreateSessionResponseSchema, SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { type Product, startProduct } from "../support/product.ts";

const PASSWORD = "correct horse battery staple";
const { OK, UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED } = grpc.status;

type Headers = Record<string, string>;
/** Calls an RPC with an empty message. Resolves to its code, as gRPC numbers it, and the answer. */
type Call = (rpc: DescMethod, headers: Headers) => Promise<{ code: number; message?: Uint8Array }>;

function overGrpc(client: grpc.Client): Call {
  return (rpc, headers) => {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    return new Promise((resolve) => {
      const call = client.makeServerStreamRequest(
        pathOf(rpc),
        (bytes: Uint8Array) => Buffer.from(bytes),
        (bytes: Uint8Array) => bytes,
        toBinary(rpc.input, create(rpc.input)),
        metadata,
      );
      let message: Uint8Array | undefined;
      call.on("data", (bytes: Uint8Array) => {
        message ??= bytes;
        // A stream of the product does not end by itself.
        if (rpc.methodKind !== "unary") call.cancel();
      });
      call.on("error", () => {});
      call.on("status", ({ code }) => resolve(message === undefined ? { code } : { code, message }));
    });
  };
}

/** Unary RPCs as JSON; what streams is refused before it begins. */
function overConnect({ url }: Product): Call {
  return async (rpc, headers) => {
    const isUnary = rpc.methodKind === "unary";
    const response = await fetch(url + pathOf(rpc), {
      method: "POST",
      headers: { ...headers, "content-type": isUnary ? "application/json" : "application/connect+json" },
      body: isUnary ? "{}" : Uint8Array.of(0, 0, 0, 0, 2, 0x7b, 0x7d),
    });
    const body = new Uint8Array(await response.arrayBuffer());
    if (response.status === 200 && isUnary) return { code: OK, message: body };
    const { code } = /"code":\s*"(?<code>\w+)"/.exec(new TextDecoder().decode(body))?.groups ?? {};
    return { code: grpc.status[(code ?? "").toUpperCase() as keyof typeof grpc.status] ?? -response.status };
  };
}

function overGrpcWeb({ url }: Product): Call {
  return async (rpc, headers) => {
    const response = await fetch(url + pathOf(rpc), {
      method: "POST",
      headers: { ...headers, "content-type": "application/grpc-web+proto" },
      body: new Uint8Array(5),
    });
    const body = new Uint8Array(await response.arrayBuffer());
    const text = new TextDecoder("latin1").decode(body);
    const code = response.headers.get("grpc-status") ?? /grpc-status: ?(\d+)/i.exec(text)?.[1];
    return { code: code === undefined ? -response.status : Number(code) };
  };
}

const pathOf = (rpc: DescMethod) => `/${rpc.parent.typeName}/${rpc.name}`;
const unaryOf = ({ methods }: DescService) => methods.filter(({ methodKind }) => methodKind === "unary");

/** The product with ada, who administers it, and bob, who may do everything else. */
async function open() {
  const product = await startProduct();
  const post = async (path: string, body: unknown, headers: Headers = {}) => {
    const response = await fetch(product.url + path, { method: "POST", headers, body: JSON.stringify(body) });
    const answer = await response.json();
    assertEquals([path, response.status], [path, 200]);
    return answer;
  };
  const bearer = async (username: string): Promise<Headers> => {
    const { accessToken } = await post("/api/v1/auth/login", { username, password: PASSWORD });
    return { authorization: `Bearer ${accessToken}` };
  };
  await post("/api/v1/users", { username: "ada", password: PASSWORD });
  const ada = await bearer("ada");
  const grants = [{ service: "*", prefix: "", write: true }];
  await post("/api/v1/users", { username: "bob", password: PASSWORD, grants }, ada);
  const bob = await bearer("bob");
  const { secret } = await post("/api/v1/auth/keys", { name: "k" }, bob);
  return { product, ada, bob, key: { authorization: `Bearer ${secret}` }, post };
}

Deno.test("what takes an administrator is refused to others, and what workers ask each other to everybody, at every way in", async () => {
  const { product, ada, bob, key, post } = await open();
  await using _product = product;
  const client = new grpc.Client(product.grpc, grpc.credentials.createInsecure());
  try {
    const ways: Record<string, Call> = {
      grpc: overGrpc(client),
      connect: overConnect(product),
      grpcWeb: overGrpcWeb(product),
    };
    const administrative = [AdminService, UserService].flatMap(({ methods }) => methods);
    for (const rpc of administrative) {
      assertEquals([rpc.name, getOption(rpc, edge).access], [rpc.name, Access.ADMIN]);
    }
    for (const [way, call] of Object.entries(ways)) {
      const codeOf = async (rpc: DescMethod, headers: Headers) => (await call(rpc, headers)).code;
      for (const rpc of administrative) {
        const codes = [await codeOf(rpc, {}), await codeOf(rpc, bob), await codeOf(rpc, key)];
        assertEquals([way, rpc.name, codes], [
          way,
          rpc.name,
          [UNAUTHENTICATED, PERMISSION_DENIED, PERMISSION_DENIED],
        ]);
      }
      assertEquals([way, await codeOf(UserService.method.listUsers, ada)], [way, OK]);
      assertEquals([way, await codeOf(AuthService.method.getMe, bob)], [way, OK]);
      // What somebody says to be a worker's or a gateway's counts for nothing.
      const forged = { ...bob, "x-aetherflow-principal": "CAIaA2RldiIFYWRtaW4" };
      assertEquals([way, await codeOf(UserService.method.listUsers, forged)], [way, PERMISSION_DENIED]);

      for (const service of [CredentialService, PasswordService, WorkerService, HostService]) {
        for (const rpc of service.methods) {
          for (const headers of [{}, bob, ada]) {
            const code = await codeOf(rpc, headers);
            // Over HTTP nobody is told what there is not.
            const isClosed = code === UNIMPLEMENTED || code === -404 ||
              (Object.keys(headers).length === 0 && code === UNAUTHENTICATED);
            assert(isClosed, `${way} ${pathOf(rpc)} ${JSON.stringify(Object.keys(headers))}: ${code}`);
          }
        }
      }
    }
    for (const service of [CredentialService, PasswordService, WorkerService]) {
      for (const rpc of unaryOf(service)) {
        const response = await fetch(`${product.url}${pathOf(rpc)}`, { headers: ada });
        await response.body?.cancel();
        assertEquals([rpc.name, response.status], [rpc.name, 404]);
      }
    }

    // Where sessions are opened from, over gRPC and REST.
    const opened = await ways.grpc!(SessionService.method.createSession, bob);
    const { session } = fromBinary(CreateSessionResponseSchema, opened.message!);
    assertEquals([session!.userId, session!.clientIp, session!.clientPort > 0], [
      session!.userId,
      "127.0.0.1",
      true,
    ]);
    const overRest = await post("/api/v1/sessions", {}, bob);
    assertEquals([overRest.session.clientIp, overRest.session.clientPort > 0], ["127.0.0.1", true]);
  } finally {
    client.close();
  }
  assertEquals(await product.stop(), 0);
});
