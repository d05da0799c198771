/** Signing in again, without leaving the page: a session may end in the middle of anything. */

import { notice, sentence } from "./saying.js";
import { hear, tell } from "./tabs.js";

const line = document.getElementById("signed-out");
/** Only where one signs in with a key. */
const dialog = document.getElementById("sign-in");
const refused = document.getElementById("sign-in-refused");
let waiting = [];

/**
 * Say that nobody is signed in any more, and wait until somebody is: here, or in another tab.
 *
 * @returns {Promise<boolean>} true; there is no end but that one
 */
export function signedIn() {
  noteSignedOut();
  return new Promise((resolve) => waiting.push(resolve));
}

/** Say that nobody is signed in any more. */
export function noteSignedOut() {
  line.hidden = false;
}

/** Ask for the key now: who is there wanted something. */
export function askToSignIn() {
  noteSignedOut();
  if (dialog && !dialog.open) dialog.showModal();
}

/**
 * Say whether it was refused because nobody is signed in, and ask for the key if so.
 *
 * @param {{status?: number}} answer a response, or a `SluiceError`
 * @returns {boolean}
 */
export function wasSignedOut({ status }) {
  if (status !== 401) return false;
  askToSignIn();
  return true;
}

function welcome() {
  line.hidden = true;
  dialog?.close();
  for (const resolve of waiting.splice(0)) resolve(true);
}

async function send(form) {
  let response;
  try {
    response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
  } catch {
    return "The service cannot be reached.";
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) return sentence(body.error?.message);
  form.reset();
  tell({ kind: "signed-in", csrf: body.csrf });
  take(body.csrf);
  return "";
}

/** The forms of the page belong to the new session from now on. */
function take(csrf) {
  const roots = [document, ...Array.from(document.querySelectorAll("template"), ({ content }) => content)];
  for (const root of roots) for (const field of root.querySelectorAll("input[name=csrf]")) field.value = csrf;
  welcome();
}

function say(words) {
  refused.textContent = words;
  refused.hidden = !words;
}

line.querySelector("button")?.addEventListener("click", askToSignIn);

dialog?.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  say("");
  const wrong = await send(event.target);
  button.disabled = false;
  say(wrong);
  if (wrong) event.target.elements.key.select();
});

dialog?.querySelector(".close").addEventListener("click", () => dialog.close());

document.getElementById("sign-out")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const body = new URLSearchParams(new FormData(form));
  const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" }, body }).catch(() => null);
  // Already out, or out now.
  if (!answer?.ok && answer?.status !== 401) {
    notice("That did not reach the service: you are still signed in. Try it again.");
    return;
  }
  tell({ kind: "signed-out" });
  location.assign(location.pathname);
});

// Whoever signed in on a page of its own comes back here, and the other tabs may wait for that.
const token = document.querySelector("input[name=csrf]")?.value;
if (token) tell({ kind: "signed-in", csrf: token });

hear(({ kind, csrf }) => {
  if (kind === "signed-in") take(csrf);
  // What is shown here is nobody's to read any more.
  if (kind === "signed-out") location.reload();
});
