/** Every constant of Quantum, with its reason. SPEC.md cites them; §11 says what happens at each limit. */

const KIB = 1024;
const MIB = 1024 * KIB;

// ---- datagrams (SPEC §1, §8)

/** Bytes of a datagram that every path is assumed to carry, and the exact size of a SYN. RFC 8899 BASE_PLPMTU for QUIC. */
export const BASE_DATAGRAM_BYTES = 1200;
/** Largest datagram that IPv4 UDP can carry: 65,535 − 20 − 8. */
export const MAX_DATAGRAM_BYTES = 65_507;
/** Largest datagram tried on a loopback path: six fit the kernel's socket buffer, three of 60 kB would. SPEC §8.3. */
export const LOOPBACK_DATAGRAM_BYTES = 32_768;
/** Largest datagram tried elsewhere: Ethernet's 1,500 less IPv4 and UDP headers. */
export const NETWORK_DATAGRAM_BYTES = 1472;
/** Sizes tried on a loopback path, in this order, until one passes. SPEC §8.2. */
export const LOOPBACK_PROBE_SIZES: readonly number[] = [61_440, 32_768, 16_384, 8_192];
/** Sizes tried elsewhere, in this order, until one fails: IPv6 minimum, tunnels, PPPoE, IPv6 and IPv4 Ethernet. SPEC §8.2. */
export const NETWORK_PROBE_SIZES: readonly number[] = [1280, 1350, 1400, 1432, 1452, 1472];
/** Tries per size; RFC 8899 MAX_PROBES. */
export const MTU_PROBE_TRIES = 3;
/** A finished search starts again after this; RFC 8899 PMTU_RAISE_TIMER. */
export const MTU_RAISE_MS = 600_000;
/** First wait before searching again after a black hole; doubles up to MTU_RAISE_MS. SPEC §8.4. */
export const MTU_BLACK_HOLE_WAIT_MS = 5_000;
/** Lost large packets in a row that mean a black hole: as many as RFC 9002 needs for one loss. SPEC §8.4. */
export const MTU_BLACK_HOLE_LOSSES = 3;

// ---- handshake (SPEC §2)

/** Shortest pre-shared secret, in bytes: the security level of X25519 and ChaCha20. */
export const MIN_SECRET_BYTES = 32;
/** First and longest wait before a SYN is sent again, and when to give up. SPEC §2.4. */
export const SYN_RETRY_MS = 150;
export const SYN_RETRY_MAX_MS = 800;
export const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Retries that one client handshake answers; a server that asks more often is not making progress. */
export const MAX_RETRIES_ANSWERED = 3;
/** Life of an address token, and how far a SYN's GUUID time may be from the server's clock. SPEC §2.8, §2.9. */
export const TOKEN_LIFE_MS = 10_000;
export const SYN_FRESH_MS = 30_000;
/** How long an accepted GUUID is remembered: 2 × SYN_FRESH_MS + TOKEN_LIFE_MS. SPEC §2.10. */
export const SEEN_SYN_MS = 2 * SYN_FRESH_MS + TOKEN_LIFE_MS;
/** Accepted GUUIDs remembered; 230 new connections per second for ever. At the limit SYNs are dropped. */
export const MAX_SEEN_SYNS = 16_384;
/** Half-open handshakes; ~2 kB each. At the limit SYNs are dropped. */
export const MAX_HALF_OPEN = 1_024;
/** Half-open handshakes from which on a SYN must bring a token: more than a boot of one host's workers makes. */
export const RETRY_THRESHOLD = 64;
/** Bytes sent to an unproven address per byte received from it; RFC 9000 §8.1. */
export const AMPLIFICATION_FACTOR = 3;

// ---- connections

/** Connections of one endpoint, both sides together; a node has tens of peers. */
export const MAX_CONNECTIONS = 4_096;
/** Closing and draining records kept; the oldest is forgotten. */
export const MAX_CLOSING = 4_096;
/** Handshake answers and resets waiting for the socket; more are dropped, their cause is repeated by the peer. */
export const MAX_RESPONSES_QUEUED = 256;
/** Stateless resets leaving an endpoint; a restart is noticed at once, a flood gets nothing. SPEC §10.6. */
export const MAX_RESETS_PER_SECOND = 100;
/** UTF-8 bytes of a close reason; must fit a base packet beside everything else. */
export const MAX_CLOSE_REASON_BYTES = 256;
/** Bounds of the flush before CLOSE. SPEC §10.1. */
export const CLOSE_FLUSH_MIN_MS = 100;
export const CLOSE_FLUSH_MAX_MS = 1_000;
/** CLOSE is repeated this often on a timer. SPEC §10.3. */
export const CLOSE_REPEATS = 2;
/** Lost after this long without an authenticated packet, unless the peer asks for less. */
export const IDLE_TIMEOUT_MS = 30_000;
/** PING after this long without a received packet: three tries within IDLE_TIMEOUT_MS. */
export const KEEP_ALIVE_MS = 10_000;
/** Packet numbers stop here: 2^32 less room to say goodbye. SPEC §3.1. */
export const PACKET_NUMBER_LIMIT = 2 ** 32 - 1_024;

