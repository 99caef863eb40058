/** Empties the environment that Node's modules see. ioredis, postgres and what they stand on read variables when they are loaded
 *  or asked to connect, and a worker that may read none would fail there; what they could be told by them, they are told by
 *  options. Imported before the library. */
import process from "node:process";

Object.defineProperty(process, "env", { value: Object.create(null), configurable: true, writable: true });
