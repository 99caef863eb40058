/** SUBSCRIBE and what belongs to it. `pubsub_context`: allowed in RESP2 while subscribed. */
import { copyBytes } from "../args.ts";
import type { AnyCommand } from "../command.ts";
import type { Reply } from "../reply.ts";
import { command, family } from "./_define.ts";

const FLAGS = "pubsub noscript no_multi pubsub_context";

/** The commands. */
export const PUBSUB_COMMANDS: readonly AnyCommand[] = [
  command(
    "pubsub",
    "subscribe",
    -2,
    FLAGS,
    "2.0.0",
    "Listens to channels.",
    (session, parts) => session.server.pubsub.join(session, "channel", parts.slice(1)),
  ),
  command(
    "pubsub",
    "unsubscribe",
    -1,
    FLAGS,
    "2.0.0",
    "Stops listening to channels.",
    (session, parts) => session.server.pubsub.leave(session, "channel", parts.slice(1)),
  ),
  command(
    "pubsub",
    "psubscribe",
    -2,
    FLAGS,
    "2.0.0",
    "Listens to channels that match.",
    (session, parts) => session.server.pubsub.join(session, "pattern", parts.slice(1)),
  ),
  command(
    "pubsub",
    "punsubscribe",
    -1,
    FLAGS,
    "2.0.0",
    "Stops listening to channels that match.",
    (session, parts) => session.server.pubsub.leave(session, "pattern", parts.slice(1)),
  ),
  command(
    "pubsub",
    "publish",
    3,
    "pubsub fast",
    "2.0.0",
    "Sends a message to those who listen to a channel now.",
    (session, [, channel, message]) =>
      session.server.pubsub.publish(copyBytes(channel!), copyBytes(message!)),
  ),
  family("pubsub", "pubsub", "2.8.0", "Tells who listens.", [
    command(
      "pubsub",
      "pubsub|channels",
      -2,
      "pubsub",
      "2.8.0",
      "Channels with listeners.",
      (session, parts) => session.server.pubsub.channels(parts[2]),
    ),
    command(
      "pubsub",
      "pubsub|numsub",
      -2,
      "pubsub",
      "2.8.0",
      "Counts the listeners of channels.",
      (session, parts) =>
        parts.slice(2).flatMap((channel): Reply[] => [
          copyBytes(channel),
          session.server.pubsub.listeners(channel),
        ]),
    ),
    command(
      "pubsub",
      "pubsub|numpat",
      2,
      "pubsub",
      "2.8.0",
      "Counts the patterns that are listened to.",
      (session) => session.server.pubsub.patternCount,
    ),
  ]),
];
