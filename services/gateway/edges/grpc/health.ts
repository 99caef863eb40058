/** grpc.health.v1 from what the host says of the workers. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Status,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
} from "$proto/grpc/health/v1/health_pb.ts";
import { Code } from "@connectrpc/connect";
import type { Readiness, ReadinessProbe } from "../../readiness.ts";
import type { Exposure } from "../../routes.ts";
import type { Timer } from "../../timer.ts";
import { type LocalAnswers, type LocalService, startLocalCall } from "./local_call.ts";
import type { LocalMethod } from "./method.ts";

/** How often a watch looks again, in milliseconds. */
const WATCH_INTERVAL_MS = 1_000;

/** What health is made of. */
export interface HealthDeps {
  readonly exposures: readonly Pick<Exposure, "service" | "peer">[];
  readonly readiness: ReadinessProbe;
  readonly timer: Timer;
}

/** Creates the service. "" is the server as a whole; a service serves while its worker does. */
export function createHealth(deps: HealthDeps): LocalMethod[] {
  // Worker names by service; several workers of one service are `gateway-1` and so on, kv has one.
  const peers = new Map(deps.exposures.map(({ service, peer }) => [service.typeName, peer]));

  function statusOf(service: string, readiness: Readiness): Status | undefined {
    if (service === "") return serving(readiness.ready);
    const peer = peers.get(service);
    if (peer === undefined) return undefined;
    return serving(readiness.workers.some(({ name, state }) => name === peer && state === "ready"));
  }

  function check(answers: LocalAnswers): LocalService {
    return {
      async onRequest(message) {
        const service = read(message, answers);
        if (service === undefined) return;
        const status = statusOf(service, await deps.readiness.read());
        if (status === undefined) return answers.fail(Code.NotFound, "unknown service");
        answers.answer(encode(status));
        answers.succeed();
      },
      onRequestEnd() {},
      onClose() {},
    };
  }

  function list(answers: LocalAnswers): LocalService {
    return {
      async onRequest() {
        const readiness = await deps.readiness.read();
        const statuses = Object.fromEntries(
          ["", ...peers.keys()].map((name) => [name, { status: statusOf(name, readiness)! }]),
        );
        answers.answer(toBinary(HealthListResponseSchema, create(HealthListResponseSchema, { statuses })));
        answers.succeed();
      },
      onRequestEnd() {},
      onClose() {},
    };
  }

  function watch(answers: LocalAnswers): LocalService {
    let cancel: (() => void) | undefined;
    let isOver = false;
    let told: Status | undefined;
    async function look(service: string): Promise<void> {
      const status = statusOf(service, await deps.readiness.read()) ?? Status.SERVICE_UNKNOWN;
      if (isOver) return;
      if (status !== told) answers.answer(encode(told = status));
      cancel = deps.timer.after(WATCH_INTERVAL_MS, () => void look(service));
    }
    return {
      onRequest(message) {
        const service = read(message, answers);
        if (service !== undefined) look(service);
      },
      onRequestEnd() {},
      onClose() {
        isOver = true;
        cancel?.();
      },
    };
  }

  return [
    { rpc: Health.method.check, start: (handler, options) => startLocalCall(handler, options, check) },
    { rpc: Health.method.list, start: (handler, options) => startLocalCall(handler, options, list) },
    { rpc: Health.method.watch, start: (handler, options) => startLocalCall(handler, options, watch) },
  ];
}

function serving(is: boolean): Status {
  return is ? Status.SERVING : Status.NOT_SERVING;
}

function encode(status: Status): Uint8Array {
  return toBinary(HealthCheckResponseSchema, create(HealthCheckResponseSchema, { status }));
}

function read(message: Uint8Array, answers: LocalAnswers): string | undefined {
  try {
    return fromBinary(HealthCheckRequestSchema, message).service;
  } catch {
    // Said to the caller, whose mistake it is.
    answers.fail(Code.Internal, "grpc: error unmarshalling request");
    return undefined;
  }
}
