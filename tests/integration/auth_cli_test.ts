/** Users, keys and sessions by the command line, against the whole product. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { EXIT } from "../../services/host/exit_code.ts";
import { FREE_PORTS, runProduct, startProduct } from "../support/product.ts";
import { projectFile, ROOT } from "../support/paths.ts";

const PASSWORD = "correct horse battery";

Deno.test("a first user, a second one, a key and a session, by the command line", async () => {
  await using product = await startProduct();
  const endpoint = product.addresses.http!;

  /** Runs a command; `input` goes to its standard input. */
  async function run(args: string, options: { input?: string; env?: Record<string, string> } = {}) {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-q",
        "--config",
        projectFile("deno.json"),
        "-P=start",
        projectFile("main.ts"),
        ...args.split(" "),
      ],
      cwd: ROOT,
      env: { AETHERFLOW_ENDPOINT: endpoint, ...options.env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.input ?? ""));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const decoder = new TextDecoder();
    return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  }

  // While there are no users, anybody on this machine may do everything.
  assertStringIncludes((await run("whoami")).stdout, "kind\tdeveloper");
  const added = await run("user add root --json", { input: `${PASSWORD}\n` });
  assertEquals([added.code, JSON.parse(added.stdout).roles], [0, ["admin", "member"]], added.stderr);
  assertEquals((await run("user list")).code, 1);

  const env = { AETHERFLOW_PASSWORD: PASSWORD };
  const alice = await run("user add alice --grant kv:alice/:w --user root --json", {
    env,
    input: `${PASSWORD}\n`,
  });
  assertEquals([alice.code, JSON.parse(alice.stdout).roles], [0, ["member"]], alice.stderr);
  assertEquals((await run("user add alice --user root", { env, input: `${PASSWORD}\n` })).code, 1);

  const login = await run("login root", { env });
  assertMatch(login.stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
  const token = { AETHERFLOW_TOKEN: login.stdout.trim() };
  assertEquals((await run("user list", { env: token })).stdout, "alice\tmember\nroot\tadmin,member\n");

  // A key does what its user may do, and no more.
  const key = { AETHERFLOW_TOKEN: (await run("key create k --user alice", { env })).stdout.trim() };
  assertMatch(key.AETHERFLOW_TOKEN, /^afk_/);
  assertEquals((await run("kv put alice/x 1", { env: key })).code, 0);
  assertEquals((await run("kv put other/x 1", { env: key })).code, 1);
  assertEquals((await run("user list", { env: key })).code, 1);

  // What is taken away is gone with the next request.
  assertEquals((await run("user disable alice", { env: token })).code, 0);
  assertEquals((await run("kv get alice/x", { env: key })).code, 1);
  assertEquals((await run("user enable alice", { env: token })).code, 0);
  assertEquals((await run("kv get alice/x", { env: key })).stdout, "1");
  assertEquals((await run("user sign-out alice", { env: token })).stdout, "ended 0 sessions and 1 keys\n");
  assertEquals((await run("kv get alice/x", { env: key })).code, 1);
  assertEquals((await run("user delete alice", { env: token })).code, 0);
  assertEquals((await run("user delete alice", { env: token })).code, 0);
  assertEquals((await run("user show alice", { env: token })).code, 3);

  const [session] = (await run("session list --mine --json", { env: token })).stdout.trim().split("\n");
  assert(session !== undefined);
  assertEquals((await run(`session end ${JSON.parse(session).sessionId}`, { env: token })).code, 0);
  assertEquals((await run("whoami", { env: token })).code, 1);
});

Deno.test("session.auth.mode=required starts with an administrator of session.auth.bootstrap, and not without", async () => {
  const data = await Deno.makeTempDir();
  const start = ["start", "--data", data, "--set", "session.auth.mode=required", ...FREE_PORTS];
  const refused = await runProduct(start, { cwd: data });
  await Deno.remove(data, { recursive: true });
  assertEquals(refused.code, EXIT.config);
  assertStringIncludes(
    refused.stderr,
    "set session.auth.bootstrap.username and session.auth.bootstrap.password",
  );

  await using product = await startProduct({
    args: ["--set", "session.auth.mode=required", "--set", "session.auth.bootstrap.username=boss"],
    env: { AETHERFLOW_SESSION__AUTH__BOOTSTRAP__PASSWORD: PASSWORD },
  });
  const endpoint = product.addresses.http!;
  const me = await fetch(`${endpoint}/api/v1/auth/me`);
  await me.body?.cancel();
  assertEquals(me.status, 401);
  const login = await fetch(`${endpoint}/api/v1/auth/login`, {
    method: "POST",
    body: JSON.stringify({ username: "boss", password: PASSWORD }),
    headers: { "content-type": "application/json" },
  });
  const { accessToken } = await login.json();
  const metrics = await fetch(`${endpoint}/metrics`, { headers: { authorization: `Bearer ${accessToken}` } });
  const figures = await metrics.text();
  assertMatch(figures, /aetherflow_auth_logins_total\{result="ok",worker="session"\} 1/);
  assertMatch(figures, /aetherflow_auth_password_hashes_total\{worker="password"\} [23]/);
  const guess = () =>
    fetch(`${endpoint}/api/v1/auth/login`, {
      method: "POST",
      body: JSON.stringify({ username: "nobody", password: "a guess" }),
      headers: { "content-type": "application/json" },
    });
  for (let i = 0; i < 10; i++) {
    const wrong = await guess();
    await wrong.body?.cancel();
    assertEquals(wrong.status, 401);
  }
  const throttled = await guess();
  await throttled.body?.cancel();
  assertEquals([throttled.status, Number(throttled.headers.get("retry-after")) > 800], [429, true]);
  // It holds the keys that sign tokens.
  const { mode } = await Deno.stat(`${product.data}/session/users.sqlite`);
  assertEquals(mode! & 0o777, 0o600);
});
