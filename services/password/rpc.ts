/** PasswordService. */
import { PasswordService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { PRINCIPAL_METADATA } from "../runtime/principal.ts";
import { PasswordError, type PasswordHasher } from "./hasher.ts";

const CODES: Readonly<Record<PasswordError["code"], Code>> = {
  too_many: Code.ResourceExhausted,
  invalid: Code.InvalidArgument,
  canceled: Code.Canceled,
};

/** The implementation of PasswordService. A refusal for too many says in `retry-after`, in seconds, when to try again. */
export function createPasswordHandlers(hasher: PasswordHasher): ServiceImpl<typeof PasswordService> {
  return {
    async hashPassword({ password }, context) {
      checkWorker(context);
      const hash = await mapped(() => hasher.hash(password, context.signal));
      return { $typeName: "aetherflow.auth.v1.HashPasswordResponse", hash };
    },
    async verifyPassword({ password, hash }, context) {
      checkWorker(context);
      const answer = await mapped(() => hasher.verify(password, hash, context.signal));
      return { $typeName: "aetherflow.auth.v1.VerifyPasswordResponse", ...answer };
    },
  };
}

async function mapped<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof PasswordError)) throw error;
    const hint = error.retryAfterS === 0 ? undefined : { "retry-after": String(error.retryAfterS) };
    throw new ConnectError(error.message, CODES[error.code], hint, undefined, error);
  }
}

/** Only workers ask: a gateway names a principal with every call that it passes on. */
function checkWorker(context: HandlerContext): void {
  if (context.requestHeader.get(PRINCIPAL_METADATA) === null) return;
  throw new ConnectError("password: this is asked by workers only", Code.PermissionDenied);
}
