/** `aetherflow cluster`. */
import { newClusterSecret } from "../services/host/cluster_secret.ts";
import { systemRandom } from "../services/runtime/random.ts";
import { printLine } from "./output.ts";

/** `aetherflow cluster secret`: prints a new one, for the file that `cluster.secretFile` names on every host. */
export function printClusterSecret(): number {
  printLine(newClusterSecret(systemRandom));
  return 0;
}
