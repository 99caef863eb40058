/** `aetherflow gateway …`: figures and circuit breakers. */
import { attempt, type AuthOptions, withApi } from "../auth/client.ts";
import { printLine } from "../output.ts";

/** What a gateway tells of itself, as JSON: 64-bit numbers are text. */
interface Stats {
  readonly worker: string;
  readonly uptimeSeconds: number;
  readonly connections: Readonly<Record<string, string>>;
  readonly requestsTotal: string;
  readonly activeRequests: string;
  readonly sessions: Readonly<Record<string, string>>;
  readonly targets: readonly Target[];
}

interface Target {
  readonly service: string;
  readonly name: string;
  readonly address: string;
  readonly state: string;
  readonly breaker: string;
  readonly outstanding: number;
  readonly transport?: {
    readonly smoothedRttMs: number;
    readonly congestionWindowBytes: string;
    readonly loss: number;
  };
}

interface Breaker {
  readonly name: string;
  readonly state: string;
  readonly requests: string;
  readonly errorRate: number;
  readonly trips: string;
  readonly retryAfterMs: number;
}

/** Prints what goes on at the gateway. */
export function stats(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const told = await api.call<Stats>("GET", "/api/v1/admin/stats");
      if (options.json) return printLine(JSON.stringify(told));
      printLine(`gateway\t${told.worker}, up ${Math.round(told.uptimeSeconds)} s`);
      printLine(`requests\t${told.requestsTotal}, ${told.activeRequests} under way`);
      printLine(`connections\t${counts(told.connections)}`);
      printLine(`sessions\t${counts(told.sessions)}`);
      for (const { service, name, address, state, breaker, outstanding, transport } of told.targets) {
        const path = transport === undefined ? "" : `\trtt ${transport.smoothedRttMs.toFixed(2)} ms\t` +
          `cwnd ${transport.congestionWindowBytes} B\tloss ${(transport.loss * 100).toFixed(2)} %`;
        printLine(
          `${service}\t${name}\t${address}\t${state}\tbreaker ${breaker}\t${outstanding} under way${path}`,
        );
      }
    })
  );
}

/** Prints the breakers, one a line. */
export function breakers(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { breakers } = await api.call<{ breakers: Breaker[] }>("GET", "/api/v1/admin/breakers");
      for (const breaker of breakers) {
        if (options.json) {
          printLine(JSON.stringify(breaker));
          continue;
        }
        const { name, state, requests, errorRate, trips, retryAfterMs } = breaker;
        const wait = retryAfterMs > 0 ? `\ttries again in ${retryAfterMs} ms` : "";
        printLine(
          `${name}\t${state}\t${requests} calls\t${
            (errorRate * 100).toFixed(0)
          } % failed\t${trips} trips${wait}`,
        );
      }
    })
  );
}

/** Closes a breaker, or all. */
export function reset(name: string | undefined, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const path = name === undefined ? "reset" : `${encodeURIComponent(name)}:reset`;
      const { reset } = await api.call<{ reset: number }>("POST", `/api/v1/admin/breakers/${path}`, {});
      printLine(options.json ? JSON.stringify({ reset }) : `closed ${reset} of the breakers that were not`);
    })
  );
}

function counts(byName: Readonly<Record<string, string>>): string {
  return Object.entries(byName).map(([name, count]) => `${name} ${count}`).join(", ") || "none";
}
