/** Errors as the Connect protocol and gRPC-Web tell them. */
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "$proto/google/rpc/error_details_pb.ts";
import { StatusSchema } from "$proto/google/rpc/status_pb.ts";
import { CODE_NAMES, type GatewayError } from "../../problem.ts";

/** A message that tells more of an error, with its type's name. */
export interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** HTTP statuses of the protocol's codes. They differ from REST's where that has a better one. */
const STATUS: Readonly<Record<Code, number>> = {
  [Code.Canceled]: 499,
  [Code.Unknown]: 500,
  [Code.InvalidArgument]: 400,
  [Code.DeadlineExceeded]: 504,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.PermissionDenied]: 403,
  [Code.ResourceExhausted]: 429,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.OutOfRange]: 400,
  [Code.Unimplemented]: 501,
  [Code.Internal]: 500,
  [Code.Unavailable]: 503,
  [Code.DataLoss]: 500,
  [Code.Unauthenticated]: 401,
};

/** The status of a unary answer of the Connect protocol. */
export function statusOf(error: GatewayError): number {
  return STATUS[error.grpcCode];
}

/** The error as the protocol's JSON has it. */
export function errorValue(error: GatewayError, requestId: string): Record<string, unknown> {
  const details = detailsOf(error, requestId).map(({ type, value }) => ({
    type,
    value: base64Encode(value, "std_raw"),
  }));
  const value = { code: CODE_NAMES[error.grpcCode], message: error.message };
  return details.length === 0 ? value : { ...value, details };
}

/** Largest status with details that is sent, in bytes before base64: clients take some 8 KiB of headers, and one that gets more
 *  loses the code and the message too. */
export const STATUS_DETAILS_BYTES_MAX = 4_096;

/** `grpc-status-details-bin`; undefined where code and message are all. */
export function statusDetails(error: GatewayError, requestId: string): string | undefined {
  return encodeStatusDetails(error.grpcCode, error.message, detailsOf(error, requestId));
}

/** `grpc-status-details-bin` of what a call ended with; undefined without details, and with too large ones. */
export function encodeStatusDetails(
  code: number,
  message: string,
  details: readonly Detail[],
): string | undefined {
  if (details.length === 0) return undefined;
  const status = create(StatusSchema, {
    code,
    message,
    details: details.map(({ type, value }) =>
      create(AnySchema, { typeUrl: `type.googleapis.com/${type}`, value: value as Uint8Array<ArrayBuffer> })
    ),
  });
  const bytes = toBinary(StatusSchema, status);
  return bytes.length > STATUS_DETAILS_BYTES_MAX ? undefined : base64Encode(bytes, "std_raw");
}

/** What a service said, and what the gateway knows besides: which of its own errors it is, and when to come back.
 *  `requestId` is left out where it is not known. */
export function detailsOf(error: GatewayError, requestId: string | undefined): Detail[] {
  const details: Detail[] = [];
  const { cause } = error;
  if (cause instanceof ConnectError && !error.isFault) {
    for (const detail of cause.details) {
      details.push(
        "desc" in detail ? detailOf(detail.desc, detail.value) : { type: detail.type, value: detail.value },
      );
    }
  }
  if (error.code !== CODE_NAMES[error.grpcCode]) {
    details.push(detailOf(ErrorInfoSchema, {
      reason: error.code.toUpperCase(),
      domain: "aetherflow",
      metadata: requestId === undefined ? {} : { requestId },
    }));
  }
  if (error.retryAfterS !== undefined) {
    details.push(detailOf(RetryInfoSchema, { retryDelay: { seconds: BigInt(error.retryAfterS) } }));
  }
  return details;
}

function detailOf<D extends DescMessage>(desc: D, value: MessageInitShape<D>): Detail {
  return { type: desc.typeName, value: toBinary(desc, create(desc, value)) };
}
