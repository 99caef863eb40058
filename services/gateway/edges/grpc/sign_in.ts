/** What the gateway adds to calls that sign in, open sessions or change users, when they come over gRPC. */
import { type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { AuthService, LoginRequestSchema, UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";
import { CreateSessionRequestSchema, SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { fillClient } from "../../auth/sign_in.ts";
import type { Remote } from "../../stages.ts";

/** What an RPC takes around its calls: `login` and `session` are told where they come from, a change of `users` is to hold
 *  here when its caller is told. */
export type Around = "login" | "session" | "users" | undefined;

/** What an RPC takes. */
export function aroundOf(rpc: DescMethod): Around {
  if (rpc === AuthService.method.login) return "login";
  if (rpc === SessionService.method.createSession) return "session";
  const isRead = rpc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  return rpc.parent === UserService && !isRead ? "users" : undefined;
}

/** The message of a login with where it comes from, which is not the client's to say. */
export function loginFrom(remote: Remote, message: Uint8Array): Uint8Array {
  let request;
  try {
    request = fromBinary(LoginRequestSchema, message);
  } catch {
    return message; // the worker says what is wrong with it
  }
  request.clientIp = remote.hostname;
  request.clientPort = remote.port;
  request.cookies = false;
  return toBinary(LoginRequestSchema, request);
}

/** The message of a new session with where it comes from, if it does not say so. */
export function sessionFrom(remote: Remote, message: Uint8Array): Uint8Array {
  let request;
  try {
    request = fromBinary(CreateSessionRequestSchema, message);
  } catch {
    return message; // the worker says what is wrong with it
  }
  if (request.clientIp !== "") return message;
  fillClient(request, remote.hostname, remote.port);
  return toBinary(CreateSessionRequestSchema, request);
}

/** Tells of a call's end when `refresh` has ended. */
export class AfterRefresh implements RawCallHandler {
  constructor(readonly handler: RawCallHandler, readonly refresh: () => Promise<void>) {}

  onHeaders(headers: Headers): void {
    this.handler.onHeaders(headers);
  }

  onMessage(message: Uint8Array): void {
    this.handler.onMessage(message);
  }

  onDrain(): void {
    this.handler.onDrain();
  }

  onEnd(end: RawEnd): void {
    if (end.code !== 0) return this.handler.onEnd(end);
    this.refresh().then(() => this.handler.onEnd(end));
  }
}
