/** Load by wrk, which speaks HTTP/1.1 over connections that it keeps. */

const CONNECTIONS = 64;
const SECONDS = 5;
const RUNS = 3;

/** What wrk sends. */
export interface WrkRequest {
  /** Default: GET. */
  readonly method?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What wrk saw. */
export interface WrkRun {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Three runs of five seconds, after a warm-up. Needs wrk on PATH. @throws {Error} when an answer was no 2xx. */
export async function wrkRuns(
  url: string,
  request: WrkRequest = {},
  connections: number = CONNECTIONS,
): Promise<WrkRun[]> {
  await wrk(url, request, 1, connections);
  const measured: WrkRun[] = [];
  for (let run = 0; run < RUNS; run++) measured.push(await wrk(url, request, SECONDS, connections));
  return measured;
}

/** One run. */
export async function wrk(
  url: string,
  request: WrkRequest,
  seconds: number,
  connections: number = CONNECTIONS,
): Promise<WrkRun> {
  const script = await Deno.makeTempFile({ suffix: ".lua" });
  try {
    await Deno.writeTextFile(script, scriptOf(request));
    const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--latency", "-s", script, url];
    const { code, stdout, stderr } = await new Deno.Command("wrk", { args }).output().catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new Error("wrk is not installed; Debian's package is wrk", { cause: error });
    });
    const text = new TextDecoder().decode(stdout);
    if (code !== 0) throw new Error(`wrk failed: ${new TextDecoder().decode(stderr)}`);
    if (/Non-2xx/.test(text)) throw new Error(`wrk saw errors:\n${text}`);
    return {
      perSecond: number(text, /Requests\/sec:\s*([\d.]+)/),
      p50Ms: latencyMs(text, 50),
      p99Ms: latencyMs(text, 99),
    };
  } finally {
    await Deno.remove(script);
  }
}

function number(text: string, pattern: RegExp): number {
  const found = text.match(pattern)?.[1];
  if (found === undefined) throw new Error(`wrk printed no ${pattern}:\n${text}`);
  return Number(found);
}

function latencyMs(text: string, percent: number): number {
  const unit = text.match(new RegExp(`${percent}%\\s+[\\d.]+(us|ms|s)`))?.[1];
  const value = number(text, new RegExp(`${percent}%\\s+([\\d.]+)`));
  return unit === "us" ? value / 1000 : unit === "s" ? value * 1000 : value;
}

function scriptOf({ method = "GET", body, headers = {} }: WrkRequest): string {
  const lines = [`wrk.method = "${method}"`];
  if (body !== undefined) lines.push(`wrk.body = ${JSON.stringify(body)}`);
  for (const [name, value] of Object.entries(headers)) {
    lines.push(`wrk.headers[${JSON.stringify(name)}] = ${JSON.stringify(value)}`);
  }
  return lines.join("\n") + "\n";
}
