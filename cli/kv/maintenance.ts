/** `aetherflow kv status|member|compact|defrag|alarm|snapshot|restore`: looking after the store. */
import { complain, printLine } from "../output.ts";
import { ApiError, attempt, call, EXIT_ERROR, type KvOptions, results, usageError } from "./client.ts";

/** Prints revision, size and alarms. */
export function status(options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/maintenance/status");
    const shown = {
      version: answer.version,
      memberId: memberId(answer.header.member_id),
      revision: answer.header.revision,
      dbSize: Number(answer.dbSize ?? 0),
      dbSizeInUse: Number(answer.dbSizeInUse ?? 0),
      errors: answer.errors ?? [],
    };
    if (options.json) return printLine(JSON.stringify(shown));
    printLine(`version   ${shown.version}`);
    printLine(`member    ${shown.memberId}`);
    printLine(`revision  ${shown.revision}`);
    printLine(`size      ${megabytes(shown.dbSize)} MB, ${megabytes(shown.dbSizeInUse)} MB in use`);
    for (const error of shown.errors) printLine(`error     ${error}`);
  });
}

/** Prints the members of the cluster. */
export function members(options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/cluster/member/list");
    for (const member of answer.members ?? []) {
      const id = memberId(member.ID);
      const clientUrls = member.clientURLs ?? [];
      if (options.json) printLine(JSON.stringify({ id, name: member.name ?? "", clientUrls }));
      else printLine(`${id}\t${member.name ?? ""}\t${clientUrls.join(",")}`);
    }
  });
}

/** Gives up history before a revision. */
export function compact(
  revision: string,
  options: KvOptions & { physical?: boolean },
): Promise<number> {
  return attempt(async () => {
    if (!/^[1-9]\d{0,18}$/.test(revision)) throw usageError(`a revision is 1 or more, not ${revision}`);
    await call(options, "/v3/kv/compaction", { revision, physical: options.physical ?? false });
    if (options.json) printLine(JSON.stringify({ compacted: revision }));
  });
}

/** Gives memory and disk back. */
export function defragment(options: KvOptions): Promise<number> {
  return attempt(async () => {
    await call(options, "/v3/maintenance/defragment");
    if (options.json) printLine(JSON.stringify({ defragmented: true }));
  });
}

/** Prints the alarms that are raised, or clears them. */
export function alarms(action: "list" | "disarm", options: KvOptions): Promise<number> {
  return attempt(async () => {
    const body = { action: action === "list" ? "GET" : "DEACTIVATE" };
    const answer = await call(options, "/v3/maintenance/alarm", body);
    for (const { memberID, alarm } of answer.alarms ?? []) {
      const shown = { member: memberId(memberID ?? "0"), alarm };
      printLine(options.json ? JSON.stringify(shown) : `${shown.member}\t${alarm}`);
    }
  });
}

/** Saves the store, as of now, to a file that `restore`, and etcd's own tools, can read. */
export function snapshot(file: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const part = `${file}.part`;
    let bytes = 0;
    try {
      using out = await Deno.open(part, { write: true, create: true, truncate: true });
      for await (const { blob = "", remaining_bytes } of results(options, "/v3/maintenance/snapshot")) {
        const chunk = Uint8Array.fromBase64(blob);
        for (let at = 0; at < chunk.length;) at += await out.write(chunk.subarray(at));
        bytes += chunk.length;
        if (Deno.stderr.isTerminal()) tellProgress(bytes, Number(remaining_bytes ?? 0));
      }
      await out.sync();
    } catch (error) {
      await Deno.remove(part).catch(() => {});
      throw fileError(error, file);
    }
    if (bytes === 0) throw new ApiError("the server sent an empty snapshot", EXIT_ERROR, false);
    await Deno.rename(part, file);
    if (options.json) printLine(JSON.stringify({ file, bytes }));
    else complain(`saved ${megabytes(bytes)} MB to ${file}`);
  });
}

function tellProgress(bytes: number, left: number): void {
  const total = bytes + left;
  const percent = total === 0 ? 100 : Math.floor(bytes / total * 100);
  Deno.stderr.writeSync(new TextEncoder().encode(`\r${percent} %${left === 0 ? "\n" : ""}`));
}

function fileError(error: unknown, file: string): unknown {
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) {
    return new ApiError(`cannot write ${file}: ${error.message}`, EXIT_ERROR, false);
  }
  return error;
}

function memberId(id: string): string {
  return BigInt.asUintN(64, BigInt(id)).toString(16);
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
