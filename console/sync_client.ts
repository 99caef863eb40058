/** Synchronises one document over a WebSocket, in the framing of Hocuspocus:
 *
 *      offline ─ dial ─► connecting ─ open ─► handshake ─ server's state ─► online
 *         ▲                   │                   │                           │
 *         └──── back-off ◄────┴───────────────────┴────── socket closed ◄─────┘
 *
 *  Edits made offline stay in the document and are sent whole on return. The server acknowledges each message once it is
 *  on disk, in the order they came, so that `unsaved` is false only when everything made here is on disk. */
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as Y from "yjs";
import {
  applyAwarenessUpdate,
  Awareness,
  encodeAwarenessUpdate,
  removeAwarenessStates,
} from "y-protocols/awareness";

/** Kinds of messages; they come behind the document's name. */
const MESSAGE = {
  sync: 0,
  awareness: 1,
  auth: 2,
  queryAwareness: 3,
  syncReply: 4,
  close: 7,
  syncStatus: 8,
} as const;
/** Kinds within `sync`. */
const SYNC = { step1: 0, step2: 1, update: 2 } as const;
/** Kinds within `auth`. */
const AUTH = { token: 0, denied: 1, authenticated: 2 } as const;
/** A frame of one byte without a name: the server asks whether we live. */
const PING = 9;
const PONG = 10;

/** How long edits are gathered into one message, in ms: what is typed in a frame or two is one. */
const GATHER_MS = 25;
/** Messages on their way to disk. More edits are gathered meanwhile, so that a slow server costs no memory. */
const IN_FLIGHT_MAX = 32;
/** Bounds of the pause before the next attempt to connect, in ms; it is drawn at random below a doubling limit. */
const RETRY_MIN_MS = 300;
const RETRY_MAX_MS = 10_000;
/** Silence after which the server is asked for a sign of life, and after which it counts as gone, in ms. */
const PROBE_AFTER_MS = 20_000;
const GONE_AFTER_MS = 35_000;
/** How often cursors are sent at most, in ms. */
const AWARENESS_MS = 60;

/** Close codes 4400 to 4499 are for good, as HTTP's 4xx are. */
const isFinal = (code: number) => code >= 4400 && code < 4500;
const UNAUTHENTICATED = 4401;

/** Where a document is. */
export interface SyncState {
  /** Whether the server is there and has told its state on this connection. */
  readonly isOnline: boolean;
  /** Whether the server's state was here once: before, the document only looks empty. */
  readonly isLoaded: boolean;
  /** Whether something made here is not known to be on disk. */
  readonly isUnsaved: boolean;
  /** Whether the server refused the last edits, because of a lock or of missing rights. */
  readonly isRefused: boolean;
  /** Whether the server takes no edits of this user. */
  readonly isReadOnly: boolean;
  /** Why the document cannot be synchronised at all; undefined while it can. */
  readonly denied: string | undefined;
}

/** What it takes. */
export interface SyncOptions {
  readonly documentId: string;
  /** `wss://host/api/v1/sync` */
  readonly url: string;
  onState(state: SyncState): void;
  /** Renews what shows who we are, before the next attempt. */
  authenticate(): Promise<void>;
}

