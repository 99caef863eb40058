import { channelSuite } from "../testing/channel_suite.ts";
import { createMemoryChannelPair } from "./memory.ts";

channelSuite("memory", () => {
  const [client, server] = createMemoryChannelPair();
  const close = () => {
    client.close(0, "end of test");
    return Promise.resolve();
  };
  return Promise.resolve({ client, server, close });
});
