/** One client's view of one document, as a gateway's link has it:
 *
 *      joining ── joined ──► open ── close, refusal, loss of access ──► closed
 *         └── not let in ────────────────────────────────────────────────┘
 *
 *  What comes while it joins waits. */
import { Code } from "@connectrpc/connect";
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { ChannelInput, ChannelOutput } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { StateSyncError } from "../errors.ts";
import type { AccessLevel, Joined, LiveClient, LiveDocument } from "../live.ts";
import { codeOf } from "../rpc_errors.ts";

/** Inputs that may wait while a channel joins; a gateway sends none. */
export const WAITING_INPUTS_MAX = 64;
/** Questions of one channel under way; a client asks one at a time, and again when it was asked to. */
export const QUESTIONS_MAX = 16;

/** Settled updates after which they are let go of, at the latest. */
const CUT_AFTER = 1_024;

/** What a channel is made of. */
export interface ChannelDeps {
  readonly number: number;
  readonly principal: Principal | undefined;
  tell(output: ChannelOutput["output"]): void;
  saved(number: number): void;
  answer(updates: readonly Uint8Array[]): void;
  /** It has joined; returns the document's number on the link. */
  onJoined(live: LiveDocument): number;
  /** It is over; nothing is told after that. */
  onOver(live: LiveDocument | undefined): void;
  /** Something failed that should not. */
  onFault(error: unknown): void;
}

/** An update that is under way. */
interface Settling {
  readonly number: number;
  result: "none" | "saved" | "refused";
}

/** Outcomes of an update after which the client has to begin anew: it keeps its edits and offers them when it is back. */
const FOR_LATER: ReadonlySet<StateSyncError["kind"]> = new Set(["unavailable", "stopped"]);
/** Outcomes of an update after which the client is not trusted any more. */
const FOR_GOOD: ReadonlySet<StateSyncError["kind"]> = new Set(["hostile", "invalid"]);

/** A channel. */
export class Channel implements LiveClient {
  readonly principal: Principal | undefined;
  readonly #deps: ChannelDeps;
  #state: "joining" | "open" | "closed" = "joining";
  #waiting: ChannelInput["input"][] = [];
  #live: LiveDocument | undefined;
  #access: AccessLevel = "none";
  /** In the order of their numbers. Bounded by what a gateway lets a client have under way. */
  #settling: Settling[] = [];
  /** How many of them, from the first, are settled. */
  #settled = 0;
  #questions = 0;
  /** Whether an edit of this client was refused for want of rights, and may be offered again when it has them. */
  #hasDenied = false;

  constructor(deps: ChannelDeps) {
    this.#deps = deps;
    this.principal = deps.principal;
  }

  get isOpen(): boolean {
    return this.#state === "open";
  }

  /** Follows the joining. */
  async join(joining: Promise<Joined>): Promise<void> {
    let joined: Joined;
    try {
      joined = await joining;
    } catch (error) {
      this.#fail(error);
      return;
    }
    const { document, access } = joined;
    // Closed meanwhile: by its client, or with the link.
    if (this.#state === "closed") return document.leave(this);
    this.#state = "open";
    this.#live = document;
    if (this.#access === "none") this.#access = access;
    this.#deps.tell({
      case: "opened",
      value: {
        $typeName: "aetherflow.statesync.v1.ChannelOpened",
        document: this.#deps.onJoined(document),
        access: this.#access,
        stateVector: document.stateVector() as Uint8Array<ArrayBuffer>,
      },
    });
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const input of waiting) this.take(input);
  }

  /** Takes what the client says. */
  take(input: ChannelInput["input"]): void {
    if (this.#state === "closed") return;
    if (input.case === "close") this.close();
    else if (this.#state === "open") this.#takeNow(input);
    else if (this.#waiting.length < WAITING_INPUTS_MAX) this.#waiting.push(input);
    else this.fail(Code.ResourceExhausted, "too much was sent before the document was open");
  }

  onAccess(access: AccessLevel): void {
    const before = this.#access;
    this.#access = access;
    if (this.#state !== "open" || access === before) return;
    this.#deps.tell({ case: "access", value: access });
    if (this.#hasDenied && access !== "none" && access !== "read") this.onAskAgain();
  }

  onAskAgain(): void {
    if (this.#state !== "open") return;
    this.#hasDenied = false;
    this.#deps.tell({ case: "ask", value: this.#live!.stateVector() as Uint8Array<ArrayBuffer> });
  }

  onClosed(error: Error): void {
    this.#fail(error);
  }

  /** Ends it and says why. Idempotent. */
  fail(code: Code, reason: string): void {
    if (this.#state === "closed") return;
    this.#deps.tell({
      case: "closed",
      value: { $typeName: "aetherflow.statesync.v1.ChannelClosed", code, reason },
    });
    this.close();
  }

  /** Ends it. Idempotent. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#waiting = [];
    this.#settling = [];
    this.#live?.leave(this);
    this.#deps.onOver(this.#live);
  }

  #takeNow(input: ChannelInput["input"]): void {
    switch (input.case) {
      case "stateVector":
        void this.#answer(input.value);
        break;
      case "update":
        this.#update(input.value.number, input.value.update);
        break;
      default:
        this.fail(Code.InvalidArgument, "the channel is open already, or was told nothing");
    }
  }

  async #answer(stateVector: Uint8Array): Promise<void> {
    if (this.#questions >= QUESTIONS_MAX) {
      return this.fail(Code.ResourceExhausted, `more than ${QUESTIONS_MAX} questions at once`);
    }
    this.#questions++;
    try {
      const updates = await this.#live!.answer(stateVector);
      if (this.isOpen) this.#deps.answer(updates.length === 0 ? NOTHING_NEW : updates);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#questions--;
    }
  }

  #update(number: number, update: Uint8Array): void {
    const settling: Settling = { number, result: "none" };
    this.#settling.push(settling);
    this.#live!.update(this, update).then(
      () => this.#settle(settling, "saved"),
      (error) => {
        if (this.#state === "closed") return;
        if (!(error instanceof StateSyncError) || FOR_GOOD.has(error.kind) || FOR_LATER.has(error.kind)) {
          return this.#fail(error);
        }
        this.#refuse(settling, error);
      },
    );
  }

  #refuse(settling: Settling, error: StateSyncError): void {
    if (error.kind === "denied") this.#hasDenied = true;
    this.#deps.tell({
      case: "refused",
      value: {
        $typeName: "aetherflow.statesync.v1.RefusedUpdate",
        number: settling.number,
        code: codeOf(error),
        reason: error.message,
      },
    });
    this.#settle(settling, "refused");
    if (error.kind === "missing") this.onAskAgain();
  }

  #settle(settling: Settling, result: "saved" | "refused"): void {
    if (this.#state === "closed") return;
    settling.result = result;
    let saved = 0;
    for (;;) {
      const first = this.#settling[this.#settled];
      if (first === undefined || first.result === "none") break;
      if (first.result === "saved") saved = first.number;
      this.#settled++;
    }
    // Cut now and then: cutting each one off would move all that are behind it.
    if (this.#settled >= CUT_AFTER || this.#settled === this.#settling.length) {
      this.#settling.splice(0, this.#settled);
      this.#settled = 0;
    }
    if (saved > 0) this.#deps.saved(saved);
  }

  #fail(error: unknown): void {
    if (error instanceof StateSyncError) return this.fail(codeOf(error), error.message);
    this.#deps.onFault(error);
    this.fail(Code.Internal, "documents: a fault of the service");
  }
}

/** The update (v1) that changes nothing. */
const NOTHING_NEW: readonly Uint8Array[] = [Uint8Array.of(0, 0)];
