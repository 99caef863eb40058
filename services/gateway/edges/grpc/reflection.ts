/** gRPC server reflection, from the descriptors of what is served. */
import {
  create,
  type DescFile,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import {
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from "$proto/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "$proto/grpc/reflection/v1alpha/reflection_pb.ts";
import { type LocalAnswers, type LocalService, startLocalCall } from "./local_call.ts";
import type { LocalMethod } from "./method.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/** Creates both versions of the service, whose messages are alike. They tell of themselves too. */
export function createReflection(services: readonly DescService[]): LocalMethod[] {
  const all = [...services, ServerReflection, ServerReflectionAlpha];
  const files = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  for (const service of all) addFile(service.file);

  function addFile(file: DescFile): void {
    const { name } = file.proto;
    if (files.has(name)) return;
    files.set(name, file);
    file.messages.forEach(addMessage);
    for (const { typeName } of file.enums) symbols.set(typeName, file);
    for (const { typeName } of file.extensions) symbols.set(typeName, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
    file.dependencies.forEach(addFile);
  }

  function addMessage(message: DescMessage): void {
    symbols.set(message.typeName, message.file);
    for (const field of message.fields) symbols.set(`${message.typeName}.${field.name}`, message.file);
    for (const { typeName } of message.nestedEnums) symbols.set(typeName, message.file);
    message.nestedMessages.forEach(addMessage);
  }

  function answerTo({ messageRequest: asked }: ServerReflectionRequest): Answer {
    switch (asked.case) {
      case "listServices": {
        const service = all.map(({ typeName }) => ({ name: typeName })).sort((a, b) =>
          a.name < b.name ? -1 : 1
        );
        return { case: "listServicesResponse", value: { service } };
      }
      case "fileByFilename":
        return describe(files.get(asked.value), `File not found: ${asked.value}`);
      case "fileContainingSymbol":
        return describe(symbols.get(asked.value), `Symbol not found: ${asked.value}`);
      case "fileContainingExtension":
        return refusal(Code.NotFound, `Extension not found: ${asked.value.containingType}`);
      case "allExtensionNumbersOfType":
        return refusal(Code.NotFound, `No extensions of ${asked.value}`);
      case undefined:
        return refusal(Code.InvalidArgument, "the request asks for nothing");
    }
  }

  function reflect(answers: LocalAnswers): LocalService {
    return {
      onRequest(message) {
        let request: ServerReflectionRequest;
        try {
          request = fromBinary(ServerReflectionRequestSchema, message);
        } catch {
          return answers.fail(Code.Internal, "grpc: error unmarshalling request");
        }
        const response = create(ServerReflectionResponseSchema, {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answerTo(request),
        });
        answers.answer(toBinary(ServerReflectionResponseSchema, response));
      },
      onRequestEnd: () => answers.succeed(),
      onClose() {},
    };
  }

  return [ServerReflection, ServerReflectionAlpha].map(({ method }) => ({
    rpc: method.serverReflectionInfo,
    start: (handler, options) => startLocalCall(handler, options, reflect),
  }));
}

/** A file, behind all that it imports. */
function describe(file: DescFile | undefined, missing: string): Answer {
  if (file === undefined) return refusal(Code.NotFound, missing);
  const found = new Set<DescFile>();
  const collect = (at: DescFile) => {
    if (found.has(at)) return;
    found.add(at);
    at.dependencies.forEach(collect);
  };
  collect(file);
  const fileDescriptorProto = [...found].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function refusal(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
