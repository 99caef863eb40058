/** Statistics as stores keep them: JSON, its 64-bit numbers as text. */
import type { SessionStats } from "../session.ts";

/** Writes them. */
export function statsText(stats: SessionStats): string {
  return JSON.stringify(stats, (_, value) => typeof value === "bigint" ? String(value) : value);
}

/** Reads them again. */
export function parseStats(text: string): SessionStats {
  const stats = JSON.parse(text);
  return {
    packetsSent: BigInt(stats.packetsSent),
    packetsReceived: BigInt(stats.packetsReceived),
    bytesSent: BigInt(stats.bytesSent),
    bytesReceived: BigInt(stats.bytesReceived),
    retransmissions: BigInt(stats.retransmissions),
    currentRttMs: stats.currentRttMs,
  };
}
