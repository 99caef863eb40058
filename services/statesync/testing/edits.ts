/** Edits as a synchronising client makes them. */
import type { DocumentType } from "../records.ts";
import type { LiveDocument } from "../live.ts";
import * as Y from "../crdt/yjs.ts";

/** What a client does to its copy; returns what it sends. */
export type ClientEdit = (change: (doc: Y.Doc) => void) => Uint8Array;

const NOTHING = new Uint8Array([0]);

/** A client's copy of a document: everything that the server has. The roots are those of the type. */
export async function copyOf(document: LiveDocument, type: DocumentType): Promise<Y.Doc> {
  const doc = new Y.Doc();
  if (type === "text") doc.getText("content");
  for (const update of await document.answer(NOTHING)) Y.applyUpdate(doc, update);
  return doc;
}

/** Makes edits on a copy of its own. */
export async function editOf(document: LiveDocument, type: DocumentType): Promise<ClientEdit> {
  const doc = await copyOf(document, type);
  return (change) => {
    const before = Y.encodeStateVector(doc);
    doc.transact(() => change(doc));
    return Y.encodeStateAsUpdate(doc, before);
  };
}
