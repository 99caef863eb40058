import { assertEquals } from "@std/assert";

Deno.test("Yjs loads, and edits, in a worker that may do nothing, behind no_environment.ts", async () => {
  const url = (file: string) => JSON.stringify(new URL(file, import.meta.url).href);
  const code = `
    import ${url("no_environment.ts")};
    import { Doc } from ${url("yjs.ts")};
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
