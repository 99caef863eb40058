import { assertEquals } from "@std/assert";

Deno.test("yjs.ts loads, and edits, in a worker that may do nothing", async () => {
  const url = new URL("yjs.ts", import.meta.url).href;
  const code = `
    import { Doc } from ${JSON.stringify(url)};
    const doc = new Doc({ guid: "" });
    doc.getText("t").insert(0, "works");
    self.postMessage(doc.getText("t").toString());
  `;
  const worker = new Worker(`data:application/typescript,${encodeURIComponent(code)}`, {
    type: "module",
    deno: {
      permissions: {
        env: false,
        net: false,
        read: false,
        write: false,
        run: false,
        sys: false,
        ffi: false,
        import: false,
      },
    },
  });
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => {
    event.preventDefault();
    reject(new Error(event.message));
  };
  try {
    assertEquals(await promise, "works");
  } finally {
    worker.terminate();
  }
});
