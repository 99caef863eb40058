/** Passwords that a command needs: asked for on a terminal, without showing them, or read from standard input, one a line
 *  in the order in which they are needed. */
import { usageError } from "../kv/client.ts";

/** Where passwords come from. */
export interface Passwords extends Disposable {
  /** The next password. `prompt` is shown on a terminal. @throws {ApiError} when there is none. */
  ask(prompt: string): Promise<string>;
  /** A password that is being chosen: asked for twice on a terminal. @throws {ApiError} when the two differ. */
  askNew(prompt: string): Promise<string>;
}

/** Standard input as far as it is used here. */
export interface Input {
  isTerminal(): boolean;
  setRaw(isRaw: boolean): void;
  read(into: Uint8Array): Promise<number | null>;
}

/** Longest line that is read, in bytes: more than a password may have. */
const LINE_BYTES_MAX = 4_096;

const ENTER = [0x0a, 0x0d];
const BACKSPACE = [0x08, 0x7f];
const CONTROL_C = 0x03;
const CONTROL_D = 0x04;
const CONTROL_U = 0x15;

/** Passwords from `input`; what a person reads goes to `show`. */
export function readPasswords(
  input: Input = Deno.stdin,
  show: (text: string) => void = (text) => void Deno.stderr.writeSync(new TextEncoder().encode(text)),
): Passwords {
  const reader = new ByteReader(input);

  async function ask(prompt: string): Promise<string> {
    if (!input.isTerminal()) return await reader.line();
    show(prompt);
    input.setRaw(true);
    try {
      return await reader.typed();
    } finally {
      input.setRaw(false);
      show("\n");
    }
  }

  return {
    ask,
    async askNew(prompt) {
      const password = await ask(prompt);
      if (input.isTerminal() && await ask("The same again: ") !== password) {
        throw usageError("the two passwords differ");
      }
      return password;
    },
    [Symbol.dispose]() {
      reader.forget();
    },
  };
}

/** Bytes one after the other. */
class ByteReader {
  readonly #input: Input;
  readonly #buffer = new Uint8Array(1_024);
  #at = 0;
  #end = 0;

  constructor(input: Input) {
    this.#input = input;
  }

  /** A line, without its end. */
  async line(): Promise<string> {
    const bytes: number[] = [];
    for (let byte = await this.#next(); byte !== 0x0a; byte = await this.#next()) {
      if (byte === undefined) {
        if (bytes.length > 0) break;
        throw usageError(
          "a password is needed: type it on a terminal, send it to standard input, or set AETHERFLOW_PASSWORD",
        );
      }
      push(bytes, byte);
    }
    if (bytes.at(-1) === 0x0d) bytes.pop();
    return textOf(bytes);
  }

  /** What is typed on a terminal in raw mode, up to Enter. */
  async typed(): Promise<string> {
    let bytes: number[] = [];
    for (;;) {
      const byte = await this.#next();
      if (byte === undefined || byte === CONTROL_C || byte === CONTROL_D) {
        throw usageError("no password was given");
      }
      if (ENTER.includes(byte)) return textOf(bytes);
      if (byte === CONTROL_U) bytes = [];
      else if (BACKSPACE.includes(byte)) {
        bytes = [...new TextEncoder().encode([...textOf(bytes)].slice(0, -1).join(""))];
      } else push(bytes, byte);
    }
  }

  /** Overwrites what was read. */
  forget(): void {
    this.#buffer.fill(0);
  }

  async #next(): Promise<number | undefined> {
    if (this.#at === this.#end) {
      const read = await this.#input.read(this.#buffer);
      if (read === null) return undefined;
      this.#at = 0;
      this.#end = read;
      if (read === 0) return await this.#next();
    }
    return this.#buffer[this.#at++];
  }
}

function push(bytes: number[], byte: number): void {
  if (bytes.length >= LINE_BYTES_MAX) throw usageError(`a password has more than ${LINE_BYTES_MAX} bytes`);
  bytes.push(byte);
}

function textOf(bytes: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
