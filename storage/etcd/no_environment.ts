/** Empties the environment that Node's modules see. The gRPC library reads variables when it is loaded and when it connects,
 *  and a worker that may read none would fail there; what it could be told by them, it is told by options. Imported before
 *  the library. */
import process from "node:process";

Object.defineProperty(process, "env", { value: Object.create(null), configurable: true, writable: true });
