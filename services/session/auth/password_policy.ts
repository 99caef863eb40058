/** Which passwords may be chosen (OWASP ASVS 5, 6.2): their length, and not one that everybody tries first. No rule asks
 *  for kinds of characters. */
import { AuthError } from "./errors.ts";

/** Characters of a password, counted as Unicode code points. */
export const PASSWORD_LENGTH = { min: 8, max: 256 } as const;

/** Words that passwords of the usual lists are made of. */
const COMMON_WORDS = new Set(
  `aaaaaa abc access account action adidas admin administrator alexander america amanda andrea andrew angel angela anthony
apple april arsenal ashley asdf asdfgh asdfghjkl august austin babygirl bailey banana barcelona baseball basketball batman
beautiful beaver bigdaddy biteme blessed blink bonjour boomer brandon bubbles buster butterfly california canada carlos
casper changeme charlie cheese chelsea chicken chocolate chris christian compaq computer cookie cooper corvette cowboy
cowboys dallas daniel danielle darkness david december default demo diamond digital dolphin dragon eagle edward einstein
elephant eminem enter estrella everton facebook falcon family ferrari fishing flower fluffy football forever fortnite france
freedom friend friends fuckyou garfield gateway george ginger golden google gordon guest guitar hallo hannah happy hardcore
harley heather hello hockey horses hunter iceman iloveu iloveyou india internet jackson jaguar january jasmine jennifer
jessica jesus jesuschrist johnny johnson jordan joseph joshua junior justin killer knight kristina lakers lauren legend
letmein linkedin liverpool login lovely lover loveyou madison maggie manager manchester manutd marina marlboro martin master
matrix matthew maverick melissa mercedes merlin metallica michael michelle mickey midnight miller minecraft monday money
monkey monster morgan mother mountain mustang naruto nascar nathan newyork nicholas nicole ninja nirvana november nothing
october oliver online orange packers pamela panther parker pass passwd password patrick peanut pepper phoenix player please
pokemon porsche prince princess private professional purple pussycat qazwsx qazwsxedc qwaszx qwer qwerty qwertyu qwertyuiop
qweasd qweasdzxc rabbit rachel racing rainbow ranger rangers realmadrid rebecca redsox richard robert rockstar root rosebud
samantha samsung sarah scooby scorpion secret secure security september service shadow shannon shopping silver simple slipknot
smokey snoopy soccer sophie spider spiderman spring starwars steelers stella steven student success summer sunday sunflower
sunshine super superman superstar support sweetheart swordfish system taylor teacher temp temporary test tester testing testtest
thomas thunder tigger tinkerbell toyota training trustno trustnoone unicorn united user valentina vanessa victoria viking
vincent warcraft warrior welcome whatever william willow windows winner winston winter wizard wonderful xbox yankees yamaha
yellow zaq zaqwsx zaq12wsx zxcvbn zxcvbnm aetherflow 147258369 963852741 789456123 159357456 741852963 321654987 123654789
123123456 112233445566 11223344 1234554321 1234567899 987654321 19841984 20002000 31415926 69696969 00000000
aa123456 cocacola dolphins`
    .split(/\s+/),
);

/** Runs of keys and digits; any part of one, either way round, is common. */
const RUNS = [
  "01234567890123456789",
  "abcdefghijklmnopqrstuvwxyz",
  "qwertyuiop[]",
  "asdfghjkl;'",
  "zxcvbnm,./",
  "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
  "qazwsxedcrfvtgbyhnujmikolp",
  "1q2w3e4r5t6y7u8i9o0p",
  "q1w2e3r4t5y6u7i8o9p0",
  "a1b2c3d4e5f6g7h8i9",
  "!@#$%^&*()_+",
].flatMap((run) => [run, [...run].reverse().join("")]);

const LEET: Readonly<Record<string, string>> = {
  "0": "o",
  "1": "i",
  "3": "e",
  "4": "a",
  "5": "s",
  "7": "t",
  "@": "a",
  "$": "s",
  "!": "i",
};

/** Longest word with what people add to it that is looked at: longer ones are no list's. */
const COMMON_LENGTH_MAX = 24;

/** @throws {AuthError} `weakPassword` that says why. */
export function checkPassword(password: string, username: string): void {
  const length = [...password].length;
  const { min, max } = PASSWORD_LENGTH;
  if (length < min || length > max) {
    throw new AuthError("weakPassword", `it has ${length} characters, expected ${min} to ${max}`);
  }
  if (isCommon(password)) throw new AuthError("weakPassword", "it is one that is often used and tried first");
  if (isLike(password, username)) throw new AuthError("weakPassword", "it is made of the user's name");
}

function isCommon(password: string): boolean {
  const text = password.toLowerCase();
  if (text.length > COMMON_LENGTH_MAX) return new Set(text).size <= 2;
  if (new Set(text).size <= 2 || RUNS.some((run) => run.includes(text))) return true;
  if (isRepeated(text) || /^(19|20)\d\d[-./]?\d\d[-./]?\d\d$|^\d\d[-./]?\d\d[-./]?(19|20)\d\d$/.test(text)) {
    return true;
  }
  return coresOf(text).some((core) => isCommonCore(core));
}

function isCommonCore(core: string): boolean {
  if (core === "") return false;
  return COMMON_WORDS.has(core) || isTwoCommonWords(core) || RUNS.some((run) => run.includes(core));
}

/** `abcabc`, `1234512345`. */
function isRepeated(text: string): boolean {
  const at = (text + text).indexOf(text, 1);
  return at < text.length && at <= 6;
}

/** Without what people put before and after a word, as it is and with letters for the signs that stand for them. */
function coresOf(text: string): string[] {
  const plain = [...text].map((character) => LEET[character] ?? character).join("");
  return [text, plain].flatMap((form) => [
    form,
    form.replace(/^[^\p{L}]+|[^\p{L}]+$/gu, ""),
    [...text.replace(/^[^\p{L}]+|[^\p{L}]+$/gu, "")].map((character) => LEET[character] ?? character).join(
      "",
    ),
  ]);
}

function isTwoCommonWords(text: string): boolean {
  for (let at = 3; at <= text.length - 3; at++) {
    if (COMMON_WORDS.has(text.slice(0, at)) && COMMON_WORDS.has(text.slice(at))) return true;
  }
  return false;
}

/** Whether a password is the name, turned round or with a few characters more. */
function isLike(password: string, username: string): boolean {
  const text = password.toLowerCase();
  const names = [username, username.split("@")[0]!].filter((name) => name.length >= 3);
  return names.some((name) =>
    [name, [...name].reverse().join("")].some((form) => text.includes(form) && text.length - form.length < 5)
  );
}
