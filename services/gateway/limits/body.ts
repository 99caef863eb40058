/** Reads request bodies within a size and a time. */
import { joinBytes } from "../../runtime/bytes.ts";
import { GatewayError } from "../problem.ts";
import type { TimeoutQueue } from "../timer.ts";

/** No body. */
export const EMPTY_BODY = new Uint8Array(0);

/** Announced length up to which a body is read at once, in bytes. The room for it is taken before it comes, so that a longer
 *  one is read piece by piece: who announces much and sends nothing holds no more than a piece. */
const AT_ONCE_BYTES_MAX = 64 * 1_024;

/** What bounds a body. */
export interface BodyLimits {
  readonly bytesMax: number;
  readonly timeouts: TimeoutQueue;
}

/** Checks the announced length. @throws {GatewayError} `body_too_large`, before a byte of the body is read. */
export function checkAnnouncedLength(contentLength: number | undefined, bytesMax: number): void {
  if (contentLength !== undefined && contentLength > bytesMax) throw tooLarge(bytesMax);
}

/** Reads a whole body of at most `bytesMax` bytes.
 *  @throws {GatewayError} `body_too_large`; `unsupported_encoding` when it is compressed; `request_timeout` when it does not come in time; `invalid_argument` when
 *  the client breaks off. */
export async function readBody(
  request: Request,
  contentLength: number | undefined,
  limits: BodyLimits,
): Promise<Uint8Array<ArrayBuffer>> {
  checkAnnouncedLength(contentLength, limits.bytesMax);
  checkCodings(request.headers);
  // With a length the HTTP parser ends the body there, so that nothing needs counting; and `request.body`, which makes a
  // stream, is not touched for a short one.
  if (contentLength === 0 || (contentLength === undefined && request.body === null)) return EMPTY_BODY;
  const reading = (contentLength ?? Infinity) <= AT_ONCE_BYTES_MAX
    ? request.bytes()
    : readCounted(request.body!, limits.bytesMax);
  let cancel: (() => void) | undefined;
  const { timeouts } = limits;
  try {
    return await new Promise((resolve, reject) => {
      cancel = timeouts.add(() => {
        reject(
          new GatewayError("request_timeout", `the body did not arrive within ${timeouts.timeoutMs} ms`),
        );
      });
      reading.then(resolve, reject);
    });
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    throw new GatewayError("invalid_argument", "the request body was not received whole", { cause: error });
  } finally {
    cancel?.();
  }
}

/** Nothing is decompressed: a kilobyte may be a bomb of gigabytes. */
function checkCodings(headers: Headers): void {
  const content = headers.get("content-encoding");
  const transfer = headers.get("transfer-encoding");
  if (content !== null && content.toLowerCase() !== "identity") {
    throw unsupported("Content-Encoding", content);
  }
  if (transfer !== null && transfer.toLowerCase() !== "chunked") {
    throw unsupported("Transfer-Encoding", transfer);
  }
}

function unsupported(field: string, value: string): GatewayError {
  return new GatewayError(
    "unsupported_encoding",
    `${field} ${value.slice(0, 32)}: bodies are taken as they are only`,
  );
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
  return joinBytes(chunks);
}

function tooLarge(bytesMax: number): GatewayError {
  return new GatewayError(
    "body_too_large",
    `the body is larger than ${bytesMax} bytes (gateway.limits.bodyBytes)`,
  );
}
