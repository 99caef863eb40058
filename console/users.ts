/** Names of users: records of the API name them by their ids. What is known of them comes from us, from the list that
 *  administrators may read, and from what the clients of a document say of themselves. */
import { call } from "./api.ts";
import type { Me } from "./view.ts";

/** Names that are remembered; the oldest go first. */
const NAMES_MAX = 5_000;
/** Users that an administrator's page asks for. */
const LISTED_MAX = 1_000;
/** Longest id and name that are remembered, in characters. */
const CHARS_MAX = 256;

const names = new Map<string, string>();

/** Remembers a name. */
function learnName(userId: string, name: string): void {
  if (userId === "" || name === "" || userId.length > CHARS_MAX || name.length > CHARS_MAX) return;
  names.delete(userId);
  names.set(userId, name);
  if (names.size > NAMES_MAX) names.delete(names.keys().next().value!);
}

/** Remembers what somebody says of themselves, unless there is better knowledge. */
export function learnIfUnknown(userId: string, name: string): void {
  if (!names.has(userId)) learnName(userId, name);
}

/** The name of a user; of one that is not known a short form of the id. */
export function nameOfUser(userId: string | undefined): string {
  if (userId === undefined || userId === "") return "somebody";
  const known = names.get(userId);
  if (known !== undefined) return known;
  // A GUUID tells nobody anything; its last characters tell two apart.
  return /^[0-9A-Z]{26}$/.test(userId) ? `user …${userId.slice(-5)}` : userId;
}

/** Learns who we are and, for administrators, who there is. */
export async function learnUsers(me: Me): Promise<void> {
  learnName(me.userId, me.name);
  if (!me.isAdmin || me.isDeveloper) return;
  const { users = [] } = await call<{ users?: { userId: string; username: string }[] }>(
    "GET",
    "/api/v1/users",
    {
      query: { pageSize: LISTED_MAX },
    },
  );
  for (const { userId, username } of users) learnName(userId, username);
}
