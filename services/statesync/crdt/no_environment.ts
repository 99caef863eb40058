/** Empties the environment that Node's modules see. What Yjs stands on reads variables when it is loaded, and a worker that may
 *  read none would fail there; none of them says anything that matters here. A worker's entry imports it before all else. */
import process from "node:process";

Object.defineProperty(process, "env", { value: Object.create(null), configurable: true, writable: true });
