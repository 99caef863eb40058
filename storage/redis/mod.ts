/** Redis servers and clusters: one connection, scripts, answers or errors in time. */
export {
  openRedisClient,
  type RedisArgument,
  type RedisClient,
  type RedisClientOptions,
  type RedisScript,
} from "./client.ts";
export { RedisError, type RedisErrorCode, redisErrorOf } from "./errors.ts";
