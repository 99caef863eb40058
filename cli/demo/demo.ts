/** `aetherflow demo`: fills a server with documents and people who work on them. */
import { type Api, ApiError, attempt, type AuthOptions, usageError, withApi } from "../auth/client.ts";
import { documentPath } from "../doc/client.ts";
import { DEFAULT_ENDPOINT, EXIT_ERROR } from "../kv/client.ts";
import { onInterrupt } from "../interrupt.ts";
import { complain, printLine } from "../output.ts";
import { CONFLICT_EXAMPLE, CONFLICTING_EDITS, type Example, EXAMPLES, PEOPLE } from "./examples.ts";
import { type Visit, visit } from "./visit.ts";

/** People at once: beyond that nobody could follow them. */
const BOTS_MAX = 50;

/** What may be chosen. */
export interface DemoOptions extends AuthOptions {
  /** `60s`, `5m`, `1h`; until interrupted when left out. */
  readonly for?: string;
  readonly bots: string;
  readonly open?: boolean;
}

/** Makes the documents where they are missing, and lets people work on them until the time is up or it is interrupted. */
export function demo(options: DemoOptions): Promise<number> {
  return attempt(() => {
    const endMs = options.for === undefined ? undefined : durationOf(options.for);
    const bots = botsOf(options.bots);
    return withApi(options, async (api) => {
      await checkServer(api);
      for (const example of EXAMPLES) await prepare(api, example);
      const endpoint = options.endpoint ?? DEFAULT_ENDPOINT;
      const page = new URL("/", endpoint).href;
      if (options.json) {
        printLine(JSON.stringify({ url: page, documents: EXAMPLES.map(({ id }) => id), bots }));
      } else {
        printLine(`console\t${page}`);
        for (const { id, name } of EXAMPLES) printLine(`${page}#/document/${id}\t${name}`);
      }
      if (options.open) await openPage(page);
      await work(api, endpoint, bots, endMs);
    });
  });
}

/** @throws {ApiError} that says how to start a server, when there is none. */
async function checkServer(api: Api): Promise<void> {
  try {
    await (await api.request("/livez")).body?.cancel();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== undefined || !error.retryable) throw error;
    throw new ApiError(
      `${error.message}\nstart one in another terminal: aetherflow start (from source: deno task start)`,
      EXIT_ERROR,
      false,
    );
  }
}

/** Makes a document, or takes the one that a former run made. */
async function prepare(api: Api, example: Example): Promise<void> {
  const { id, type, name, description, content, conflictPolicy } = example;
  try {
    await api.call("POST", "/api/v1/documents", {
      docId: id,
      type,
      name,
      conflictPolicy,
      content: new TextEncoder().encode(content).toBase64(),
      metadata: { description, tags: ["demo"], permissions: { public: true } },
    });
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 409)) throw error;
    // There already. One that was deleted since is taken back; on all others this does nothing.
    await api.call("POST", `${documentPath(id)}:restore`, {});
    return;
  }
  await api.call("POST", `${documentPath(id)}/versions`, { name: "as it began" });
  if (id === CONFLICT_EXAMPLE) await disagree(api);
}

/** Two people edit one place, the second without having seen the first. */
async function disagree(api: Api): Promise<void> {
  for (const [i, edit] of CONFLICTING_EDITS.entries()) {
    await api.call("POST", `${documentPath(CONFLICT_EXAMPLE)}/operations`, {
      clientId: `aetherflow-demo-${i}`,
      type: "text",
      prevVersion: "1",
      text: { edits: [edit] },
    });
  }
}

async function work(api: Api, endpoint: string, bots: number, endMs: number | undefined): Promise<void> {
  const over = Promise.withResolvers<void>();
  let lost: string | undefined;
  const visits: Visit[] = [];
  using _interrupt = onInterrupt(over.resolve);
  const timer = endMs === undefined ? undefined : setTimeout(over.resolve, endMs);
  try {
    const coming = visitors(bots).map(async ({ example, person }) => {
      visits.push(
        await visit({
          example,
          person,
          endpoint,
          token: api.token,
          chance: Math.random,
          onClosed(reason) {
            lost = `${example.id}: ${reason}`;
            over.resolve();
          },
        }).catch((error) => {
          throw new ApiError(`${example.id} cannot be opened: ${error.message}`, EXIT_ERROR, false);
        }),
      );
    });
    const came = await Promise.allSettled(coming);
    const refused = came.find((outcome) => outcome.status === "rejected");
    if (refused !== undefined) throw refused.reason;
    complain(
      `${bots} people work in ${EXAMPLES.length} documents${endMs === undefined ? "; Ctrl-C ends it" : ""}`,
    );
    await over.promise;
  } finally {
    clearTimeout(timer);
    for (const each of visits) each.leave();
  }
  complain(`they did ${visits.reduce((sum, { steps }) => sum + steps, 0)} things`);
  if (lost !== undefined) throw new ApiError(`the demo ended: ${lost}`, EXIT_ERROR, false);
}

/** Who goes where: everybody to the main documents, and each to one of the others. */
function visitors(bots: number): { readonly example: Example; readonly person: typeof PEOPLE[number] }[] {
  const main = EXAMPLES.filter(({ isMain }) => isMain);
  const others = EXAMPLES.filter(({ isMain, id }) => !isMain && id !== CONFLICT_EXAMPLE);
  return Array.from({ length: bots }, (_, i) => {
    const known = PEOPLE[i % PEOPLE.length]!;
    const person = i < PEOPLE.length
      ? known
      : { ...known, name: `${known.name} ${Math.floor(i / PEOPLE.length) + 1}` };
    return [...main, others[i % others.length]!].map((example) => ({ example, person }));
  }).flat();
}

/** Shows the page in a browser, where this process may start one. */
async function openPage(url: string): Promise<void> {
  const command = { darwin: "open", windows: "explorer" }[Deno.build.os as string] ?? "xdg-open";
  if (Deno.permissions.querySync({ name: "run", command }).state !== "granted") {
    return complain(`this command may start no other program: open ${url} yourself`);
  }
  try {
    const { success } = await new Deno.Command(command, { args: [url], stdout: "null", stderr: "null" })
      .output();
    if (!success) complain(`${command} did not open ${url}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    complain(`there is no ${command} here: open ${url} yourself`);
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

function durationOf(text: string): number {
  const match = /^([1-9]\d{0,5})([smh]?)$/.exec(text);
  const ms = match === null ? Infinity : Number(match[1]) * UNIT_MS[match[2] || "s"]!;
  // Timers know no more.
  if (ms >= 2 ** 31) throw usageError(`--for is ${text}, expected a time like 60s, 5m or 1h`);
  return ms;
}

function botsOf(text: string): number {
  const bots = /^\d{1,3}$/.test(text) ? Number(text) : NaN;
  if (!(bots >= 1 && bots <= BOTS_MAX)) throw usageError(`--bots is ${text}, expected 1..${BOTS_MAX}`);
  return bots;
}
