/** The head of an answer: RFC 9113 §8.3.2. */
import { checkFields, isPseudo, MALFORMED, valueOf } from "./fields.ts";

/** An answer's head. One object may stand for many answers that say the same; its fields never change. */
export class ResponseHead {
  constructor(
    /** 100 to 999. */
    readonly status: number,
    /** Name, value, name, value … without pseudo-header fields. */
    readonly fields: readonly string[],
    /** Bytes that `content-length` announces; -1 without it. */
    readonly contentLength: number,
  ) {}

  /** The first value of a field, by its lower-case name. */
  get(name: string): string | undefined {
    return valueOf(this.fields, name);
  }
}

/** Makes the head of decoded fields; undefined when they are malformed (RFC 9113 §8.1.1). */
export function readResponseHead(fields: readonly string[]): ResponseHead | undefined {
  if (fields[0] !== ":status" || !/^[1-9]\d\d$/.test(fields[1]!)) return undefined;
  if (fields.length > 2 && isPseudo(fields[2]!)) return undefined;
  const rest = fields.slice(2);
  const contentLength = checkFields(rest);
  return contentLength === MALFORMED ? undefined : new ResponseHead(Number(fields[1]), rest, contentLength);
}
