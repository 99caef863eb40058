/** What a table of short method ids would save a call (SPEC §2.4): `deno bench transport/rpc/lookup_bench.ts`. */
import { latin1 } from "./metadata.ts";
import { MethodTable } from "./methods.ts";

const paths = Array.from({ length: 40 }, (_, i) => `/aetherflow.kv.v1.KeyValueService/Method${i}`);
const table = new MethodTable<number>();
paths.forEach((path, i) => table.add(path, i));
const byText = new Map(paths.map((path, i) => [path, i]));
const byId = paths.map((_, i) => i);
const wire = new TextEncoder().encode(paths[17]);
const id = Uint8Array.of(17);
const decoder = new TextDecoder();

Deno.bench("method by the bytes of its path", { group: "lookup", baseline: true }, () => {
  table.find(wire, 0, wire.length);
});
Deno.bench("method by path, made into text", { group: "lookup" }, () => {
  byText.get(latin1(wire, 0, wire.length));
});
Deno.bench("method by path, decoded by TextDecoder", { group: "lookup" }, () => {
  byText.get(decoder.decode(wire));
});
Deno.bench("method by short id", { group: "lookup" }, () => {
  byId[id[0]!];
});
