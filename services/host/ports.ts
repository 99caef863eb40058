/** Which ports the run uses: fixed ones are tried, free ones found, before any worker starts, so that permissions can name
 *  them and a restarted worker comes back where it was. */
import type { Config } from "./config.ts";
import { EXIT, HostError } from "./exit_code.ts";
import { type EdgeName, EDGES, hostAndPort, listWorkers, type Ports, type WorkerPlan } from "./plan.ts";

const RELEASE_POLL_MS = 5;

/** Finds the ports. @throws {HostError} if one is taken or may not be used. */
export function resolvePorts(config: Config): Ports {
  // Free ports stay bound until all are known, so that none is found twice.
  using held = new DisposableStack();
  const count = listWorkers(config).length + 1;
  const quantum = Array.from({ length: count }, (_, i) => {
    const port = config.quantum.basePort === 0 ? 0 : config.quantum.basePort + i;
    return tryPort("quantum.basePort", { hostname: config.cluster.host, port }, (address) => {
      const socket = bindUdp(address);
      held.defer(() => socket.close());
      return (socket.addr as Deno.NetAddr).port;
    });
  });
  const tcp = Object.fromEntries(EDGES.map((edge) => {
    // Without a gateway here nobody listens.
    if (!config.services.includes("gateway")) return [edge, 0];
    const { host: hostname, port } = config.gateway[edge];
    const found = tryPort(`gateway.${edge}.port`, { hostname, port }, (address) => {
      const listener = Deno.listen(address);
      held.defer(() => listener.close());
      return (listener.addr as Deno.NetAddr).port;
    });
    return [edge, found];
  })) as Record<EdgeName, number>;
  return { quantum, tcp };
}

/** Waits until the ports of an ended worker are free; false if they are not within `deadlineMs`. A thread's sockets close
 *  when its current turn is over: at once for an idle one, never for one that loops or blocks. */
export async function portsFree(
  plan: Pick<WorkerPlan, "listen" | "tcp">,
  deadlineMs: number,
): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!isFree(plan)) {
    if (performance.now() >= deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, RELEASE_POLL_MS));
  }
  return true;
}

function isFree(plan: Pick<WorkerPlan, "listen" | "tcp">): boolean {
  try {
    bindUdp(plan.listen).close();
    for (const { hostname, port, shared } of plan.tcp) if (!shared) Deno.listen({ hostname, port }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return false;
    throw error;
  }
}

function bindUdp({ hostname, port }: { hostname: string; port: number }): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname, port });
}

function tryPort(
  key: string,
  address: { hostname: string; port: number },
  bind: (address: { hostname: string; port: number }) => number,
): number {
  try {
    return bind(address);
  } catch (error) {
    const where = hostAndPort(address);
    if (error instanceof Deno.errors.AddrInUse) {
      throw new HostError(
        `port ${where} is taken by another process; end it, or choose another with --set ${key}=PORT (0 is any free one)`,
        EXIT.addressInUse,
        { cause: error },
      );
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new HostError(`cannot listen on ${where} (${key}): ${reason}`, EXIT.config, { cause: error });
  }
}
