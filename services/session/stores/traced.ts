/** A store whose operations are spans below the call that asks for them, until what they change is kept. */
import { SpanStatusCode } from "@opentelemetry/api";
import { startInnerSpan } from "../../runtime/tracing.ts";
import type { Session } from "../session.ts";
import type {
  Awaitable,
  CreateResult,
  Hidden,
  NewSession,
  SessionCounts,
  SessionFilter,
  SessionPage,
  SessionStore,
  SessionStoreStats,
} from "../store.ts";

/** The same store, with a span around each operation that belongs to a trace. `engine` names it in them. */
export function tracedStore(store: SessionStore, engine: string): SessionStore {
  return new TracedStore(store, engine);
}

class TracedStore implements SessionStore {
  readonly #store: SessionStore;
  readonly #engine: string;

  constructor(store: SessionStore, engine: string) {
    this.#store = store;
    this.#engine = engine;
  }

  create(item: NewSession, nowMs: number): Awaitable<CreateResult> {
    return this.#traced("create", () => this.#store.create(item, nowMs));
  }

  get(id: string, nowMs: number): Awaitable<Session | undefined> {
    return this.#traced("get", () => this.#store.get(id, nowMs));
  }

  getByToken(tokenHash: string, nowMs: number): Awaitable<Session | undefined> {
    return this.#traced("getByToken", () => this.#store.getByToken(tokenHash, nowMs));
  }

  use(id: string, nowMs: number): Awaitable<Session | undefined> {
    return this.#traced("use", () => this.#store.use(id, nowMs));
  }

  useByToken(tokenHash: string, nowMs: number): Awaitable<Session | undefined> {
    return this.#traced("useByToken", () => this.#store.useByToken(tokenHash, nowMs));
  }

  update(id: string, nowMs: number, change: (session: Session) => Session): Awaitable<Session | undefined> {
    return this.#traced("update", () => this.#store.update(id, nowMs, change));
  }

  end(id: string, nowMs: number, reason: string): Awaitable<boolean> {
    return this.#traced("end", () => this.#store.end(id, nowMs, reason));
  }

  revokeUser(userId: string, nowMs: number, reason: string, exceptId: string | undefined): Awaitable<number> {
    return this.#traced("revokeUser", () => this.#store.revokeUser(userId, nowMs, reason, exceptId));
  }

  userEpoch(userId: string): Awaitable<number> {
    return this.#traced("userEpoch", () => this.#store.userEpoch(userId));
  }

  list(filter: SessionFilter, after: string, limit: number, nowMs: number): Awaitable<SessionPage> {
    return this.#traced("list", () => this.#store.list(filter, after, limit, nowMs));
  }

  count(userId: string | undefined, nowMs: number): Awaitable<SessionCounts> {
    return this.#traced("count", () => this.#store.count(userId, nowMs));
  }

  expire(nowMs: number, limit: number): Awaitable<boolean> {
    return this.#traced("expire", () => this.#store.expire(nowMs, limit));
  }

  readHidden(id: string, nowMs: number): Awaitable<Hidden | undefined> {
    return this.#traced("readHidden", () => this.#store.readHidden(id, nowMs));
  }

  compareAndSetHidden(id: string, version: number, bytes: Uint8Array, nowMs: number): Awaitable<boolean> {
    return this.#traced(
      "compareAndSetHidden",
      () => this.#store.compareAndSetHidden(id, version, bytes, nowMs),
    );
  }

  get onChange(): SessionStore["onChange"] {
    return this.#store.onChange;
  }

  set onChange(listener: SessionStore["onChange"]) {
    this.#store.onChange = listener;
  }

  get onKept(): () => void {
    return this.#store.onKept;
  }

  set onKept(listener: () => void) {
    this.#store.onKept = listener;
  }

  get isKept(): boolean {
    return this.#store.isKept;
  }

  get failure(): Error | undefined {
    return this.#store.failure;
  }

  stats(): SessionStoreStats {
    return this.#store.stats();
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #traced<T>(operation: string, run: () => Awaitable<T>): Awaitable<T> {
    const span = startInnerSpan(`session store ${operation}`, {
      "db.system.name": this.#engine,
      "db.operation.name": operation,
    });
    if (span === undefined) return run();
    const fail = (error: unknown): never => {
      const { code, message } = error as { code?: unknown; message?: unknown };
      span.setAttribute("error.type", String(code ?? "Error"));
      span.setStatus({ code: SpanStatusCode.ERROR, message: String(message) });
      span.end();
      throw error;
    };
    let answer: Awaitable<T>;
    try {
      answer = run();
    } catch (error) {
      return fail(error);
    }
    if (!(answer instanceof Promise)) {
      span.end();
      return answer;
    }
    return answer.then((value) => {
      span.end();
      return value;
    }, fail);
  }
}
