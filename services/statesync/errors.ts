/** Why the document service said no: the one table of outcomes, their gRPC codes and texts. */

/** gRPC code by its name in lower case. */
export type StateSyncCode =
  | "invalid_argument"
  | "not_found"
  | "already_exists"
  | "aborted"
  | "out_of_range"
  | "resource_exhausted"
  | "failed_precondition"
  | "unavailable"
  | "permission_denied";

interface Outcome {
  readonly code: StateSyncCode;
  /** What a person reads; details such as field and limit follow it. */
  readonly text: string;
  /** Whether the same request may succeed later without a change of it. */
  readonly retry: boolean;
}

/** Every outcome. */
export const STATESYNC_ERRORS = {
  invalid: { code: "invalid_argument", text: "documents: the request is not valid", retry: false },
  badPageToken: {
    code: "invalid_argument",
    text: "documents: page_token is not one of this list",
    retry: false,
  },
  hostile: {
    code: "invalid_argument",
    text: "documents: the update is more than one may be, or is none",
    retry: false,
  },
  notFound: { code: "not_found", text: "documents: there is no such document", retry: false },
  noVersion: { code: "not_found", text: "documents: there is no such version", retry: false },
  noConflict: { code: "not_found", text: "documents: there is no such conflict", retry: false },
  noLock: { code: "not_found", text: "documents: there is no such lock of this caller", retry: false },
  noObject: { code: "not_found", text: "documents: there is no such object", retry: false },
  exists: { code: "already_exists", text: "documents: the id is taken", retry: false },
  versionMismatch: {
    code: "aborted",
    text: "documents: the version is another one by now",
    retry: false,
  },
  missing: {
    code: "aborted",
    text: "documents: the update builds on edits that are not here",
    retry: true,
  },
  denied: { code: "permission_denied", text: "documents: the caller may not do this", retry: false },
  locked: { code: "failed_precondition", text: "documents: it is locked by another", retry: true },
  fenced: {
    code: "failed_precondition",
    text: "documents: the fencing token is not the newest",
    retry: false,
  },
  notActive: {
    code: "failed_precondition",
    text: "documents: it is archived or deleted, and is not edited",
    retry: false,
  },
  decided: { code: "failed_precondition", text: "documents: the conflict is decided", retry: false },
  versionGone: {
    code: "out_of_range",
    text: "documents: that version is compacted away",
    retry: false,
  },
  eventsGone: {
    code: "out_of_range",
    text: "documents: events from there on are not kept: read the document anew",
    retry: false,
  },
  tooLarge: {
    code: "resource_exhausted",
    text: "documents: the document would be larger than one may be",
    retry: false,
  },
  tooMany: { code: "resource_exhausted", text: "documents: there are as many as there may be", retry: true },
  unavailable: { code: "unavailable", text: "documents: the store cannot be reached", retry: true },
  readOnly: {
    code: "unavailable",
    text: "documents: the store failed, so nothing can be changed",
    retry: false,
  },
  stopped: { code: "unavailable", text: "documents: the service is stopping", retry: true },
} as const satisfies Record<string, Outcome>;

/** Name of an outcome in the table. */
export type StateSyncErrorKind = keyof typeof STATESYNC_ERRORS;

/** What the domain throws. */
export class StateSyncError extends Error {
  override readonly name = "StateSyncError";
  readonly code: StateSyncCode;

  /** `detail`, when given, is added after the table's text. */
  constructor(readonly kind: StateSyncErrorKind, detail?: string, options?: ErrorOptions) {
    const { text, code } = STATESYNC_ERRORS[kind];
    super(detail === undefined ? text : `${text}: ${detail}`, options);
    this.code = code;
  }
}
