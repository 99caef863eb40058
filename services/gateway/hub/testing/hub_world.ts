/** A hub with clients in memory: time passes when a test says so. */
import { Registry } from "prom-client";
import { DEVELOPER_CALLER, Identity } from "../../auth/identity.ts";
import { fromServiceError, GatewayError } from "../../problem.ts";
import type { Caller } from "../../stages.ts";
import { createManualTimer, type ManualTimer } from "../../testing/harness.ts";
import { principal } from "../../testing/fake_credentials.ts";
import { encodePrincipal } from "../../../runtime/principal.ts";
import type { ChannelName } from "../channel_name.ts";
import { hubConfigSchema } from "../config.ts";
import type { Connection } from "../connection.ts";
import type { Source, SourceEvent } from "../followed_channel.ts";
import type { Position } from "../history.ts";
import { Hub, type Relay } from "../hub.ts";
import { createHubMetrics } from "../metrics.ts";

/** A message of the hub as a client reads it. */
// deno-lint-ignore no-explicit-any -- what is in it, its type says
export type Received = Record<string, any>;

/** A client. */
export interface TestClient {
  readonly connection: Connection;
  readonly received: Received[];
  /** How it was closed. */
  readonly closed: { code: number; reason: string }[];
  /** Bytes that it has not taken, and whether what is sent stays among them. */
  readonly wire: { queued: number; isStuck: boolean };
  /** Sends a message and lets everything settle. */
  say(type: string, data?: unknown, id?: string): Promise<void>;
  /** What came since the last time, without what differs from run to run. */
  take(): Received[];
  last(): Received;
}

/** A stream's service in memory: events with offsets, of which the last ones are kept. */
export interface FakeStream extends Source {
  epoch: string;
  /** First offset that is kept. */
  kept: number;
  readonly events: SourceEvent[];
  /** Streams that are open, and how often one was opened. */
  open_: number;
  opened: number;
  failure: unknown;
  add(event?: string, changesAccess?: boolean): void;
  /** Ends all open streams, as when the service goes. */
  cut(): void;
}

/** The world. */
export interface HubWorld {
  readonly hub: Hub;
  readonly timer: ManualTimer;
  readonly registry: Registry;
  readonly tokens: Map<string, Caller>;
  /** Callers whose credential holds no more. */
  readonly revoked: Set<string>;
  /** `key of caller` that may not hear. */
  readonly refused: Set<string>;
  readonly streams: Map<string, FakeStream>;
  readonly operations: unknown[];
  nowMs: number;
  connect(caller?: Caller): TestClient;
  stream(name: string): FakeStream;
  /** Calls `revoke` of a user's connections. */
  revoke(username: string): void;
}

/** Lets everything that is under way settle. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

/** A user of a test. */
export function user(username: string): Caller {
  const found = principal({ username, sessionId: `session-of-${username}` });
  return new Identity(found, encodePrincipal(found), "session_token", {
    kind: "session_token",
    text: username,
  }, Infinity);
}

/** Creates a stream's service with nothing in it. */
export function createFakeStream(epoch = "e1"): FakeStream {
  const wakes = new Set<() => void>();
  let generation = 0;
  const stream: FakeStream = {
    epoch,
    kept: 1,
    events: [],
    open_: 0,
    opened: 0,
    failure: undefined,
    add(event = "changed", changesAccess = false) {
      const offset = stream.events.length + 1;
      stream.events.push({ epoch: stream.epoch, offset, event, data: `{"n":${offset}}`, changesAccess });
      for (const wake of [...wakes]) wake();
    },
    cut() {
      generation++;
      for (const wake of [...wakes]) wake();
    },
    // deno-lint-ignore require-await -- rejects as a service does
    async open(from, signal) {
      if (stream.failure !== undefined) throw stream.failure;
      const newest = stream.events.length;
      if (from !== undefined) {
        if (from.epoch !== stream.epoch || from.offset > newest || from.offset + 1 < stream.kept) {
          throw new GatewayError("out_of_range", "not kept");
        }
      }
      const position: Position = { epoch: stream.epoch, offset: from?.offset ?? newest };
      const born = generation;
      stream.opened++;
      async function* events(): AsyncGenerator<SourceEvent> {
        stream.open_++;
        try {
          for (let at = position.offset; !signal.aborted;) {
            if (generation !== born) return;
            if (at < stream.events.length) yield stream.events[at++]!;
            else {
              await new Promise<void>((resolve) => {
                const wake = () => {
                  wakes.delete(wake);
                  resolve();
                };
                wakes.add(wake);
                signal.addEventListener("abort", wake, { once: true });
              });
            }
          }
        } finally {
          stream.open_--;
        }
      }
      return { position, events: events() };
    },
  };
  return stream;
}

