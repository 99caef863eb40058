/** Configuration of the WebSocket hub, under `gateway.hub`. */
import { z } from "zod";

/** Schema of `gateway.hub`: every key has a default, a range and a description. */
export const hubConfigSchema = z.strictObject({
  maxSockets: z.int().min(1).max(1_000_000).default(50_000).describe(
    "Sockets and event streams of the hub open at once in one gateway worker. More are refused with 503.",
  ),
  maxChannels: z.int().min(1).max(1_000_000).default(100_000).describe(
    "Channels that one gateway worker has at once, those whose history is kept included. More are RESOURCE_EXHAUSTED.",
  ),
  maxChannelsPerSocket: z.int().min(1).max(10_000).default(128).describe(
    "Channels that one socket may be subscribed to at once.",
  ),
  maxMessageBytes: z.int().min(1_024).max(3_000_000).default(64 * 1_024).describe(
    "Largest message of a client, in bytes. A socket that sends a larger one is closed with 4413.",
  ),
  maxQueuedBytes: z.int().min(64 * 1_024).max(64 * 1_024 * 1_024).default(1_024 * 1_024).describe(
    "Bytes that may wait for one client to read them. One that lets more wait is closed with 4508.",
  ),
  messagesPerSecond: z.number().min(1).max(100_000).default(100).describe(
    "Messages a second that one socket may send on average. More are answered with rate_limited, then it is closed with 4529.",
  ),
  messageBurst: z.int().min(1).max(100_000).default(200).describe(
    "Messages that one socket may send at once after a pause.",
  ),
  authTimeoutMs: z.int().min(100).max(600_000).default(10_000).describe(
    "How long a socket that came without a credential may take to show one, in milliseconds; then it is closed with 4408.",
  ),
  pingIntervalMs: z.int().min(1_000).max(300_000).default(25_000).describe(
    "Silence after which a client is pinged, in milliseconds. One that says nothing for as long again is dropped.",
  ),
  historyMessages: z.int().min(0).max(100_000).default(256).describe(
    "Messages kept of each channel, for history and for clients that come back.",
  ),
  historyBytes: z.int().min(0).max(64 * 1_024 * 1_024).default(1_024 * 1_024).describe(
    "Bytes of messages kept of each channel.",
  ),
  historyTotalBytes: z.int().min(0).max(4_096 * 1_024 * 1_024).default(128 * 1_024 * 1_024).describe(
    "Bytes of messages kept of all channels of one gateway worker. Beyond it the channels that nobody hears lose theirs first.",
  ),
  idleChannelMs: z.int().min(1_000).max(86_400_000).default(300_000).describe(
    "How long a channel that nobody hears keeps its history, in milliseconds.",
  ),
  presenceTickMs: z.int().min(10).max(60_000).default(250).describe(
    "How long joins and leaves of a channel are gathered before those who asked are told, in milliseconds.",
  ),
  reconnectMs: z.int().min(0).max(600_000).default(5_000).describe(
    "Longest pause before clients come back that were sent away, in milliseconds; each is told a time of its own up to it.",
  ),
}).prefault({});

/** Validated configuration of the hub. */
export type HubConfig = z.output<typeof hubConfigSchema>;