// ---- acknowledgement and loss (SPEC §3, §6)

/** SACK blocks of one datagram; the wire format's limit. */
export const MAX_SACK_BLOCKS = 8;
/** Ranges of received packet numbers kept. SPEC §3.4. */
export const MAX_RECEIVED_RANGES = 128;
/** Longest wait of an acknowledgement: longer than a local call takes, so that its answer carries it. */
export const MAX_ACK_DELAY_MS = 8;
/** Bulk packets, and packets of any size, that are acknowledged at once. SPEC §3.7. */
export const ACK_EVERY_BULK = 2;
export const ACK_EVERY = 10;
/** RFC 9002 §6.1.1, §6.1.2, §7.6.1; the granularity is that of timers here. */
export const PACKET_THRESHOLD = 3;
export const TIME_THRESHOLD = 9 / 8;
export const GRANULARITY_MS = 1;
export const PERSISTENT_CONGESTION_THRESHOLD = 3;
/** RTT assumed before the first sample; RFC 9002 says 333 ms for the open Internet, edge paths are shorter. */
export const INITIAL_RTT_MS = 100;
/** Probe backoff stops doubling here: 2^6 probe timeouts, seconds on any path. */
export const MAX_PROBE_BACKOFF = 6;
/** Nor does a backed-off probe wait longer: some ten tries within IDLE_TIMEOUT_MS, so that a connection outlives a burst of
 *  loss. A path whose probe timeout is longer keeps that. */
export const MAX_PROBE_INTERVAL_MS = 3_000;
/** Packets between the oldest outstanding and the newest. SPEC §6.6. */
export const MAX_SENT_PACKETS = 16_384;

// ---- congestion (SPEC §7)

/** Initial and smallest window, in datagrams; RFC 9002 §7.2. */
export const INITIAL_WINDOW_DATAGRAMS = 10;
export const MIN_WINDOW_DATAGRAMS = 2;
/** Bytes that cap the initial window on a path that is not loopback; RFC 9002 §7.2. */
export const INITIAL_WINDOW_CAP_BYTES = 14_720;
/** The window grows no further: twice the largest flow-control window. */
export const MAX_WINDOW_BYTES = 32 * MIB;
/** Pacing burst, in datagrams, and the RTT below which packets are not paced. SPEC §7.5. */
export const PACING_BURST_DATAGRAMS = 10;
export const PACING_MIN_RTT_MS = 2;
/** What the receiver's socket buffer is trusted to hold: 212,992 bytes less a quarter for other peers. SPEC §7.6. */
export const SOCKET_BUDGET_BYTES = 165_000;

// ---- streams (SPEC §5)

/** Streams the peer may have open: 16 times the benchmark's calls in flight. */
export const MAX_STREAMS_OPEN = 4_096;
/** Flow-control windows. Relation: the connection's holds four full streams. */
export const STREAM_WINDOW_BYTES = 4 * MIB;
export const CONNECTION_WINDOW_BYTES = 16 * MIB;
/** Credit is announced when 1/CREDIT_FRACTION of the window is new: few frames, and the sender never runs dry. */
export const CREDIT_FRACTION = 4;
/** Pieces kept while reassembling all streams of a connection. SPEC §5.3. Relation: 2 × MAX_SENT_PACKETS; an honest sender
 *  has about one piece per packet in flight waiting for a lost one. */
export const MAX_REASSEMBLY_PIECES = 32_768;
/** New bytes that a stream sends before the next stream's turn: small messages leave whole, which frees their credit and
 *  lets the peer begin; a large one gives way after half a loopback datagram. SPEC §5.8. */
export const STREAM_QUANTUM_BYTES = 16 * KIB;
/** Unsent bytes of a stream above which `write` reports false, and below which `drain` follows. SPEC §5.9. */
export const WRITE_HIGH_WATER_BYTES = 1 * MIB;
export const WRITE_LOW_WATER_BYTES = 256 * KIB;

// ---- unreliable datagrams (SPEC §9)

/** Datagrams waiting to be sent, in number and bytes. */
export const MAX_DATAGRAMS_QUEUED = 256;
export const MAX_DATAGRAM_QUEUE_BYTES = 1 * MIB;
