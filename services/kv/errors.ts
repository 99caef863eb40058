/** Why the store said no: the one table of outcomes, their gRPC codes and texts.
 *
 *  Texts that begin with `etcdserver:` are etcd's, to the letter: client libraries compare them. */

/** gRPC code by its name in lower case. */
export type KvCode =
  | "invalid_argument"
  | "not_found"
  | "out_of_range"
  | "resource_exhausted"
  | "failed_precondition"
  | "unimplemented"
  | "deadline_exceeded"
  | "unknown"
  | "data_loss"
  | "unavailable"
  | "permission_denied"
  | "unauthenticated";

interface Outcome {
  readonly code: KvCode;
  /** Text; the native service's outcomes add what was expected and found. */
  readonly text: string;
  /** Whether the same request may succeed later without a change of it. */
  readonly retry: boolean;
}

/** Every outcome. */
export const KV_ERRORS = {
  emptyKey: { code: "invalid_argument", text: "etcdserver: key is not provided", retry: false },
  keyNotFound: { code: "invalid_argument", text: "etcdserver: key not found", retry: false },
  valueProvided: { code: "invalid_argument", text: "etcdserver: value is provided", retry: false },
  leaseProvided: { code: "invalid_argument", text: "etcdserver: lease is provided", retry: false },
  tooManyOps: {
    code: "invalid_argument",
    text: "etcdserver: too many operations in txn request",
    retry: false,
  },
  duplicateKey: {
    code: "invalid_argument",
    text: "etcdserver: duplicate key given in txn request",
    retry: false,
  },
  invalidSortOption: { code: "invalid_argument", text: "etcdserver: invalid sort option", retry: false },
  requestTooLarge: { code: "invalid_argument", text: "etcdserver: request is too large", retry: false },
  compacted: {
    code: "out_of_range",
    text: "etcdserver: mvcc: required revision has been compacted",
    retry: false,
  },
  futureRevision: {
    code: "out_of_range",
    text: "etcdserver: mvcc: required revision is a future revision",
    retry: false,
  },
  noSpace: { code: "resource_exhausted", text: "etcdserver: mvcc: database space exceeded", retry: false },
  tooManyRequests: { code: "resource_exhausted", text: "etcdserver: too many requests", retry: true },
  leaseExists: { code: "failed_precondition", text: "etcdserver: lease already exists", retry: false },
  leaseTtlTooLarge: { code: "out_of_range", text: "etcdserver: too large lease TTL", retry: false },
  leaseNotFound: { code: "not_found", text: "etcdserver: requested lease not found", retry: false },
  corrupt: { code: "data_loss", text: "etcdserver: corrupt cluster", retry: false },
  badMemberUrls: {
    code: "invalid_argument",
    text: "etcdserver: given member URLs are invalid",
    retry: false,
  },
  memberNotFound: { code: "not_found", text: "etcdserver: member not found", retry: false },
  peerUrlsExist: { code: "failed_precondition", text: "etcdserver: Peer URLs already exists", retry: false },
  notEnoughMembers: {
    code: "failed_precondition",
    text: "etcdserver: re-configuration failed due to not enough started members",
    retry: false,
  },
  notLearner: {
    code: "failed_precondition",
    text: "etcdserver: can only promote a learner member",
    retry: false,
  },
  badTransferee: { code: "failed_precondition", text: "etcdserver: bad leader transferee", retry: false },
  downgradeFormat: {
    code: "invalid_argument",
    text: "etcdserver: wrong downgrade target version format",
    retry: false,
  },
  downgradeTarget: {
    code: "invalid_argument",
    text: "etcdserver: invalid downgrade target version",
    retry: false,
  },
  downgradeRunning: {
    code: "failed_precondition",
    text: "etcdserver: cluster has a downgrade job in progress",
    retry: false,
  },
  noDowngrade: { code: "failed_precondition", text: "etcdserver: no inflight downgrade job", retry: false },
  streamSort: {
    code: "unimplemented",
    text: "RangeStream does not support custom sort orders",
    retry: false,
  },
  streamFilters: {
    code: "unimplemented",
    text: "RangeStream does not support revision filters",
    retry: false,
  },
  rootUserMissing: {
    code: "failed_precondition",
    text: "etcdserver: root user does not exist",
    retry: false,
  },
  rootRoleMissing: {
    code: "failed_precondition",
    text: "etcdserver: root user does not have root role",
    retry: false,
  },
  userExists: { code: "failed_precondition", text: "etcdserver: user name already exists", retry: false },
  userEmpty: { code: "invalid_argument", text: "etcdserver: user name is empty", retry: false },
  userNotFound: { code: "failed_precondition", text: "etcdserver: user name not found", retry: false },
  roleExists: { code: "failed_precondition", text: "etcdserver: role name already exists", retry: false },
  roleNotFound: { code: "failed_precondition", text: "etcdserver: role name not found", retry: false },
  roleEmpty: { code: "invalid_argument", text: "etcdserver: role name is empty", retry: false },
  authFailed: {
    code: "invalid_argument",
    text: "etcdserver: authentication failed, invalid user ID or password",
    retry: false,
  },
  permissionNotGiven: { code: "invalid_argument", text: "etcdserver: permission not given", retry: false },
  permissionDenied: { code: "permission_denied", text: "etcdserver: permission denied", retry: false },
  roleNotGranted: {
    code: "failed_precondition",
    text: "etcdserver: role is not granted to the user",
    retry: false,
  },
  permissionNotGranted: {
    code: "failed_precondition",
    text: "etcdserver: permission is not granted to the role",
    retry: false,
  },
  authNotEnabled: {
    code: "failed_precondition",
    text: "etcdserver: authentication is not enabled",
    retry: false,
  },
  invalidAuthToken: { code: "unauthenticated", text: "etcdserver: invalid auth token", retry: false },
  invalidAuthManagement: {
    code: "invalid_argument",
    text: "etcdserver: invalid auth management",
    retry: false,
  },
  noCredentials: { code: "unauthenticated", text: "kv: authentication is required", retry: false },
  // etcd has no code for this one.
  noPasswordUser: {
    code: "unknown",
    text: "auth: authentication failed, password was given for no password user",
    retry: false,
  },
  stopped: { code: "unavailable", text: "etcdserver: server stopped", retry: true },
  readOnly: { code: "unavailable", text: "kv: the log failed, so writes are refused", retry: false },
  notDurable: {
    code: "unavailable",
    text: "kv: the log failed before this write was durable; whether it survives a restart is unknown",
    retry: false,
  },
  clusterUnavailable: { code: "unavailable", text: "kv: the etcd cluster cannot be reached", retry: true },
  clusterTimeout: {
    code: "deadline_exceeded",
    text: "kv: the etcd cluster did not answer in time; whether the request was done is unknown",
    retry: false,
  },
  clusterFailed: { code: "unknown", text: "kv: the etcd cluster failed", retry: false },
  // Texts of etcd's concurrency recipes; plain errors there, so their code is "unknown".
  sessionExpired: { code: "unknown", text: "mutex: session is expired", retry: false },
  sessionEnded: { code: "unknown", text: "election: session ended", retry: false },
  notLeader: { code: "unknown", text: "election: not leader", retry: false },
  noLeader: { code: "unknown", text: "election: no leader", retry: false },
  missingLeaderKey: { code: "unknown", text: '"leader" field must be provided', retry: false },
  answerTooLarge: {
    code: "resource_exhausted",
    text: "kv: the answer is too large: read with a limit, in key order",
    retry: false,
  },
  unreadable: { code: "unavailable", text: "kv: the storage could not be read", retry: false },
  badPageToken: { code: "invalid_argument", text: "kv: page_token is not one of this list", retry: false },
  notFound: { code: "not_found", text: "kv: key not found", retry: false },
  revisionMismatch: {
    code: "failed_precondition",
    text: "kv: the key's mod revision is not if_mod_revision",
    retry: false,
  },
  invalidEntryRequest: { code: "invalid_argument", text: "kv: the request is not valid", retry: false },
  keyTooLarge: { code: "invalid_argument", text: "kv: key is too large", retry: false },
  valueTooLarge: { code: "invalid_argument", text: "kv: value is too large", retry: false },
  badPageSize: { code: "invalid_argument", text: "kv: page_size is out of range", retry: false },
} as const satisfies Record<string, Outcome>;

/** Name of an outcome in the table. */
export type KvErrorKind = keyof typeof KV_ERRORS;

/** What the domain throws. */
export class KvError extends Error {
  override readonly name = "KvError";
  readonly code: KvCode;

  /** `detail`, when given, is added after the table's text. */
  constructor(readonly kind: KvErrorKind, detail?: string, options?: ErrorOptions) {
    super(detail === undefined ? KV_ERRORS[kind].text : `${KV_ERRORS[kind].text}: ${detail}`, options);
    this.code = KV_ERRORS[kind].code;
  }
}

/** Reasons a watch was refused or cancelled; they travel as `cancel_reason`, not as an error. */
export const WATCH_CANCEL_REASONS = {
  compacted: KV_ERRORS.compacted.text,
  emptyRange: "mvcc: watcher range is empty",
  duplicateId: "mvcc: duplicate watch ID provided on the WatchStream",
  tooMany: KV_ERRORS.tooManyRequests.text,
} as const;
