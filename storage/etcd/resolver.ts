/** Leaves names to the connection. The gRPC library resolves a name itself and connects to the addresses, which a worker that
 *  may reach `name:port` only may not; given the name as if it were an address, the platform resolves it as it connects,
 *  each time anew. */
import "./no_environment.ts";
import { experimental } from "@grpc/grpc-js";

type ResolverConstructor = Parameters<typeof experimental.registerResolver>[1];
type Listener = ConstructorParameters<ResolverConstructor>[1];
type Target = ConstructorParameters<ResolverConstructor>[0];

const SCHEME = "aetherflow-endpoint";
const PORT_DEFAULT = 2_379;

class EndpointResolver {
  readonly #listener: Listener;
  readonly #target: Target;
  #hasAnswered = false;
  #isDestroyed = false;

  constructor(target: Target, listener: Listener) {
    this.#target = target;
    this.#listener = listener;
  }

  /** Answers once: the answer never changes, and each one makes the library try and ask again at once. */
  updateResolution(): void {
    if (this.#hasAnswered) return;
    this.#hasAnswered = true;
    // The library does not expect the answer before it has returned from asking.
    queueMicrotask(() => {
      if (this.#isDestroyed) return;
      const { host, port } = experimental.splitHostPort(this.#target.path)!;
      const addresses = [{ host, port: port ?? PORT_DEFAULT }];
      this.#listener(experimental.statusOrFromValue([{ addresses }]), {}, null, "");
    });
  }

  destroy(): void {
    this.#isDestroyed = true;
  }

  static getDefaultAuthority(target: Target): string {
    return target.path;
  }
}

experimental.registerResolver(SCHEME, EndpointResolver);

/** What the library is told to connect to for `host:port`. */
export function targetOf(address: string): string {
  return `${SCHEME}:${address}`;
}
