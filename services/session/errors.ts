/** Why the session service said no: the one table of outcomes, their gRPC codes and texts. */

/** gRPC code by its name in lower case. */
export type SessionCode =
  | "invalid_argument"
  | "not_found"
  | "out_of_range"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "unavailable"
  | "permission_denied"
  | "unauthenticated";

interface Outcome {
  readonly code: SessionCode;
  /** What a person reads; details such as field and limit follow it. */
  readonly text: string;
  /** Whether the same request may succeed later without a change of it. */
  readonly retry: boolean;
}

/** Every outcome. */
export const SESSION_ERRORS = {
  invalid: { code: "invalid_argument", text: "session: the request is not valid", retry: false },
  badPageToken: {
    code: "invalid_argument",
    text: "session: page_token is not one of this list",
    retry: false,
  },
  notFound: { code: "not_found", text: "session: there is no such session", retry: false },
  badToken: { code: "unauthenticated", text: "session: the token stands for no session", retry: false },
  denied: {
    code: "permission_denied",
    text: "session: only one's own sessions may be seen and changed",
    retry: false,
  },
  badTransition: {
    code: "failed_precondition",
    text: "session: that state cannot follow the present one",
    retry: false,
  },
  disconnecting: {
    code: "failed_precondition",
    text: "session: it is disconnecting, which use does not prolong",
    retry: false,
  },
  revoked: {
    code: "aborted",
    text: "session: the user's sessions were revoked meanwhile",
    retry: true,
  },
  tooMany: {
    code: "resource_exhausted",
    text: "session: there are as many sessions as there may be",
    retry: true,
  },
  tooManyWatchers: {
    code: "resource_exhausted",
    text: "session: there are as many watchers as there may be",
    retry: true,
  },
  eventsGone: {
    code: "out_of_range",
    text: "session: events from there on are not kept: list anew",
    retry: false,
  },
  unavailable: { code: "unavailable", text: "session: the store cannot be reached", retry: true },
  readOnly: {
    code: "unavailable",
    text: "session: the store failed, so nothing can be changed",
    retry: false,
  },
  stopped: { code: "unavailable", text: "session: the service is stopping", retry: true },
} as const satisfies Record<string, Outcome>;

/** Name of an outcome in the table. */
export type SessionErrorKind = keyof typeof SESSION_ERRORS;

/** What the domain throws. */
export class SessionError extends Error {
  override readonly name = "SessionError";
  readonly code: SessionCode;

  /** `detail`, when given, is added after the table's text. */
  constructor(readonly kind: SessionErrorKind, detail?: string, options?: ErrorOptions) {
    const { text, code } = SESSION_ERRORS[kind];
    super(detail === undefined ? text : `${text}: ${detail}`, options);
    this.code = code;
  }
}
