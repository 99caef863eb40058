/** A page of somebody else: y-websocket as it comes from the registry, with the document that its address names. */
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const query = new URLSearchParams(globalThis.location.search);
const doc = new Y.Doc();
// The provider puts the room behind the server's address: `…/api/v1/documents/<id>/sync`.
new WebsocketProvider(`${query.get("server")}/api/v1/documents`, `${query.get("id")}/sync`, doc);
Object.assign(globalThis, { shared: doc.getText("content") });
