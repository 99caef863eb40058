/** What holds for the header fields of requests and answers alike: RFC 9113 §8. Fields are name, value, name, value …, names
 *  in lower case. */

/** No `content-length`. */
export const NO_LENGTH = -1;
/** Fields that may not stand there. */
export const MALFORMED = -2;

/** Content length of regular fields, NO_LENGTH or MALFORMED. */
export function checkFields(fields: readonly string[]): number {
  let contentLength = NO_LENGTH;
  for (let i = 0; i < fields.length; i += 2) {
    const value = fields[i + 1]!;
    switch (fields[i]) {
      case "connection":
      case "proxy-connection":
      case "keep-alive":
      case "transfer-encoding":
      case "upgrade":
        return MALFORMED;
      case "te":
        if (value !== "trailers") return MALFORMED;
        break;
      case "content-length": {
        // At most a million gigabytes: what a number holds exactly.
        const length = /^\d{1,15}$/.test(value) ? Number(value) : MALFORMED;
        if (length === MALFORMED || (contentLength !== NO_LENGTH && contentLength !== length)) {
          return MALFORMED;
        }
        contentLength = length;
        break;
      }
      default:
        if (isPseudo(fields[i]!)) return MALFORMED;
    }
  }
  return contentLength;
}

/** True when fields may stand behind a body: no pseudo-header among them (RFC 9113 §8.1). */
export function areTrailers(fields: readonly string[]): boolean {
  for (let i = 0; i < fields.length; i += 2) if (isPseudo(fields[i]!)) return false;
  return true;
}

/** The first value of a field, by its lower-case name. */
export function valueOf(fields: readonly string[], name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) return fields[i + 1];
  return undefined;
}

/** Whether a name is a pseudo-header's. */
export function isPseudo(name: string): boolean {
  return name.charCodeAt(0) === 0x3a;
}
