import { assertEquals } from "@std/assert";
import type { Exchange } from "../exchange.ts";
import { corsConfigSchema } from "./config.ts";
import { createCors } from "./cors.ts";

function exchangeOf(method: string, fields: Record<string, string>): Exchange {
  const headers = new Headers(fields);
  return { method, headers, origin: fields.origin, requestId: "id" } as unknown as Exchange;
}

function applied(config: unknown, origin: string | undefined, vary?: string): Record<string, string> {
  const answer = new Headers(vary === undefined ? {} : { vary });
  const fields: Record<string, string> = origin === undefined ? {} : { origin };
  createCors(corsConfigSchema.parse(config)).apply(exchangeOf("GET", fields), answer);
  return Object.fromEntries(answer);
}

const PAGE = "https://app.example.com";

Deno.test("Cors.apply() lets listed origins read, and no other", () => {
  const one = { origins: [PAGE], exposeHeaders: ["ETag"] };
  const allowed = {
    "access-control-allow-origin": PAGE,
    "access-control-expose-headers": "ETag",
    vary: "Origin",
  };
  assertEquals(applied({}, PAGE), {});
  assertEquals(applied(one, PAGE), allowed);
  assertEquals(applied({ ...one, credentials: true }, PAGE), {
    ...allowed,
    "access-control-allow-credentials": "true",
  });
  const others = [
    "https://app.example.com.evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "null",
  ];
  for (const origin of [undefined, ...others]) {
    assertEquals(applied({ ...one, credentials: true }, origin), { vary: "Origin" }, origin);
  }
  assertEquals(applied({ origins: ["*"], exposeHeaders: [] }, "https://evil.example"), {
    "access-control-allow-origin": "*",
  });
  assertEquals(applied(one, PAGE, "Accept").vary, "Accept, Origin");
  assertEquals(applied(one, PAGE, "Accept, origin").vary, "Accept, origin");
});

Deno.test("Cors.preflight() answers listed origins, and leaves every other OPTIONS alone", () => {
  const ask = { origin: PAGE, "access-control-request-method": "PUT" };
  const cors = createCors(
    corsConfigSchema.parse({ origins: [PAGE], headers: ["TTL"], methods: ["PUT"], maxAgeS: 5 }),
  );
  const answer = cors.preflight(exchangeOf("OPTIONS", ask))!;
  cors.apply(exchangeOf("OPTIONS", ask), answer.headers);
  assertEquals([answer.status, Object.fromEntries(answer.headers)], [204, {
    "access-control-allow-headers": "TTL",
    "access-control-allow-methods": "PUT",
    "access-control-allow-origin": PAGE,
    "access-control-max-age": "5",
    vary: "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    "x-request-id": "id",
  }]);
  const others = [
    exchangeOf("GET", ask),
    exchangeOf("OPTIONS", { origin: PAGE }),
    exchangeOf("OPTIONS", { ...ask, origin: "https://evil.example" }),
    exchangeOf("OPTIONS", { "access-control-request-method": "PUT" }),
  ];
  for (const exchange of others) assertEquals(cors.preflight(exchange), undefined);
  assertEquals(createCors(corsConfigSchema.parse({})).preflight(exchangeOf("OPTIONS", ask)), undefined);
});

Deno.test("corsConfigSchema refuses origins that no browser sends, and * with cookies", () => {
  const bad = [
    { origins: ["https://app.example.com/"] },
    { origins: ["app.example.com"] },
    { origins: ["HTTPS://APP.example.com"] },
    { origins: ["null"] },
    { origins: ["*"], credentials: true },
    { headers: ["a b"] },
    { methods: ["get"] },
    { maxAgeS: -1 },
  ];
  for (const config of bad) {
    assertEquals(corsConfigSchema.safeParse(config).success, false, JSON.stringify(config));
  }
});
