/** The document worker, under the test's orders. */
import "./fault_listener.ts";
import "../../services/statesync/worker.ts";
