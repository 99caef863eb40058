/** A service with one method of each kind, for the suites: its descriptor is built here, so that test messages stay out of
 *  the product's contract. */
import { create, type Message, toBinary } from "@bufbuild/protobuf";
import {
  fileDesc,
  type GenMessage,
  type GenService,
  messageDesc,
  serviceDesc,
} from "@bufbuild/protobuf/codegenv2";
import { base64Encode } from "@bufbuild/protobuf/wire";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

/** The one message: some bytes, a number and a text. */
export type TestMessage = Message<"aetherflow.test.v1.TestMessage"> & {
  body: Uint8Array;
  number: number;
  text: string;
};

const label = FieldDescriptorProto_Label.OPTIONAL;
const type = ".aetherflow.test.v1.TestMessage";
const method = (name: string, clientStreaming: boolean, serverStreaming: boolean) => ({
  name,
  inputType: type,
  outputType: type,
  clientStreaming,
  serverStreaming,
});

const file = fileDesc(base64Encode(
  toBinary(
    FileDescriptorProtoSchema,
    create(FileDescriptorProtoSchema, {
      name: "aetherflow/test/v1/test.proto",
      package: "aetherflow.test.v1",
      syntax: "proto3",
      messageType: [{
        name: "TestMessage",
        field: [
          { name: "body", number: 1, label, type: FieldDescriptorProto_Type.BYTES, jsonName: "body" },
          { name: "number", number: 2, label, type: FieldDescriptorProto_Type.INT32, jsonName: "number" },
          { name: "text", number: 3, label, type: FieldDescriptorProto_Type.STRING, jsonName: "text" },
        ],
      }],
      service: [{
        name: "TestService",
        method: [
          method("Unary", false, false),
          method("Download", false, true),
          method("Upload", true, false),
          method("Chat", true, true),
        ],
      }],
    }),
  ),
));

export const TestMessageSchema: GenMessage<TestMessage> = messageDesc(file, 0);

export const TestService: GenService<{
  unary: { methodKind: "unary"; input: typeof TestMessageSchema; output: typeof TestMessageSchema };
  download: {
    methodKind: "server_streaming";
    input: typeof TestMessageSchema;
    output: typeof TestMessageSchema;
  };
  upload: {
    methodKind: "client_streaming";
    input: typeof TestMessageSchema;
    output: typeof TestMessageSchema;
  };
  chat: { methodKind: "bidi_streaming"; input: typeof TestMessageSchema; output: typeof TestMessageSchema };
}> = serviceDesc(file, 0);
