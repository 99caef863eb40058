/** The session worker, under the test's orders. */
import "./fault_listener.ts";
import "../../services/session/worker.ts";
