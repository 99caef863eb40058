/** Every bound of HTTP/2 here, with its reason. README.md says what happens at each limit. */

const KIB = 1024;

/** Largest frame taken: the least that RFC 9113 §4.2 lets a server ask for, so that a frame that comes in pieces costs no
 *  more than this. DATA frames are passed on in pieces and cost nothing. */
export const MAX_FRAME_BYTES = 16 * KIB;
/** Largest frame sent, even to a peer that takes larger ones: streams of one connection take turns by frames. */
export const MAX_SENT_FRAME_BYTES = 16 * KIB;

/** How much of a request may come before it is read, for one stream and for the connection, in bytes. A megabyte in flight
 *  is 1 GB/s at a round trip of 1 ms; it is also what a connection whose streams are all paused keeps in memory. */
export const STREAM_WINDOW_BYTES = 256 * KIB;
export const CONNECTION_WINDOW_BYTES = 1024 * KIB;

/** Framed bytes that wait to be taken by the socket: enough for one large write. Streams keep the rest unframed. */
export const MAX_OUTPUT_BYTES = 256 * KIB;
/** Answers to pings and settings, resets and window updates that may wait above that, in bytes: some 4,000 of them. A peer
 *  that makes us send them and does not read is sent away. */
export const MAX_CONTROL_BYTES = 64 * KIB;
/** Queued bytes of one stream from which its writer is asked to wait, and below which it may go on. A frame's worth: small
 *  parts cost several times their bytes, and a thousand streams may wait at once. */
export const STREAM_QUEUE_BYTES = 16 * KIB;
export const STREAM_QUEUE_LOW_BYTES = 4 * KIB;
/** Two parts that are written together are joined in the queue up to this; copying longer ones costs more than a part. */
export const JOINED_BYTES_MAX = 4 * KIB;

/** Queued bytes of all streams of a connection above which no further stream is taken: two answers of the largest kind that
 *  pass through here whole. What runs already may add to them. */
export const MAX_QUEUED_BYTES = 128 * 1024 * KIB;

/** Dynamic table for decoding, in bytes: HTTP/2's default, which clients need not be told. */
export const HEADER_TABLE_BYTES = 4 * KIB;
/** Entries that fit into it at most: each counts 32 bytes more than its text (RFC 7541 §4.1). */
export const HEADER_TABLE_ENTRIES = HEADER_TABLE_BYTES / 32;
/** Frames of one header block: a block is bounded in bytes, and this bounds one made of empty frames. */
export const MAX_CONTINUATIONS = 64;
/** Decoded blocks that are remembered, a power of two: a client repeats few of them, one for each method it calls. */
export const REMEMBERED_BLOCKS = 16;
/** Longest block that is remembered, in bytes: blocks of nothing but references to the table are short. */
export const REMEMBERED_BLOCK_BYTES = 64;

/** Resets that a peer may cause at once, its own and ours for its mistakes, and how many more each second. A call costs the
 *  server more than the client's reset (CVE-2023-44487), so one that opens and resets calls without end must be stopped;
 *  ordinary clients cancel now and then. */
export const RESET_BURST = 1_000;
export const RESETS_PER_SECOND = 100;
/** Frames that serve nothing (empty DATA, SETTINGS, PRIORITY, unknown types, frames for streams that have ended) at once,
 *  and each second. A client that cancels leaves some behind. */
export const IDLE_FRAME_BURST = 5_000;
export const IDLE_FRAMES_PER_SECOND = 500;
/** Pings in a row that may come too early, as gRPC's servers count them. */
export const EARLY_PINGS_MAX = 2;
/** Streams that this side reset and that are remembered, a power of two: what the peer sent before it knew is ignored. */
export const REMEMBERED_RESETS = 256;

/** Largest flow-control window (RFC 9113 §6.9.1). */
export const MAX_WINDOW_BYTES = 2 ** 31 - 1;
/** Window that either side has until it is told another (RFC 9113 §6.9.2). */
export const DEFAULT_WINDOW_BYTES = 65_535;

/** Streams that a client opens at once on a connection whose server names no bound: each may have a window's worth kept
 *  here while it is paused. More wait. */
export const MAX_OPEN_STREAMS = 10_000;
/** Streams of a client that wait to be opened; further ones are refused. Each holds its header fields and what was written
 *  to it, STREAM_QUEUE_BYTES and a message. */
export const MAX_WAITING_STREAMS = 10_000;
/** Frames that a server may have sent before it learnt of a reset, and that serve nothing then: a head, an end, a reset,
 *  widened windows. DATA is not counted, the window of the connection bounds it. */
export const FRAMES_AFTER_RESET = 8;
/** Interim answers (1xx) to one request. */
export const MAX_INTERIM_ANSWERS = 16;
