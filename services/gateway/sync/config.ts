/** The synchronising clients' part of the configuration, under the key `gateway.sync`. */
import { z } from "zod";

/** Schema of `gateway.sync`. */
export const syncConfigSchema = z.strictObject({
  maxSockets: z.int().min(1).max(200_000).default(50_000).describe(
    "WebSockets of synchronising clients open at once in one gateway worker. More are closed with 1013.",
  ),
  // One that a service takes travels in a message of at most 4 MiB.
  maxMessageBytes: z.int().min(1_024).max(4_000_000).default(1_048_576).describe(
    "Largest message of a synchronising client, in bytes. More closes its socket with 4413.",
  ),
  maxQueueBytes: z.int().min(65_536).max(67_108_864).default(1_048_576).describe(
    "Bytes that may wait in one socket for a client to read them, besides the document's state that it asked for. More closes " +
      "the socket with 4508.",
  ),
  stateBytesInFlight: z.int().min(1_048_576).max(1_073_741_824).default(33_554_432).describe(
    "Bytes of documents' states under way to clients at once in one gateway worker; further clients wait their turn.",
  ),
  pingIntervalMs: z.int().min(1_000).max(300_000).default(25_000).describe(
    "How long a client may be silent until it is pinged, in milliseconds; one that is silent for as long again is dropped.",
  ),
  authTimeoutMs: z.int().min(100).max(60_000).default(10_000).describe(
    "How long a client that shows who it is within the protocol may take for it, in milliseconds.",
  ),
  maxDocumentsPerSocket: z.int().min(1).max(10_000).default(256).describe(
    "Documents open at once on one multiplexed socket.",
  ),
}).prefault({});

/** Validated configuration of synchronising clients. */
export type SyncConfig = z.output<typeof syncConfigSchema>;
