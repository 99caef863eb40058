// Made by `deno task console` from services/gateway/console/page. Do not edit.

/** The document, with `@nonce@` where each answer has its own. */
export const HTML: string = "<!doctype html>\n<html lang=\"en\">\n  <head>\n    <meta charset=\"utf-8\">\n    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n    <meta name=\"color-scheme\" content=\"light dark\">\n    <meta name=\"style-nonce\" content=\"@nonce@\">\n    <title>AetherFlow</title>\n    <link rel=\"icon\" href=\"/console/icon-3096ee1a109f.svg\">\n    <link rel=\"stylesheet\" href=\"/console/style-5506972ca229.css\">\n    <script type=\"module\" src=\"/console/main-a60c497f0608.js\"></script>\n  </head>\n  <body>\n    <noscript>This page needs JavaScript. The API is described at /openapi.json.</noscript>\n  </body>\n</html>\n";

/** What the document loads: names have the hash of the content, contents are gzip as base64. */
export const ASSETS: readonly { readonly name: string; readonly type: string; readonly gzip: string }[] = [
  { name: "icon-3096ee1a109f.svg", type: "image/svg+xml", gzip: "H4sIAAAAAAAC/z1PzVLDIBC+9yl21jOBQC2NE3rw7kNUIIERIUOw1LeXqOnMHna/+f52XG8z3D9DXBW6UpYXSmutXRVdyjPljDHaGAg3b+truitkwEDwNng5AIzZ6gLVm+IUNgyc9bMrf3tu9DPC5ENQ+CTkszQnBPqrW67FgVH4JoEzfSQDSBDQMyLWI5FwJmIXxhQtwlpy+rDNZpqm/SL/ubw7PaDgo9XXRWFOX9HsadpnHSzoVmhA0N8K+77126T8UXAw73wzb5Jxe/py+AH2Zy9lHQEAAA==" },
  { name: "main-a60c497f0608.js", type: "text/javascript; charset=utf-8", gzip: "H4sIAAAAAAAC/0vJTy7NTc0r0UvKT6nUSywoSM1L0VByTC3JSC1yy8kvV9K05gIACvXvSSQAAAA=" },
  { name: "style-5506972ca229.css", type: "text/css; charset=utf-8", gzip: "H4sIAAAAAAAC/0vKT6lUqObKTSxKz8yzUjCw5qoFAGYp41ATAAAA" },
];
