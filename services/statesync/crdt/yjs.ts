/** Yjs, loaded so that it asks for no permission. The one place from which the service gets it. */
import "./no_environment.ts";

export * from "yjs";
