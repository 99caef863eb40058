/** A worker that may use the network and nothing else: it asks a PostgreSQL server something, and tells the answer. */
import { PostgresClient, type PostgresOptions } from "../postgres/mod.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<PostgresOptions>) => void;
  postMessage(answer: string): void;
};

scope.onmessage = async ({ data }) => {
  const client = new PostgresClient(data);
  try {
    const [row] = await client.query("SELECT $1::text || current_schema() AS answer", ["the schema is "]);
    scope.postMessage(row!.answer as string);
  } catch (error) {
    scope.postMessage(String(error));
  } finally {
    await client.close();
  }
};
