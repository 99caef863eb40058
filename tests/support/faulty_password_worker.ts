/** The password worker, under the test's orders. */
import "./fault_listener.ts";
import "../../services/password/worker.ts";