/** One synchronised document. */
export class SyncClient {
  readonly doc = new Y.Doc();
  readonly awareness = new Awareness(this.doc);
  readonly #options: SyncOptions;
  #state: SyncState = {
    isOnline: false,
    isLoaded: false,
    isUnsaved: false,
    isRefused: false,
    isReadOnly: false,
    denied: undefined,
  };
  #socket: WebSocket | undefined;
  #attempts = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #probeTimer: ReturnType<typeof setInterval>;
  #heardAtMs = 0;
  #isClosed = false;

  /** Edits made here, and how many of them are on disk. */
  #edits = 0;
  #savedEdits = 0;
  /** Messages that the server has not acknowledged, oldest first: the edits made when each was sent, and whether it had
   *  all that the server lacked. */
  #inFlight: { readonly edits: number; readonly isWhole: boolean }[] = [];
  /** Updates that were not sent yet. */
  #gathered: Uint8Array[] = [];
  #gatherTimer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the server has asked on this connection, and was told what it lacked: only then are single updates sent. */
  #hasTold = false;
  #awarenessTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: SyncOptions) {
    this.#options = options;
    this.doc.on("update", this.#onUpdate);
    this.awareness.on("update", this.#onAwareness);
    addEventListener("online", this.#redial);
    addEventListener("offline", this.#drop);
    addEventListener("pagehide", this.#leave);
    this.#probeTimer = setInterval(() => this.#probe(), PROBE_AFTER_MS / 4);
    this.#dial();
  }

  get state(): SyncState {
    return this.#state;
  }

  /** Applies edits that were made here before and are not known to be on disk. */
  restore(update: Uint8Array): void {
    Y.applyUpdate(this.doc, update, "draft");
  }

  /** Leaves the document. */
  close(): void {
    if (this.#isClosed) return;
    this.#leave();
    this.#isClosed = true;
    this.#flush();
    removeEventListener("online", this.#redial);
    removeEventListener("offline", this.#drop);
    removeEventListener("pagehide", this.#leave);
    clearTimeout(this.#retryTimer);
    clearInterval(this.#probeTimer);
    clearTimeout(this.#awarenessTimer);
    clearTimeout(this.#gatherTimer);
    this.#socket?.close(1000);
    this.awareness.destroy();
    this.doc.destroy();
  }

  // ---- connection

  #dial(): void {
    if (this.#isClosed || this.#socket !== undefined || this.#state.denied !== undefined) return;
    const socket = new WebSocket(this.#options.url);
    this.#socket = socket;
    let isOpen = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      isOpen = true;
      this.#heardAtMs = performance.now();
      this.#begin();
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket && data instanceof ArrayBuffer) this.#receive(new Uint8Array(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      this.#lost();
      if (isFinal(code) && code !== UNAUTHENTICATED) return this.#deny(reason);
      // A handshake that was refused says nothing of why: it may be that the cookie has run out.
      if (!isOpen || code === UNAUTHENTICATED) this.#retry(() => this.#options.authenticate());
      else this.#retry(() => Promise.resolve());
    };
  }

  #retry(before: () => Promise<void>): void {
    if (this.#isClosed) return;
    const limit = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(this.#attempts++, 10));
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(
      () => before().finally(() => this.#dial()),
      limit * (0.5 + Math.random() / 2),
    );
  }

  /** The network is back: no reason to wait any longer. */
  #redial = (): void => {
    this.#attempts = 0;
    clearTimeout(this.#retryTimer);
    this.#dial();
  };

  /** The network is gone: the socket would notice much later. */
  #drop = (): void => {
    const socket = this.#socket;
    if (socket === undefined) return;
    this.#lost();
    socket.close();
    this.#retry(() => Promise.resolve());
  };

  #lost(): void {
    this.#socket = undefined;
    this.#inFlight = [];
    this.#gathered = [];
    this.#hasTold = false;
    const others = [...this.awareness.getStates().keys()].filter((id) => id !== this.doc.clientID);
    removeAwarenessStates(this.awareness, others, this);
    this.#update({ isOnline: false });
  }

  #deny(reason: string): void {
    this.#update({ denied: reason === "" ? "This document cannot be opened." : reason });
    const socket = this.#socket;
    if (socket === undefined) return;
    this.#lost();
    socket.close(1000);
  }

  #probe(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > GONE_AFTER_MS) this.#drop();
    else if (silentMs > PROBE_AFTER_MS) this.#send(MESSAGE.queryAwareness, () => {});
  }

  #leave = (): void => {
    removeAwarenessStates(this.awareness, [this.doc.clientID], "leave");
    this.#sendAwareness([this.doc.clientID]);
    this.#flush();
  };

  // ---- out

  #begin(): void {
    // No token: the handshake's cookie shows who we are.
    this.#send(MESSAGE.auth, (encoder) => {
      encoding.writeVarUint(encoder, AUTH.token);
      encoding.writeVarString(encoder, "");
    });
    this.#send(MESSAGE.sync, (encoder) => {
      encoding.writeVarUint(encoder, SYNC.step1);
      encoding.writeVarUint8Array(encoder, Y.encodeStateVector(this.doc));
    });
    this.#sendAwareness([this.doc.clientID]);
  }

  #send(kind: number, write: (encoder: encoding.Encoder) => void): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const encoder = encoding.createEncoder();
    encoding.writeVarString(encoder, this.#options.documentId);
    encoding.writeVarUint(encoder, kind);
    write(encoder);
    this.#socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
  }

  #onUpdate = (update: Uint8Array, origin: unknown): void => {
    if (origin === this) return;
    this.#edits++;
    if (this.#hasTold) {
      this.#gathered.push(update);
      this.#gatherTimer ??= setTimeout(() => this.#flush(), GATHER_MS);
    }
    this.#update({ isUnsaved: true });
  };

  #flush(): void {
    clearTimeout(this.#gatherTimer);
    this.#gatherTimer = undefined;
    if (!this.#hasTold || this.#gathered.length === 0 || this.#inFlight.length >= IN_FLIGHT_MAX) return;
    const update = this.#gathered.length === 1 ? this.#gathered[0]! : Y.mergeUpdates(this.#gathered);
    this.#gathered = [];
    this.#sendUpdate(SYNC.update, update, false);
  }

  #sendUpdate(kind: number, update: Uint8Array, isWhole: boolean): void {
    this.#inFlight.push({ edits: this.#edits, isWhole });
    this.#send(MESSAGE.sync, (encoder) => {
      encoding.writeVarUint(encoder, kind);
      encoding.writeVarUint8Array(encoder, update);
    });
  }

  #onAwareness = (_change: unknown, origin: unknown): void => {
    if (origin === this || origin === "leave" || this.#isClosed) return;
    this.#awarenessTimer ??= setTimeout(() => {
      this.#awarenessTimer = undefined;
      this.#sendAwareness([this.doc.clientID]);
    }, AWARENESS_MS);
  };

  #sendAwareness(clients: number[]): void {
    if (!this.awareness.meta.has(this.doc.clientID)) return;
    this.#send(MESSAGE.awareness, (encoder) => {
      encoding.writeVarUint8Array(encoder, encodeAwarenessUpdate(this.awareness, clients));
    });
  }

  // ---- in

  #receive(frame: Uint8Array): void {
    this.#heardAtMs = performance.now();
    if (frame.length === 1) {
      if (frame[0] === PING) this.#socket?.send(Uint8Array.of(PONG));
      return;
    }
    const decoder = decoding.createDecoder(frame);
    if (decoding.readVarString(decoder) !== this.#options.documentId) return;
    switch (decoding.readVarUint(decoder)) {
      case MESSAGE.sync:
      case MESSAGE.syncReply:
        return this.#receiveSync(decoder);
      case MESSAGE.awareness:
        return applyAwarenessUpdate(this.awareness, decoding.readVarUint8Array(decoder), this);
      case MESSAGE.auth:
        return this.#receiveAuth(decoder);
      case MESSAGE.syncStatus:
        return this.#acknowledged(decoding.readVarInt(decoder) === 1);
      case MESSAGE.queryAwareness:
        return this.#sendAwareness([this.doc.clientID]);
      case MESSAGE.close:
        return this.#drop();
    }
  }

  #receiveAuth(decoder: decoding.Decoder): void {
    switch (decoding.readVarUint(decoder)) {
      case AUTH.denied:
        return this.#deny(decoding.readVarString(decoder));
      case AUTH.authenticated:
        this.#update({ isReadOnly: decoding.readVarString(decoder) === "readonly" });
    }
  }

  #receiveSync(decoder: decoding.Decoder): void {
    const kind = decoding.readVarUint(decoder);
    const bytes = decoding.readVarUint8Array(decoder);
    if (kind !== SYNC.step1) {
      Y.applyUpdate(this.doc, bytes, this);
      if (kind === SYNC.step2) {
        this.#attempts = 0;
        this.#update({ isOnline: true, isLoaded: true });
      }
      return;
    }
    // What is gathered is in it.
    this.#gathered = [];
    this.#hasTold = true;
    this.#sendUpdate(SYNC.step2, Y.encodeStateAsUpdate(this.doc, bytes), true);
  }

  #acknowledged(isSaved: boolean): void {
    const message = this.#inFlight.shift();
    if (message === undefined) return;
    let { isRefused } = this.#state;
    if (!isSaved) isRefused = true;
    else if (message.isWhole) isRefused = false;
    // Behind what was refused nothing is whole: the server asks anew when it may take it.
    if (!isRefused) this.#savedEdits = Math.max(this.#savedEdits, message.edits);
    this.#update({ isRefused, isUnsaved: this.#edits > this.#savedEdits });
    if (this.#gathered.length > 0) this.#gatherTimer ??= setTimeout(() => this.#flush(), 0);
  }

  #update(change: Partial<SyncState>): void {
    const before = this.#state;
    const next = { ...before, ...change };
    if (Object.keys(change).every((key) => before[key as keyof SyncState] === next[key as keyof SyncState])) {
      return;
    }
    this.#state = next;
    if (!this.#isClosed) this.#options.onState(next);
  }
}
