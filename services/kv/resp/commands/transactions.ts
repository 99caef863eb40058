/** MULTI and what belongs to it. `in_multi`: run at once between MULTI and EXEC. */
import type { SessionCommand } from "../command.ts";
import { command } from "./_define.ts";

/** The commands. */
export const TRANSACTION_COMMANDS: readonly SessionCommand[] = [
  command(
    "transactions",
    "multi",
    1,
    "noscript fast in_multi",
    "1.2.0",
    "Begins a transaction.",
    (session) => session.multi(),
  ),
  command(
    "transactions",
    "exec",
    1,
    "noscript in_multi",
    "1.2.0",
    "Runs what was queued as one revision.",
    (session) => session.exec(),
  ),
  command(
    "transactions",
    "discard",
    1,
    "noscript fast in_multi",
    "2.0.0",
    "Forgets what was queued.",
    (session) => session.discard(),
  ),
  command(
    "transactions",
    "watch",
    -2,
    "noscript fast in_multi",
    "2.2.0",
    "Lets EXEC do nothing when a key changes before.",
    (session, parts) => session.watch(parts.slice(1)),
    "after",
    [1, -1, 1],
  ),
  command(
    "transactions",
    "unwatch",
    1,
    "noscript fast",
    "2.2.0",
    "Forgets the watched keys.",
    (session) => session.unwatch(),
  ),
];
