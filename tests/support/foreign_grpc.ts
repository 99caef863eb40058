/** Clients of gRPC and HTTP/2 that nobody here wrote, in a process of their own: the runtime's HTTP/2 (node:http2 of
 *  Deno 2.9.6) now and then frees memory that it still uses, and takes its process with it. */
import { ROOT } from "./paths.ts";

/** How often a process that died by a signal is started anew. */
const ATTEMPTS = 3;
/** Time for one, in milliseconds. */
const DEADLINE_MS = 120_000;

/** Runs foreign_grpc_client.ts against the server at `address` and returns what it saw.
 *  @throws {Error} when it fails, hangs, or dies by a signal ATTEMPTS times. */
export async function runForeignClient(address: string): Promise<unknown> {
  for (let attempt = 1;; attempt++) {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-A", `${ROOT}/tests/support/foreign_grpc_client.ts`, address],
      cwd: ROOT,
      stdin: "null",
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const { success, signal, stdout, stderr } = await process.output();
    if (success) return JSON.parse(new TextDecoder().decode(stdout));
    const said = new TextDecoder().decode(stderr);
    if (!isCrash(signal) || attempt === ATTEMPTS) {
      throw new Error(`the foreign client failed (${signal ?? "no signal"}, attempt ${attempt})\n${said}`);
    }
    await Deno.stderr.write(
      new TextEncoder().encode(`the foreign client's runtime died of ${signal}; once more (${attempt})\n`),
    );
  }
}

function isCrash(signal: Deno.Signal | null): boolean {
  return signal === "SIGSEGV" || signal === "SIGABRT" || signal === "SIGBUS" || signal === "SIGILL" ||
    signal === "SIGTRAP";
}
