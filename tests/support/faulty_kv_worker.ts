/** The kv worker, under the test's orders. */
import "./fault_listener.ts";
import "../../services/kv/worker.ts";
