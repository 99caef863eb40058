/** The password worker's part of the configuration, under the key `password`. */
import { z } from "zod";

/** Schema of `password`: every key has a default, a range and a description. */
export const passwordConfigSchema = z.strictObject({
  // OWASP's: 19 MiB, two passes, one lane.
  memoryKib: z.int().min(7 * 1024).max(1024 * 1024).default(19 * 1024).describe(
    "Memory of one argon2id hash, in KiB.",
  ),
  passes: z.int().min(1).max(100).default(2).describe("Passes of one argon2id hash."),
  waitingMax: z.int().min(1).max(10_000).default(64).describe(
    "Passwords that wait to be hashed; one more is refused (429). Each takes about 50 ms of a core.",
  ),
}).prefault({});

/** Validated configuration of the password worker. */
export type PasswordConfig = z.output<typeof passwordConfigSchema>;
