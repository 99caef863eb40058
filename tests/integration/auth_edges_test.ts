/** Users at every way in: what a credential may do, and that it ends within a second of its revocation. */
import { KV, Watch, WatchRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  create,
  type DescMethod,
  fromBinary,
  type Message,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { type Product, startProduct } from "../support/product.ts";

/** How soon a revocation must have ended what is open, in ms. */
const REVOKED_WITHIN_MS = 1_000;
const PASSWORD = "correct horse battery staple";

interface World extends AsyncDisposable {
  readonly product: Product;
  readonly admin: Record<string, string>;
  readonly bob: Record<string, string>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

/** The product with ada, who administers it, and bob, who may write under b/ of the store. */
async function open(): Promise<World> {
  const product = await startProduct();
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    fetch(product.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  const bearer = async (username: string) => {
    const login = await post("/api/v1/auth/login", { username, password: PASSWORD });
    assertEquals(login.status, 200);
    return { authorization: `Bearer ${(await login.json()).accessToken}` };
  };
  await (await post("/api/v1/users", { username: "ada", password: PASSWORD })).body?.cancel();
  const admin = await bearer("ada");
  const grants = [{ service: "kv", prefix: "b/", write: true }, {
    service: "kv",
    prefix: "redis/b/",
    write: true,
  }];
  await (await post("/api/v1/users", { username: "bob", password: PASSWORD, grants }, admin)).body?.cancel();
  return {
    product,
    admin,
    bob: await bearer("bob"),
    post,
    [Symbol.asyncDispose]: () => product[Symbol.asyncDispose](),
  };
}

function client(product: Product): grpc.Client {
  return new grpc.Client(product.grpc, grpc.credentials.createInsecure());
}

function metadata(headers: Record<string, string>): grpc.Metadata {
  const found = new grpc.Metadata();
  for (const [name, value] of Object.entries(headers)) found.set(name, value);
  return found;
}

function unary(
  from: grpc.Client,
  rpc: DescMethod,
  request: Message,
  headers: Record<string, string>,
): Promise<number> {
  return new Promise((resolve) =>
    from.makeUnaryRequest(
      `/${rpc.parent.typeName}/${rpc.name}`,
      (message: Message) => Buffer.from(toBinary(rpc.input, message)),
      (bytes: Uint8Array) => fromBinary(rpc.output, bytes),
      request,
      metadata(headers),
      (error: grpc.ServiceError | null) => resolve(error?.code ?? 0),
    )
  );
}

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("every way in asks who calls, keeps members to their grants, and ends what is revoked within a second", async () => {
  await using world = await open();
  const { product, admin, bob, post } = world;
  const status = async (path: string, headers: Record<string, string>, method = "GET") => {
    const response = await fetch(product.url + path, {
      method,
      headers,
      ...method === "PUT" ? { body: "1" } : {},
    });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await status("/api/v1/kv", {}), 401);
  assertEquals(await status("/api/v1/kv/b/x", bob, "PUT"), 200);
  assertEquals(await status("/api/v1/kv/c", bob, "PUT"), 403);
  assertEquals(await status("/api/v1/kv/c", admin, "PUT"), 200);
  assertEquals(await status("/api/v1/users", bob), 403);

  const from = client(product);
  try {
    const put = (key: string) => create(KV.method.put.input, { key: bytes(key), value: bytes("1") });
    assertEquals(await unary(from, KV.method.put, put("b/x"), {}), grpc.status.UNAUTHENTICATED);
    assertEquals(
      await unary(from, KV.method.put, put("b/x"), { token: "abc.1" }),
      grpc.status.UNAUTHENTICATED,
    );
    assertEquals(await unary(from, KV.method.put, put("b/x"), bob), 0);
    assertEquals(await unary(from, KV.method.put, put("c"), bob), grpc.status.PERMISSION_DENIED);
    assertEquals(await unary(from, KV.method.put, put("c"), admin), 0);
    const list = create(UserService.method.listUsers.input);
    assertEquals(await unary(from, UserService.method.listUsers, list, bob), grpc.status.PERMISSION_DENIED);
    assertEquals(await unary(from, UserService.method.listUsers, list, {}), grpc.status.UNAUTHENTICATED);

    // What is open when bob is revoked.
    const events = await fetch(`${product.url}/api/v1/kv?watch=true&prefix=b/`, { headers: bob });
    assertEquals(events.status, 200);
    const eventsEnd = events.text();
    const stream = from.makeBidiStreamRequest(
      "/etcdserverpb.Watch/Watch",
      (message: MessageShape<typeof WatchRequestSchema>) =>
        Buffer.from(toBinary(WatchRequestSchema, message)),
      (answer: Uint8Array) => fromBinary(Watch.method.watch.output, answer),
      metadata(bob),
    );
    const streamEnd = new Promise<number>((resolve) =>
      stream.on("error", (error: grpc.ServiceError) => resolve(error.code))
    );
    const created = new Promise((resolve) => stream.once("data", resolve));
    stream.write(
      create(WatchRequestSchema, {
        requestUnion: { case: "createRequest", value: { key: bytes("b/"), rangeEnd: bytes("b0") } },
      }),
    );
    await created;
    const redis = await Deno.connect({ hostname: "127.0.0.1", port: Number(product.resp.split(":").pop()) });
    const buffer = new Uint8Array(1_024);
    const ask = async (words: string) => {
      await redis.write(bytes(`${words}\r\n`));
      const count = await redis.read(buffer);
      return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
    };
    assertMatch(await ask("GET b/x"), /^-NOAUTH/);
    assertMatch(await ask("AUTH bob wrong"), /^-WRONGPASS/);
    assertEquals(await ask(`AUTH bob "${PASSWORD}"`), "+OK\r\n");
    assertEquals(await ask("SET b/x 1"), "+OK\r\n");
    assertMatch(await ask("SET c 1"), /^-NOPERM/);

    const revoked = await post("/api/v1/users/bob:setPassword", { password: `${PASSWORD} 2` }, admin);
    assertEquals(revoked.status, 200);
    await revoked.body?.cancel();
    const revokedAt = performance.now();
    assertEquals(await status("/api/v1/kv/b/x", bob), 401);
    assertEquals(await unary(from, KV.method.put, put("b/x"), bob), grpc.status.UNAUTHENTICATED);
    assertMatch(await eventsEnd, /event: error/);
    assertEquals(await streamEnd, grpc.status.UNAUTHENTICATED);
    assertEquals(await redis.read(buffer), null);
    const took = performance.now() - revokedAt;
    assert(took < REVOKED_WITHIN_MS, `it took ${Math.round(took)} ms`);
    redis.close();
  } finally {
    from.close();
  }
  assertEquals(await product.stop(), 0);
});
