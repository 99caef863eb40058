/** ChannelService: channels for who asks by single requests. */
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { ChannelService } from "$proto/aetherflow/gateway/v1/hub_pb.ts";
import { PRINCIPAL_METADATA, principalOf } from "../../runtime/principal.ts";
import { credentialNeeded } from "../auth/failure.ts";
import { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import { parseChannelName } from "./channel_name.ts";
import { toConnectError } from "./connect_error.ts";
import { refusePublish } from "./connection.ts";
import { HISTORY_ENTRIES_MAX } from "./history.ts";
import type { Hub } from "./hub.ts";

const HISTORY_ENTRIES_DEFAULT = 100;

/** Creates the handlers. */
export function createChannelService(hub: Hub): ServiceImpl<typeof ChannelService> {
  const { services, config } = hub.deps;

  async function mapped<T>(answer: () => Promise<T>): Promise<T> {
    try {
      return await answer();
    } catch (error) {
      throw toConnectError(error);
    }
  }

  return {
    publishToChannel: ({ channel, data }, context) =>
      mapped(async () => {
        const name = parseChannelName(channel);
        refusePublish(name);
        const json = data === undefined ? "null" : JSON.stringify(toJson(ValueSchema, data));
        if (json.length > config.maxMessageBytes) {
          throw new GatewayError(
            "body_too_large",
            `data has more than ${config.maxMessageBytes} bytes (gateway.hub.maxMessageBytes)`,
          );
        }
        await services.authorize(name, callerOf(context), true);
        const { offset, epoch, subscribers } = await hub.publish(name, json);
        return { channel, success: true, subscribers, offset: BigInt(offset), epoch };
      }),

    getChannelHistory: ({ channel, limit, sinceOffset, sinceEpoch }, context) =>
      mapped(async () => {
        const name = parseChannelName(channel);
        if (limit < 0 || limit > HISTORY_ENTRIES_MAX) {
          throw new GatewayError(
            "invalid_argument",
            `limit is ${limit}, expected up to ${HISTORY_ENTRIES_MAX}`,
          );
        }
        const key = await services.authorize(name, callerOf(context), false);
        const since = sinceEpoch === "" ? undefined : { epoch: sinceEpoch, offset: Number(sinceOffset) };
        const answer = await hub.history(name, key, since, limit || HISTORY_ENTRIES_DEFAULT);
        return {
          messages: answer.messages.map(channelMessage),
          offset: BigInt(answer.position?.offset ?? 0),
          epoch: answer.position?.epoch ?? "",
          complete: answer.isComplete,
        };
      }),

    listChannelUsers: ({ channel }, context) =>
      mapped(async () => {
        const name = parseChannelName(channel);
        return { users: hub.present(await services.authorize(name, callerOf(context), false)) };
      }),

    getHubStats() {
      const { connections, users, channels } = hub.stats;
      return { totalConnections: connections, authenticatedUsers: users, totalChannels: channels };
    },
  };
}

/** Who calls, as the gateway's own edges say. */
function callerOf({ requestHeader }: HandlerContext): Caller {
  const principal = principalOf(requestHeader);
  if (principal === undefined) throw credentialNeeded();
  return { principal, encoded: requestHeader.get(PRINCIPAL_METADATA)!, credential: "none" };
}

function channelMessage(text: string) {
  const { id, timestamp, data } = JSON.parse(text) as {
    id: string;
    timestamp: string;
    data: { event: string; data: JsonValue; offset: number; epoch: string };
  };
  return {
    id,
    timestamp,
    event: data.event,
    data: fromJson(ValueSchema, data.data),
    offset: BigInt(data.offset),
    epoch: data.epoch,
  };
}
