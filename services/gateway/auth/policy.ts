/** What the session worker says of credentials, followed: whether they are needed, and which keys verify tokens. */
import { create } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import {
  CredentialService,
  WatchPolicyRequestSchema,
  type WatchPolicyResponse,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { pause, type Timer } from "../timer.ts";

/** Pauses before the policy is asked for again, in milliseconds; they double. */
const REOPEN_MIN_MS = 50;
const REOPEN_MAX_MS = 2_000;
/** How long one asking for the policy may take, in milliseconds. */
const ANSWER_MS = 5_000;

/** What the follower is made of. */
export interface PolicyDeps {
  /** The transport to the session worker. */
  transport(): Transport;
  readonly timer: Timer;
  /** The policy came, for the first time or anew. */
  onPolicy(policy: WatchPolicyResponse): void;
  readonly log: { info(message: string, fields?: Record<string, unknown>): void };
}

/** One open stream of the policy. */
interface Opened {
  readonly abort: AbortController;
}

/** Follows the policy from its creation until it is closed. The last one stays in force while the worker is away. */
export class PolicyFollower {
  /** Undefined until the worker has answered once. */
  current: WatchPolicyResponse | undefined;
  readonly #deps: PolicyDeps;
  readonly #closing = new AbortController();
  readonly #known = Promise.withResolvers<void>();
  /** The stream whose policy is in force. */
  #active: Opened | undefined;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(deps: PolicyDeps) {
    this.#deps = deps;
    this.#reopen();
  }

  /** Resolves when there is a policy, or after `waitMs`. */
  async known(waitMs: number): Promise<void> {
    if (this.current !== undefined) return;
    const waited = new AbortController();
    await Promise.race([this.#known.promise, pause(this.#deps.timer, waitMs, waited.signal)]);
    waited.abort();
  }

  /** Asks for the present policy: what is in force afterwards was true after this was called.
   *  Callers of one moment share one asking. Never rejects; the stream tells of changes in any case. */
  refresh(): Promise<void> {
    return this.#next ??= this.#afterRunning();
  }

  /** Ends it. */
  close(): void {
    this.#closing.abort();
    this.#active?.abort.abort();
    this.#known.resolve();
  }

  async #afterRunning(): Promise<void> {
    await this.#running; // whoever asked before may have been answered before
    this.#next = undefined;
    this.#running = this.#open().then(() => {}, () => {});
    await this.#running;
    this.#running = undefined;
  }

  /** Opens a stream until one is open. */
  async #reopen(): Promise<void> {
    const { signal } = this.#closing;
    for (let pauseMs = REOPEN_MIN_MS; !signal.aborted; pauseMs = Math.min(pauseMs * 2, REOPEN_MAX_MS)) {
      try {
        return await this.#open();
      } catch (error) {
        if (signal.aborted) return;
        this.#deps.log.info("the policy of credentials could not be read, it is asked for again", {
          error: String(error),
          pauseMs,
        });
      }
      await pause(this.#deps.timer, pauseMs, signal);
    }
  }

  /** Opens a stream; resolves with its first answer, and has it followed in place of the one before. */
  async #open(): Promise<void> {
    const opened: Opened = { abort: new AbortController() };
    const { signal } = opened.abort;
    const cancel = this.#deps.timer.after(ANSWER_MS, () => opened.abort.abort());
    try {
      const call = await this.#deps.transport()
        .stream(CredentialService.method.watchPolicy, signal, undefined, undefined, oneRequest());
      const answers = call.message[Symbol.asyncIterator]();
      const first = await answers.next();
      if (first.done === true) throw new Error("the stream ended before it began");
      if (this.#closing.signal.aborted) return opened.abort.abort();
      this.#active?.abort.abort();
      this.#active = opened;
      this.#take(first.value);
      this.#follow(opened, answers);
    } finally {
      cancel();
    }
  }

  async #follow(opened: Opened, answers: AsyncIterator<WatchPolicyResponse>): Promise<void> {
    try {
      for (let next = await answers.next(); next.done !== true; next = await answers.next()) {
        if (this.#active !== opened) return;
        this.#take(next.value);
      }
    } catch {
      // The worker has gone, or the stream was replaced: what follows is the same as at its end.
    }
    if (this.#active !== opened || this.#closing.signal.aborted) return;
    this.#active = undefined;
    await this.#reopen();
  }

  #take(policy: WatchPolicyResponse): void {
    this.current = policy;
    this.#deps.onPolicy(policy);
    this.#known.resolve();
  }
}

async function* oneRequest() {
  yield create(WatchPolicyRequestSchema);
}
