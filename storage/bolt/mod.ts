/** Database files of bbolt, the library under etcd. README.md has the layout. */
export { BoltError, type BoltErrorCode } from "./errors.ts";
export { BoltFile, type BoltSource, openBolt, type VisitEntry } from "./reader.ts";
export { type BoltBucket, type BoltEntry, type BoltSink, writeBolt } from "./writer.ts";
