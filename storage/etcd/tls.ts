/** TLS to endpoints that are addresses: the gRPC library's own credentials name the server to itself by what it connects to,
 *  and an address is not a name that TLS can ask for. */
import "./no_environment.ts";
import { isIP, type Socket } from "node:net";
import { connect } from "node:tls";
import * as grpc from "@grpc/grpc-js";

/** Certificates as PEM texts. */
export interface EtcdTls {
  /** Authorities that the servers' certificates must come from; the platform's when left out. */
  readonly ca?: string;
  /** The client's certificate and key, for clusters that ask for one. */
  readonly cert?: string;
  readonly key?: string;
  /** Name the servers' certificates must carry, when it is not the endpoint's. */
  readonly serverName?: string;
}

type Connector = ReturnType<grpc.ChannelCredentials["_createSecureConnector"]>;

/** Credentials for the channel to `hostname`, in brackets if it is an IPv6 address. */
export class TlsCredentials extends grpc.ChannelCredentials {
  readonly #tls: EtcdTls;
  readonly #host: string;

  constructor(tls: EtcdTls, hostname: string) {
    super();
    this.#tls = tls;
    this.#host = tls.serverName ?? hostname.replace(/^\[|\]$/g, "");
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: grpc.ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(
    _target: unknown,
    _options: unknown,
    callCredentials?: grpc.CallCredentials,
  ): Connector {
    const { ca, cert, key } = this.#tls;
    const options = {
      host: this.#host,
      ALPNProtocols: ["h2"],
      ...(isIP(this.#host) === 0 ? { servername: this.#host } : {}),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    };
    return {
      connect: (socket: Socket) =>
        new Promise((resolve, reject) => {
          const secured = connect({ ...options, socket }, () => {
            if (secured.authorized) resolve({ socket: secured, secure: true });
            else reject(secured.authorizationError);
          });
          secured.on("error", reject);
        }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials ?? grpc.credentials.createEmpty(),
      destroy() {},
    };
  }
}
