/** HTTP/2's error codes and the one error that the protocol core throws, and only inside. */

/** Error codes of RFC 9113 §7. */
export const ERROR = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;

/** A mistake of the peer that ends the connection. `Http2Connection.receive` makes a GOAWAY of it. */
export class Http2Error extends Error {
  override readonly name = "Http2Error";

  constructor(
    /** One of ERROR. */
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}
