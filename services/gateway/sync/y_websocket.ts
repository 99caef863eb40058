/** y-websocket's protocol: one document on one socket. There is nothing in it that says that an edit is on disk. */
import type { Caller } from "../stages.ts";
import type { CloseName } from "../sockets/close_codes.ts";
import { Channel, type SentUpdate, type Speaker } from "./channel.ts";
import {
  askFrame,
  BadMessage,
  BARE,
  deniedFrame,
  type Framing,
  isEmptyUpdate,
  MESSAGE,
  Reader,
  SILENT_FRAME,
  SYNC,
} from "./frames.ts";
import type { Links } from "./link.ts";
import type { SyncSession, SyncSocket } from "./socket.ts";

/** What a session is made of. */
export interface YWebsocketDeps {
  readonly socket: SyncSocket;
  readonly links: Links;
  readonly docId: string;
  readonly caller: Caller;
  /** "" makes no document. */
  readonly createType: string;
  /** Asks whether the caller still is who it was. */
  confirm(caller: Caller): Promise<void>;
}

/** A client. */
export class YWebsocketSession implements SyncSession, Speaker {
  readonly silentFrame = SILENT_FRAME;
  readonly framing: Framing = BARE;
  readonly #socket: SyncSocket;
  readonly #channel: Channel;

  constructor({ socket, links, docId, caller, createType, confirm }: YWebsocketDeps) {
    this.#socket = socket;
    this.#channel = new Channel(links, {
      docId,
      principal: caller.principal,
      createType,
      speaker: this,
      confirm: () => confirm(caller),
    });
    this.#channel.open();
  }

  onMessage(bytes: Uint8Array): void {
    const reader = new Reader(bytes);
    switch (reader.number()) {
      case MESSAGE.sync:
        return this.#onSync(reader);
      case MESSAGE.awareness:
        return this.#channel.showPresence(reader.chunk());
      case MESSAGE.queryAwareness:
        return this.#channel.queryPresence();
      case MESSAGE.auth:
        return; // a client has nothing to deny
      default:
        throw new BadMessage("its type is none of y-websocket's");
    }
  }

  end(): void {
    this.#channel.close();
  }

  send(frame: Uint8Array): void {
    this.#socket.send(frame);
  }

  sendState(frames: readonly Uint8Array[], onSent: () => void): void {
    this.#socket.sendState(frames, onSent);
  }

  onOpened(_access: string, stateVector: Uint8Array): void {
    this.onAsk(stateVector);
  }

  onAccess(): void {} // the client finds out when it writes

  onAsk(stateVector: Uint8Array): void {
    this.#socket.send(askFrame(BARE, stateVector));
  }

  onSaved(): void {} // the protocol has no word for it

  onRefused(_update: SentUpdate, _code: number, reason: string): void {
    this.#socket.send(deniedFrame(reason));
  }

  onClosed(why: CloseName, reason: string): void {
    this.#socket.close(why, reason);
  }

  #onSync(reader: Reader): void {
    switch (reader.number()) {
      case SYNC.stateVector:
        return this.#channel.question(reader.chunk());
      case SYNC.answer: {
        const update = reader.chunk();
        if (!isEmptyUpdate(update)) this.#channel.update("answer", update);
        return;
      }
      case SYNC.update:
        return this.#channel.update("edit", reader.chunk());
      default:
        throw new BadMessage("its kind of sync message is none");
    }
  }
}
