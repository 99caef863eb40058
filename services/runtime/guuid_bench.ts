import { ulid } from "@std/ulid";
import { systemClock } from "./clock.ts";
import { createGuuidSource, formatGuuid, parseGuuid } from "./guuid.ts";
import { systemRandom } from "./random.ts";

const source = createGuuidSource({ clock: systemClock, random: systemRandom });
const guuid = source.next();
const text = formatGuuid(guuid);

Deno.bench("GuuidSource.next()", { group: "make", baseline: true }, () => void source.next());
Deno.bench("crypto.randomUUID()", { group: "make" }, () => void crypto.randomUUID());
Deno.bench("GuuidSource.next() as text", { group: "make" }, () => void formatGuuid(source.next()));
Deno.bench("npm:ulid", { group: "make" }, () => void ulid());
Deno.bench("formatGuuid()", { group: "text", baseline: true }, () => void formatGuuid(guuid));
Deno.bench("parseGuuid()", { group: "text" }, () => void parseGuuid(text));
