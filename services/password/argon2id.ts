/** argon2id in WebAssembly; the code is loaded when the first password comes, so that a start does not wait for it. */
import type { Argon2id } from "./hasher.ts";

/** Works argon2id out, on this thread: about 50 ms with the default parameters. */
export const wasmArgon2id: Argon2id = async ({ password, salt, memoryKib, passes, lanes, hashBytes }) => {
  const { argon2id } = await import("hash-wasm");
  return await argon2id({
    password,
    salt,
    memorySize: memoryKib,
    iterations: passes,
    parallelism: lanes,
    hashLength: hashBytes,
    outputType: "binary",
  });
};
