/** Times to live as clients write them. */
import { INT64_MAX, INT64_MIN, Refusal } from "./args.ts";

/** From now in seconds or milliseconds; at a time since 1970 in seconds or milliseconds. */
export type ExpiryUnit = "EX" | "PX" | "EXAT" | "PXAT";

/** Every unit. */
export const EXPIRY_UNITS: readonly ExpiryUnit[] = ["EX", "PX", "EXAT", "PXAT"];

/** When a key expires, in milliseconds since 1970.
 *  @throws {Refusal} when it is too large to be told, or, with `isPositive`, not above 0. */
export function expiryMs(
  unit: ExpiryUnit,
  amount: bigint,
  nowMs: number,
  command: string,
  isPositive: boolean,
): bigint {
  const refusal = () => new Refusal(`ERR invalid expire time in '${command}' command`);
  if (isPositive && amount <= 0n) throw refusal();
  const isSeconds = unit === "EX" || unit === "EXAT";
  if (isSeconds && (amount > INT64_MAX / 1_000n || amount < INT64_MIN / 1_000n)) throw refusal();
  const ms = isSeconds ? amount * 1_000n : amount;
  const base = unit === "EX" || unit === "PX" ? BigInt(nowMs) : 0n;
  if (ms > INT64_MAX - base) throw refusal();
  return ms + base;
}
