/** The views of operations; they are loaded together when the first of them is shown. */
export { chartsView } from "./charts.ts";
export { keysView } from "./keys.ts";
export { servicesView } from "./services.ts";
export { sessionsView } from "./sessions.ts";
export { transportView } from "./transport.ts";
