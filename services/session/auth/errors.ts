/** Why something about users and credentials was refused: the one table of outcomes. */
import { Code, ConnectError } from "@connectrpc/connect";

interface Outcome {
  readonly code: Code;
  readonly text: string;
}

/** Every outcome. Texts of `Unauthenticated` say nothing of which part of a credential was wrong. */
export const AUTH_ERRORS = {
  badLogin: { code: Code.Unauthenticated, text: "auth: the name or the password is wrong" },
  badCredential: { code: Code.Unauthenticated, text: "auth: the credential is not valid, or no more" },
  badRefreshToken: { code: Code.Unauthenticated, text: "auth: the refresh token is not valid, or no more" },
  noCaller: { code: Code.Unauthenticated, text: "auth: sign in first" },
  wrongPassword: { code: Code.PermissionDenied, text: "auth: the present password is wrong" },
  notAdmin: { code: Code.PermissionDenied, text: "auth: this takes an administrator" },
  needsSession: { code: Code.PermissionDenied, text: "auth: this takes a session: sign in with a password" },
  notLocal: { code: Code.FailedPrecondition, text: "auth: the caller is no user of this server" },
  tooManyAttempts: { code: Code.ResourceExhausted, text: "auth: too many failed logins" },
  tooManyUsers: { code: Code.ResourceExhausted, text: "auth: there are session.auth.usersMax users" },
  tooManyKeys: { code: Code.ResourceExhausted, text: "auth: the user has session.auth.keysPerUserMax keys" },
  tooManyWatchers: { code: Code.ResourceExhausted, text: "auth: too many watch the policy" },
  invalid: { code: Code.InvalidArgument, text: "auth: the request is not valid" },
  weakPassword: { code: Code.InvalidArgument, text: "auth: choose another password" },
  userExists: { code: Code.AlreadyExists, text: "auth: there is a user of that name" },
  userNotFound: { code: Code.NotFound, text: "auth: there is no such user" },
  keyNotFound: { code: Code.NotFound, text: "auth: there is no such key" },
  sessionNotFound: { code: Code.NotFound, text: "auth: there is no such session" },
  lastAdmin: {
    code: Code.FailedPrecondition,
    text: "auth: it is the last enabled administrator: make another one first",
  },
  fixedSecret: {
    code: Code.FailedPrecondition,
    text: "auth: tokens are signed with session.auth.hs256Secret: change it in the configuration",
  },
  unavailable: { code: Code.Unavailable, text: "auth: users and keys cannot be read or changed" },
  conflict: { code: Code.Aborted, text: "auth: others change the same users: try again" },
} as const satisfies Record<string, Outcome>;

/** Name of an outcome. */
export type AuthErrorKind = keyof typeof AUTH_ERRORS;

/** What the domain throws. */
export class AuthError extends Error {
  override readonly name = "AuthError";

  /** When the same may succeed, in seconds. */
  readonly retryAfterS: number | undefined;

  /** `detail` is added after the table's text. */
  constructor(
    readonly kind: AuthErrorKind,
    detail?: string,
    options: ErrorOptions & { readonly retryAfterS?: number } = {},
  ) {
    super(detail === undefined ? AUTH_ERRORS[kind].text : `${AUTH_ERRORS[kind].text}: ${detail}`, options);
    this.retryAfterS = options.retryAfterS;
  }
}

/** An outcome as the wire has it, with `retry-after` in seconds where there is one; other errors as they are. */
export function toConnectError(error: unknown): unknown {
  if (!(error instanceof AuthError)) return error;
  const hint = error.retryAfterS === undefined ? undefined : { "retry-after": String(error.retryAfterS) };
  return new ConnectError(error.message, AUTH_ERRORS[error.kind].code, hint, undefined, error);
}
