/** `aetherflow doc watch`: what happens to documents, as it happens. */
import { attempt, type AuthOptions, withApi } from "../auth/client.ts";
import { followEvents, resumeHeaders } from "../event_stream.ts";
import { onInterrupt } from "../interrupt.ts";
import { printLine } from "../output.ts";
import { documentPath, numberOf, oneLine, type Operation, queryOf } from "./client.ts";
import { operationLine } from "./operations.ts";

/** An event, as far as commands print it. */
interface DocumentEvent {
  readonly type: string;
  readonly docId: string;
  readonly userId: string;
  readonly operation?: Operation;
  readonly lock?: { readonly id: string; readonly objectId: string };
  readonly conflict?: { readonly id: string; readonly targets: readonly string[] };
  readonly data: Readonly<Record<string, string>>;
  readonly version: string;
}

/** Prints the events of a document, or of all that the caller may read, until interrupted. A lost connection is taken up
 *  after the last event seen. */
export function watch(
  id: string | undefined,
  options: AuthOptions & { readonly from?: string; readonly count?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const path = id === undefined ? "/api/v1/documents:events" : `${documentPath(id)}/events`;
      const count = options.count === undefined ? Infinity : Number(numberOf("--count", options.count, 1));
      const from = options.from === undefined
        ? undefined
        : String(BigInt(numberOf("--from", options.from, 1)) - 1n);
      const stop = new AbortController();
      using _interrupt = onInterrupt(() => stop.abort());
      let epoch: string | undefined;
      let printed = 0;
      await followEvents(
        (lastEventId) =>
          api.request(path + queryOf({ epoch }), {
            headers: resumeHeaders(lastEventId),
            signal: stop.signal,
          }),
        ({ data }) => {
          const answer = JSON.parse(data) as {
            epoch?: string;
            offset?: string;
            sequence?: string;
            event?: DocumentEvent;
          };
          // Offsets of another life of the store would be others: from now on it is asked to tell.
          if (answer.epoch) epoch = answer.epoch;
          if (answer.event === undefined || answer.event === null) return;
          if (options.json) printLine(JSON.stringify(answer));
          else printLine(eventLine(answer.offset ?? answer.sequence ?? "", answer.event));
          if (++printed >= count) stop.abort();
        },
        from,
        stop.signal,
      );
    })
  );
}

function eventLine(offset: string, event: DocumentEvent): string {
  return [offset, event.type, oneLine(event.docId), oneLine(event.userId), detailOf(event)].join("\t");
}

function detailOf({ operation, conflict, lock, data }: DocumentEvent): string {
  if (conflict) return `${conflict.id} ${oneLine(conflict.targets.join(" "))}`;
  if (lock) {
    return [lock.id, oneLine(lock.objectId), data.reason ?? ""].filter((text) => text !== "").join(" ");
  }
  if (operation) return operationLine(operation);
  return oneLine(Object.entries(data).map(([name, value]) => `${name}=${value}`).join(" "));
}
