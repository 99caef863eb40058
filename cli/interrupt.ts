/** Being told to stop: Ctrl-C, or SIGTERM where there is one. */

/** Calls `then` each time the process is told to stop, which no longer ends it, until the result is disposed of. */
export function onInterrupt(then: () => void): Disposable {
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, then);
  return {
    [Symbol.dispose]() {
      for (const signal of signals) Deno.removeSignalListener(signal, then);
    },
  };
}
