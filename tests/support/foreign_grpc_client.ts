/** A program: calls the test service at the address it is given through @grpc/grpc-js, asks for pages through node:http2, and
 *  prints what it saw as JSON. See foreign_grpc.ts. */
import { Buffer } from "node:buffer";
import { connect } from "node:http2";
import { create, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { TestMessageSchema, TestService } from "../../transport/testing/test_service.ts";

type Request = MessageInitShape<typeof TestMessageSchema>;
type Answer = MessageShape<typeof TestMessageSchema>;

const address = Deno.args[0]!;
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": -1,
});
const pathOf = (name: string) => `/${TestService.typeName}/${name}`;
const encode = (message: Request) =>
  Buffer.from(toBinary(TestMessageSchema, create(TestMessageSchema, message)));
const decode = (bytes: Uint8Array) => fromBinary(TestMessageSchema, bytes);

function unary(request: Request, options: grpc.CallOptions = {}, path = pathOf("Unary")): Promise<Answer> {
  const metadata = new grpc.Metadata();
  metadata.set("token", "t");
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      encode,
      decode,
      request,
      metadata,
      options,
      (error, answer) => error ? reject(error) : resolve(answer!),
    );
  });
}

function chat(texts: readonly string[]): grpc.ClientDuplexStream<Request, Answer> {
  const stream = client.makeBidiStreamRequest(pathOf("Chat"), encode, decode);
  for (const text of texts) stream.write({ text });
  return stream;
}

async function failure(call: Promise<unknown>): Promise<[code: number, text: string]> {
  try {
    await call;
  } catch (error) {
    const { code, details } = error as grpc.ServiceError;
    return [code, details];
  }
  throw new Error("the call did not fail");
}

async function collect(stream: AsyncIterable<Answer>): Promise<Answer[]> {
  const answers: Answer[] = [];
  for await (const answer of stream) answers.push(answer);
  return answers;
}

/** Status and body of a page. */
function page(method: string, path: string, body?: Uint8Array): Promise<[status: number, body: string]> {
  const session = connect(`http://${address}`);
  return new Promise<[number, string]>((resolve, reject) => {
    const stream = session.request({ ":method": method, ":path": path });
    const parts: Buffer[] = [];
    let status = 0;
    stream.on("response", (headers) => status = headers[":status"]!);
    stream.on("data", (part: Buffer) => parts.push(part));
    stream.on("end", () => resolve([status, Buffer.concat(parts).toString()]));
    stream.on("error", reject);
    stream.end(body);
  }).finally(() => session.close());
}

const large = await unary({ body: new Uint8Array(900_000), number: 3_000_000 });
const parallel = await Promise.all(Array.from({ length: 500 }, (_, i) => unary({ text: String(i) })));
const both = chat(["x", "y"]);
both.end();
const waiting = chat(["x"]);
const cancelled = failure(collect(waiting));
waiting.once("data", () => waiting.cancel());
const [version, missing, echo] = [
  await page("GET", "/version"),
  await page("GET", "/nothing"),
  await page("POST", "/v3/kv/put", new Uint8Array(2_000_000).fill(0x78)),
];
const seen = {
  unary: (await unary({ text: "hi" })).text,
  large: [large.number, large.body.length],
  parallel: parallel.filter(({ text }, i) => text === `${i} t`).length,
  download:
    (await collect(client.makeServerStreamRequest(pathOf("Download"), encode, decode, { number: 3_000 })))
      .filter(({ number }, i) => number === i).length,
  chat: (await collect(both)).map(({ text }) => text),
  failure: await failure(unary({ text: "fail" })),
  chatFailure: await failure(collect(chat(["x", "fail"]))),
  unknown: await failure(unary({}, {}, pathOf("Nope"))),
  tooLarge: await failure(unary({ body: new Uint8Array(3_000_000) })),
  deadline: (await failure(unary({ text: "wait" }, { deadline: Date.now() + 50 })))[0],
  cancel: (await cancelled)[0],
  http2: [version[0], missing[0], JSON.parse(version[1]).etcdserver, JSON.parse(echo[1]).body.length],
};
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify(seen)));
client.close();
