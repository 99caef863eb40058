/** Reads request bodies within a size and a time. */
import { GatewayError } from "../problem.ts";
import type { Timer } from "../timer.ts";

/** No body. */
export const EMPTY_BODY = new Uint8Array(0);

/** What bounds a body. */
export interface BodyLimits {
  readonly bytesMax: number;
  readonly timeoutMs: number;
  readonly timer: Timer;
}

/** Checks the announced length. @throws {GatewayError} `body_too_large`, before a byte of the body is read. */
export function checkAnnouncedLength(contentLength: number | undefined, bytesMax: number): void {
  if (contentLength !== undefined && contentLength > bytesMax) throw tooLarge(bytesMax);
}

/** Reads a whole body of at most `bytesMax` bytes.
 *  @throws {GatewayError} `body_too_large`; `request_timeout` when it does not come in time; `invalid_argument` when
 *  the client breaks off. */
export async function readBody(
  request: Request,
  contentLength: number | undefined,
  limits: BodyLimits,
): Promise<Uint8Array<ArrayBuffer>> {
  checkAnnouncedLength(contentLength, limits.bytesMax);
  if (request.body === null || contentLength === 0) return EMPTY_BODY;
  // With a length the HTTP parser ends the body there, so that nothing needs counting here.
  const reading = contentLength !== undefined ? request.bytes() : readCounted(request.body, limits.bytesMax);
  let cancel: (() => void) | undefined;
  const late = new Promise<never>((_, reject) => {
    cancel = limits.timer.after(
      limits.timeoutMs,
      () =>
        reject(new GatewayError("request_timeout", `the body did not arrive within ${limits.timeoutMs} ms`)),
    );
  });
  try {
    return await Promise.race([reading, late]);
  } catch (error) {
    reading.catch(() => {}); // the loser of the race; its outcome no longer matters
    if (error instanceof GatewayError) throw error;
    throw new GatewayError("invalid_argument", "the request body was not received whole", { cause: error });
  } finally {
    cancel?.();
  }
}

async function readCounted(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  bytesMax: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > bytesMax) throw tooLarge(bytesMax); // leaving the loop cancels the body
    chunks.push(chunk);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}

function tooLarge(bytesMax: number): GatewayError {
  return new GatewayError(
    "body_too_large",
    `the body is larger than ${bytesMax} bytes (gateway.limits.bodyBytes)`,
  );
}
