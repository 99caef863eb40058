/** Yjs: the one place from which the service gets it. A worker without permission to read the environment imports
 *  no_environment.ts before anything that leads here. */
export * from "yjs";
