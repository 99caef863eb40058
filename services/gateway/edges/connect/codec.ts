/** How the messages of a call are written: as protobuf, which is passed on as it is, or as JSON. */
import { type DescMessage, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { GatewayError } from "../../problem.ts";
import { parseJson } from "../../transcode.ts";

/** Between what a client speaks and protobuf. */
export interface Codec {
  /** As content types and `encoding` have it. */
  readonly name: "proto" | "json";
  /** @throws {GatewayError} `invalid_argument` saying where it does not fit. */
  toProto(desc: DescMessage, message: Uint8Array): Uint8Array;
  /** @throws {Error} for bytes that are no such message: a service's mistake. */
  fromProto(desc: DescMessage, message: Uint8Array): Uint8Array;
}

/** Bytes that nobody here reads; the service does. */
export const PROTO: Codec = {
  name: "proto",
  toProto: (_, message) => message,
  fromProto: (_, message) => message,
};

const encoder = new TextEncoder();
// Clients may be newer than their server: that is what the protocol's other servers do.
const READ = { ignoreUnknownFields: true };

/** The protobuf JSON mapping as it stands. */
export const JSON_CODEC: Codec = {
  name: "json",
  toProto(desc, message) {
    const json = parseJson(message, false);
    try {
      return toBinary(desc, fromJson(desc, json, READ));
    } catch (error) {
      throw new GatewayError("invalid_argument", (error as Error).message);
    }
  },
  fromProto: (desc, message) => encoder.encode(JSON.stringify(toJson(desc, fromBinary(desc, message)))),
};
