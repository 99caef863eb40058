/** Which sessions of SessionService stand for their user at a gateway, and not only in the application that opened them.
 *
 *  A session may be opened for any user id by whoever has a right to sessions, an API key with few rights among them. Its
 *  token must not be a way to more rights than the opener has. So it stands for the user only where the user opened it,
 *  signed in, or an administrator did; that is kept in the session's hidden part. */
import { type Principal, Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { isAdmin } from "../../runtime/principal.ts";

/** First byte of the hidden part of a session that stands for its user. Families of refresh tokens begin with `{`. */
const VOUCHED = 1;

/** The hidden part of a session that `principal` opens for `userId`. */
export function hiddenOf(principal: Principal | undefined, userId: string): Uint8Array | undefined {
  // A key's sessions would outlive it, and know nothing of its scopes.
  if (principal?.kind === Principal_Kind.API_KEY) return undefined;
  const isOwn = principal?.kind === Principal_Kind.USER && principal.userId === userId;
  return isOwn || isAdmin(principal) ? Uint8Array.of(VOUCHED) : undefined;
}

/** Whether a session with this hidden part stands for its user. */
export function isVouched(hidden: Uint8Array | undefined): boolean {
  return hidden?.[0] === VOUCHED;
}
