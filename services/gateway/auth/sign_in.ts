/** What the gateway adds to signing in and opening sessions: where it was done from, and tokens as cookies for browsers. */
import type { DescMethod, Message } from "@bufbuild/protobuf";
import {
  AuthService,
  type LoginRequest,
  type LoginResponse,
  type LogoutRequest,
  type RefreshRequest,
  type RefreshResponse,
  UserService,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { type CreateSessionRequest, SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import type { Calls } from "../calls.ts";
import type { Exchange } from "../exchange.ts";
import {
  csrfRefusal,
  isCrossSite,
  isSameOrigin,
  readCookie,
  refuseCookiesInTheOpen,
  setCookie,
} from "./cookies.ts";

/** Longest user agent that is kept, in characters. */
const USER_AGENT_CHARS_MAX = 256;

/** What it takes. */
export interface SignInDeps {
  refreshPolicy(): Promise<void>;
  /** Whether pages of an origin may call with cookies. */
  isAllowedOrigin(origin: string): boolean;
}

/** Whether calls of an RPC have to be made by `withSignIn`. */
export function takesSignIn(rpc: DescMethod): boolean {
  return rpc.parent === AuthService || rpc.parent === UserService ||
    rpc === SessionService.method.createSession;
}

/** Fills in where a session is opened from, unless its opener says so: it may open sessions of its own clients. */
export function fillClient(request: CreateSessionRequest, ip: string, port: number): void {
  if (request.clientIp !== "") return;
  request.clientIp = ip;
  request.clientPort = port;
}

/** Calls with what signing in needs around them: every way in that makes unary calls has it. */
export function withSignIn(calls: Calls, deps: SignInDeps): Calls {
  return {
    ...calls,
    async unary(route, exchange, message) {
      const { rpc } = route;
      if (rpc.parent === UserService) {
        const answer = await calls.unary(route, exchange, message);
        // Whoever is told of the first user can count on it that nobody comes in without showing who they are.
        if (!route.isRead) await deps.refreshPolicy();
        return answer;
      }
      if (rpc === SessionService.method.createSession) {
        fillClient(message as CreateSessionRequest, exchange.client.ip, exchange.client.port);
      }
      if (rpc.parent !== AuthService) return await calls.unary(route, exchange, message);
      exchange.answerHeaders = [["cache-control", "no-store"]];
      switch (rpc) {
        case AuthService.method.login: {
          const { cookies } = prepareLogin(exchange, message as LoginRequest);
          const answer = await calls.unary(route, exchange, message);
          return cookies ? asCookies(exchange, answer as LoginResponse) : answer;
        }
        case AuthService.method.refresh: {
          const isByCookie = takeCookie(exchange, message as RefreshRequest);
          // When it fails the cookies stay: another tab may have been faster, and theirs are the newer ones.
          const answer = await calls.unary(route, exchange, message);
          return isByCookie ? asCookies(exchange, answer as RefreshResponse) : answer;
        }
        case AuthService.method.logout: {
          const isByCookie = takeCookie(exchange, message as LogoutRequest);
          const answer = await calls.unary(route, exchange, message);
          if (isByCookie || exchange.caller?.credential === "cookie") clearCookies(exchange);
          return answer;
        }
        default:
          return await calls.unary(route, exchange, message);
      }
    },
  };

  function prepareLogin(exchange: Exchange, request: LoginRequest): LoginRequest {
    // A page of somebody else could sign its visitor in as its author.
    if (isCrossSite(exchange, deps.isAllowedOrigin)) throw csrfRefusal();
    if (request.cookies) refuseCookiesInTheOpen(exchange);
    request.clientIp = exchange.client.ip;
    request.clientPort = exchange.client.port;
    const userAgent = exchange.headers.get("user-agent");
    if (userAgent !== null) request.metadata.user_agent = userAgent.slice(0, USER_AGENT_CHARS_MAX);
    else delete request.metadata.user_agent;
    return request;
  }

  /** Fills the refresh token in from the cookie, when the request names none. */
  function takeCookie(exchange: Exchange, request: RefreshRequest | LogoutRequest): boolean {
    if (request.refreshToken !== "") return false;
    // Who has shown who it is by other means does not speak for the browser.
    const credential = exchange.caller?.credential;
    if (credential !== undefined && credential !== "none" && credential !== "cookie") return false;
    const token = readCookie(exchange, "refresh");
    if (token === undefined) return false;
    if (!isSameOrigin(exchange, deps.isAllowedOrigin)) throw csrfRefusal();
    request.refreshToken = token;
    return true;
  }
}

/** Moves the tokens from the body, which scripts of the page can read, to cookies, which they cannot. */
function asCookies(exchange: Exchange, answer: LoginResponse | RefreshResponse): Message {
  exchange.answerHeaders!.push(
    ["set-cookie", setCookie(exchange, "access", answer.accessToken, answer.expiresIn)],
    ["set-cookie", setCookie(exchange, "refresh", answer.refreshToken, answer.refreshExpiresIn)],
  );
  const shown: LoginResponse | RefreshResponse = { ...answer, accessToken: "", refreshToken: "" };
  return shown;
}

function clearCookies(exchange: Exchange): void {
  exchange.answerHeaders!.push(
    ["set-cookie", setCookie(exchange, "access", "", 0)],
    ["set-cookie", setCookie(exchange, "refresh", "", 0)],
    ["clear-site-data", '"cache", "cookies", "storage"'],
  );
}
