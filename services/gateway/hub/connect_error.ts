/** The gateway's errors as those of a service that it serves itself. */
import { ConnectError } from "@connectrpc/connect";
import { GatewayError } from "../problem.ts";

/** What a handler throws for it. */
export function toConnectError(error: unknown): unknown {
  return error instanceof GatewayError
    ? new ConnectError(error.message, error.grpcCode, undefined, undefined, error)
    : error;
}
