/** Signing in: the tokens come as cookies, which no script can read. */
import { ApiError, call, wordsOf } from "../api.ts";
import { el, field, say } from "../dom.ts";

/** The form. `onDone` is called when somebody is signed in. */
export function signInView(onDone: () => void): HTMLElement {
  const username = el("input", {
    name: "username",
    autocomplete: "username",
    autocapitalize: "none",
    spellcheck: "false",
    required: true,
    autofocus: true,
  });
  const password = el("input", {
    name: "password",
    type: "password",
    autocomplete: "current-password",
    required: true,
  });
  const problem = el("p", { class: "bad-text", role: "alert" });
  const submit = el("button", { class: "primary" }, "Sign in");

  async function signIn(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    submit.disabled = true;
    say(problem, "");
    try {
      await call("POST", "/api/v1/auth/login", {
        body: { username: username.value.trim(), password: password.value, cookies: true },
      });
      password.value = "";
      onDone();
    } catch (error) {
      const isWrong = error instanceof ApiError && error.status === 401;
      say(problem, isWrong ? "The name or the password is wrong." : wordsOf(error));
      password.select();
    } finally {
      submit.disabled = false;
    }
  }

  return el(
    "div",
    { class: "sign-in" },
    el(
      "form",
      { class: "card stack", onsubmit: signIn, "aria-labelledby": "sign-in-title" },
      el("h1", { id: "sign-in-title" }, "AetherFlow"),
      field("Name", username),
      field("Password", password),
      problem,
      submit,
    ),
  );
}
