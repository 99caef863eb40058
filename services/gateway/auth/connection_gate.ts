/** Connections whose clients show who they are themselves, within their protocol: Redis's. */
import type { Authenticator } from "./authentication.ts";
import { following } from "./followers.ts";
import { DEVELOPER_CALLER } from "./identity.ts";

/** A connection that may begin. */
export interface Admitted {
  /** Whether its client must show who it is. */
  readonly mustAuthenticate: boolean;
  /** The connection has ended. Idempotent. */
  leave(): void;
}

/** Says under which condition connections may begin. */
export interface ConnectionGate {
  /** Undefined while it is not known. `revoke` is called when what began without a login must end, since there are users
   *  now. */
  admit(revoke: () => void): Promise<Admitted | undefined>;
}

/** The gate of a gateway. */
export function createConnectionGate(authenticator: Authenticator): ConnectionGate {
  return {
    async admit(revoke) {
      await authenticator.known();
      const { isRequired } = authenticator;
      if (isRequired === undefined) return undefined;
      if (isRequired) return { mustAuthenticate: true, leave() {} };
      return { mustAuthenticate: false, leave: following(authenticator, DEVELOPER_CALLER, revoke) };
    },
  };
}

/** A gate that asks nobody who they are. */
export const OPEN_CONNECTIONS: ConnectionGate = {
  admit: () => Promise.resolve({ mustAuthenticate: false, leave() {} }),
};
