/** The rival: the same calls with the same messages by @grpc/grpc-js over TCP, unencrypted. */
import { Buffer } from "node:buffer";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Client,
  credentials,
  makeGenericClientConstructor,
  type sendUnaryData,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceDefinition,
} from "@grpc/grpc-js";
import { type TestMessage, TestMessageSchema } from "../../../transport/testing/test_service.ts";
import { answer } from "../transport/ask.ts";
import { flood, ping, type UnaryMessage } from "./unary.ts";

const serialize = (message: TestMessage) => {
  const bytes = toBinary(TestMessageSchema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
};
const deserialize = (bytes: Uint8Array) => fromBinary(TestMessageSchema, bytes);
const definition: ServiceDefinition = {
  unary: {
    path: "/aetherflow.test.v1.TestService/Unary",
    requestStream: false,
    responseStream: false,
    requestSerialize: serialize,
    requestDeserialize: deserialize,
    responseSerialize: serialize,
    responseDeserialize: deserialize,
  },
};
let client: Client | undefined;

answer<UnaryMessage>((message) => {
  switch (message.do) {
    case "listen":
      return listen();
    case "connect": {
      const Constructor = makeGenericClientConstructor(definition, "TestService");
      const opened = new Constructor(`127.0.0.1:${message.port}`, credentials.createInsecure());
      client = opened;
      return new Promise<boolean>((resolve, reject) =>
        opened.waitForReady(Date.now() + 5000, (error) => error ? reject(error) : resolve(true))
      );
    }
    case "ping":
      return ping(call(message.bytes), message.rounds);
    case "flood":
      return flood(call(message.bytes), message.inFlight, message.rounds);
  }
});

function listen(): Promise<number> {
  const server = new Server();
  server.addService(definition, {
    unary(call: ServerUnaryCall<TestMessage, TestMessage>, done: sendUnaryData<TestMessage>) {
      done(null, create(TestMessageSchema, { body: call.request.body }));
    },
  });
  return new Promise((resolve, reject) =>
    server.bindAsync(
      "127.0.0.1:0",
      ServerCredentials.createInsecure(),
      (error, port) => error ? reject(error) : resolve(port),
    )
  );
}

function call(byteCount: number): () => Promise<unknown> {
  const unary = client?.["unary" as keyof Client] as unknown as (
    request: TestMessage,
    options: { deadline: number },
    done: (error: Error | null, answer?: TestMessage) => void,
  ) => void;
  const body = new Uint8Array(byteCount);
  return () =>
    new Promise((resolve, reject) =>
      unary.call(
        client,
        create(TestMessageSchema, { body }),
        { deadline: Date.now() + 10_000 },
        (error, answer) => error === null ? resolve(answer) : reject(error),
      )
    );
}