/** Creates the world. `config`: what `gateway.hub` has differently. */
export function createHubWorld(config: Record<string, unknown> = {}, relay?: Relay): HubWorld {
  const timer = createManualTimer();
  const registry = new Registry();
  const follows = new Map<(error: GatewayError) => void, Caller>();
  let ids = 0;
  const world: HubWorld = {
    timer,
    registry,
    tokens: new Map(),
    revoked: new Set(),
    refused: new Set(),
    streams: new Map(),
    operations: [],
    nowMs: 1_000_000,
    hub: new Hub({
      config: hubConfigSchema.parse(config),
      clock: { now: () => world.nowMs, wallMs: () => world.nowMs },
      timer,
      chance: () => 0.5,
      newId: () => `id-${++ids}`,
      formatTime: (ms) => `T${ms}`,
      authenticate(token) {
        const caller = world.tokens.get(token);
        if (caller === undefined) throw new GatewayError("unauthenticated", "the credential is not valid");
        return caller;
      },
      confirm(caller) {
        if (!world.revoked.has(caller.principal.username)) return Promise.resolve();
        return Promise.reject(new GatewayError("unauthenticated", "revoked"));
      },
      follow(caller, revoke) {
        follows.set(revoke, caller);
        return () => follows.delete(revoke);
      },
      services: {
        authorize(name, caller) {
          if (world.refused.has(`${name.text} ${caller.principal.username}`)) {
            throw new GatewayError("permission_denied", `${name.text} is not for you`);
          }
          return name.kind === "sessions" && name.rest === "*"
            ? `${name.text}\0${caller.principal.userId}`
            : name.text;
        },
        source: (name: ChannelName) => world.stream(name.text),
        operate(data) {
          world.operations.push(data);
          return Promise.resolve('{"success":true,"version":"2"}');
        },
      },
      relay,
      metrics: createHubMetrics(registry, () => {}),
      pause: (delayMs, signal) =>
        delayMs === 0 ? Promise.resolve() : new Promise((resolve) => {
          const cancel = timer.after(delayMs, resolve);
          signal.addEventListener("abort", () => {
            cancel();
            resolve();
          }, { once: true });
        }),
      toError: (error) => fromServiceError(error),
    }),
    connect(caller) {
      const received: Received[] = [];
      const closed: TestClient["closed"] = [];
      let taken = 0;
      const wire = { queued: 0, isStuck: false };
      const connection = world.hub.open({
        send(text) {
          received.push(JSON.parse(text));
          if (wire.isStuck) wire.queued += text.length;
        },
        get queuedBytes() {
          return wire.queued;
        },
        close: (code, reason) => void closed.push({ code, reason }),
      }, caller);
      return {
        received,
        closed,
        wire,
        connection,
        async say(type, data, id = "r") {
          connection.receive(JSON.stringify({ id, type, data }));
          await settle();
        },
        take() {
          const fresh = received.slice(taken);
          taken = received.length;
          return fresh.map(({ id: _id, timestamp: _timestamp, ...rest }) => rest);
        },
        last: () => received.at(-1)!,
      };
    },
    stream(name) {
      let found = world.streams.get(name);
      if (found === undefined) world.streams.set(name, found = createFakeStream());
      return found;
    },
    revoke(username) {
      for (const [revoke, caller] of [...follows]) {
        if (caller.principal.username === username) revoke(new GatewayError("unauthenticated", "revoked"));
      }
    },
  };
  return world;
}

/** Anybody on this machine. */
export const DEVELOPER = DEVELOPER_CALLER;
