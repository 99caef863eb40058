/** The document service behind RPC on a memory channel, with a clock turned by hand. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type CreateDocumentRequest,
  CreateDocumentRequestSchema,
  type OperationSchema,
  StateSyncService,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { assertInstanceOf } from "@std/assert";
import { createManualClock, type ManualClock } from "../../runtime/clock.ts";
import { createLocalServices } from "../../runtime/local_services.ts";
import { encodePrincipal, PRINCIPAL_METADATA } from "../../runtime/principal.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { statesyncConfigSchema } from "../config.ts";
import type { AccessLevel, LiveClient } from "../live.ts";
import { createStatesyncModule, type StatesyncModule } from "../mod.ts";
import type { DocumentStore } from "../store.ts";
import { createMemoryStore } from "../stores/memory.ts";

/** The wired service and its client. */
export interface World extends AsyncDisposable {
  readonly module: StatesyncModule;
  readonly store: DocumentStore;
  readonly clock: ManualClock;
  readonly client: Client<typeof StateSyncService>;
  /** What went wrong beside any call. */
  readonly troubles: string[];
  /** Resolves when what is under way is kept and told. */
  settled(): Promise<void>;
}

/** Fields of an operation. */
export type OperationInit = MessageInitShape<typeof OperationSchema>;

/** Opens a world. */
export function openWorld(
  config: Record<string, unknown> = {},
  store: DocumentStore = createMemoryStore({ epoch: "e1" }),
  clock: ManualClock = createManualClock(1_800_000_000_000),
  seed = 5,
): World {
  const troubles: string[] = [];
  const module = createStatesyncModule({
    store,
    config: statesyncConfigSchema.parse(config),
    clock,
    random: createSeededRandom(seed),
    endOfTurn: (run) => void setImmediate(run),
    onTrouble: (text, error) => troubles.push(`${text}: ${error}`),
  });
  const { rpc, transport } = createLocalServices((method, error) => {
    throw new Error(`${method} failed`, { cause: error });
  });
  rpc.service(StateSyncService, module.handlers);
  return {
    module,
    store,
    clock,
    troubles,
    client: createClient(StateSyncService, transport),
    async settled() {
      for (let i = 0; i < 4; i++) await new Promise((resolve) => setImmediate(resolve));
    },
    [Symbol.asyncDispose]: () => module.close(),
  };
}

/** A user as a principal. */
export function user(id: string, more: MessageInitShape<typeof PrincipalSchema> = {}): Principal {
  return create(PrincipalSchema, { kind: Principal_Kind.USER, userId: id, username: `${id}-name`, ...more });
}

/** Who calls, as a gateway says it. */
export function as(principal: Principal): { headers: HeadersInit } {
  return { headers: { [PRINCIPAL_METADATA]: encodePrincipal(principal) } };
}

/** People of the tests. */
export const ANN = as(user("ann"));
export const BOB = as(user("bob"));
export const EVE = as(user("eve"));
export const ROOT = as(user("root", { roles: ["admin"] }));

/** Code and text of a refusal. */
export async function refusal(action: Promise<unknown>): Promise<[Code, string]> {
  try {
    await action;
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("it was not refused");
}

/** A document of Ann's, which Bob edits. */
export async function makeDocument(
  { client }: World,
  init: MessageInitShape<typeof CreateDocumentRequestSchema> = {},
): Promise<string> {
  const { document } = await client.createDocument(
    create(CreateDocumentRequestSchema, {
      name: "d",
      type: "whiteboard",
      metadata: { permissions: { editors: ["bob"] } },
      ...init as Exclude<typeof init, CreateDocumentRequest>,
    }),
    ANN,
  );
  return document!.id;
}

/** The content of a document as text. */
export async function contentOf({ client }: World, docId: string): Promise<string> {
  const { document } = await client.getDocument({ docId }, ROOT);
  return new TextDecoder().decode(document!.content);
}

/** A client that synchronises, which writes down what it is told. */
export interface ToldClient extends LiveClient {
  readonly told: string[];
}

/** Makes one. */
export function toldClient(principal: Principal | undefined): ToldClient {
  const told: string[] = [];
  return {
    principal,
    told,
    onAccess: (access: AccessLevel) => void told.push(`access ${access}`),
    onAskAgain: () => void told.push("ask again"),
    onClosed: (error) => void told.push(`closed: ${error.message}`),
  };
}
