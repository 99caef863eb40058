import type { FailureCode } from "../runtime/worker_context.ts";

/** How `aetherflow start` ends; printed by `start --help`. */
export const EXIT = {
  /** Stopped by a signal, everything finished. */
  ok: 0,
  /** Something else went wrong. */
  error: 1,
  /** The command line or the configuration is wrong. */
  config: 2,
  /** A port is taken by another process. */
  addressInUse: 10,
  /** Another process works on the same data folder. */
  dataInUse: 11,
  /** Stored data is damaged. */
  dataDamaged: 12,
  /** The disk is full, or the data folder cannot be used. */
  storage: 13,
  /** A worker kept dying. */
  gaveUp: 14,
  /** Stopped by a signal, but work was cut short by a deadline or a second signal. */
  cutShort: 15,
  /** Only a new process can go on: EX_TEMPFAIL of sysexits.h, which service managers restart on. */
  restart: 75,
} as const;

/** The host cannot start or go on. The message is the one line for the person who started it. */
export class HostError extends Error {
  override readonly name = "HostError";
  constructor(message: string, readonly exitCode: number, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The exit code of a worker's failure to start. */
export function exitCodeOf(code: FailureCode): number {
  switch (code) {
    case "address_in_use":
      return EXIT.addressInUse;
    case "data_locked":
      return EXIT.dataInUse;
    case "data_damaged":
      return EXIT.dataDamaged;
    case "storage":
      return EXIT.storage;
    case "config":
      return EXIT.config;
    case "internal":
      return EXIT.error;
  }
}
