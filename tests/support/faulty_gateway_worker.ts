/** The gateway worker, under the test's orders. */
import "./fault_listener.ts";
import "../../services/gateway/worker.ts";
