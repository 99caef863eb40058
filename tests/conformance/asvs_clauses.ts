/** OWASP ASVS 5.0, chapters V6 (authentication), V7 (sessions) and V9 (self-contained tokens): what is tested elsewhere than in
 *  asvs_test.ts, what does not apply, and what is not met. The same lists stand in services/session/auth/README.md. */

/** One clause, or several of one kind, and why it is here. */
export type ClauseNote = readonly [clauses: string, note: string];

/** Tested elsewhere. */
export const TESTED_ELSEWHERE: readonly ClauseNote[] = [
  ["6.2.6", "the command line's prompt does not echo: cli/auth/passwords_test.ts"],
  ["6.8.1-6.8.2", "external issuers are the gateway's: services/gateway/auth"],
  ["7.4.1", "in every interleaving: services/session/auth/interleavings_test.ts"],
  ["7.6.1", "tokens of external issuers are good until they expire; they open no session"],
];

/** There is nothing that the clause speaks of. */
export const NOT_APPLICABLE: readonly ClauseNote[] = [
  ["6.2.7", "there is no page with a field for a password"],
  ["6.3.6", "e-mail is no way to sign in"],
  ["6.4.1", "no password is generated"],
  ["6.4.4", "there is no second factor to lose"],
  ["6.4.5", "no way to sign in expires but API keys, whose owner sees when"],
  ["6.5.1-6.5.8", "no lookup secrets, one-time passwords or biometrics"],
  ["6.6.1-6.6.4", "nothing is sent out of band"],
  ["6.7.1-6.7.2", "no cryptographic authenticators"],
  ["6.8.3", "there is no SAML"],
  [
    "6.8.4",
    "no function asks how strongly an issuer has authenticated; every external caller counts as one with a password",
  ],
  ["7.1.3", "there is no single sign-on of which sessions would be a part"],
  ["7.4.4", "there are no pages; POST /api/v1/auth/logout is one call"],
  ["7.6.2", "a session is opened by POST with a password alone"],
];

/** Not met, and what stands in its place. */
export const NOT_MET: readonly ClauseNote[] = [
  ["6.2.12", "no set of breached passwords comes along: it would be gigabytes, or a service on the net"],
  ["6.3.3", "no second factor of our own; an external issuer (OpenID Connect) can ask for one"],
  [
    "6.3.5",
    "users are not told of attempts: there is no channel to them; they are in metrics and in the log",
  ],
  ["6.3.7", "users are not told of changes, for the same reason"],
  ["6.4.3", "there is no way to reset a forgotten password oneself; an administrator sets a new one"],
  ["6.4.6", "an administrator chooses the new password, and knows it until the user changes it"],
  [
    "7.5.3",
    "deleting users and keys asks for no password again; an administrator's session is what is asked for",
  ],
];
