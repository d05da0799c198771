/** The page: one conversation, the run in flight, and what the reader does. */

import { Code } from "./code.js";
import { Composer } from "./composer.js";
import { watchSwitch } from "./numbers.js";
import { newKey, startRun } from "./runs.js";
import { announce, notice, sentence } from "./saying.js";
import { followEnd, goToEnd } from "./scrolling.js";
import { noteSignedOut, wasSignedOut } from "./sign_in.js";
import { listen, tell } from "./tabs.js";
import { keepList } from "./threads.js";
import { Turn } from "./turn.js";

const byId = (id) => document.getElementById(id);
const [page, conversation, intro] = ["page", "conversation", "intro"].map(byId);

/** @type {Turn[]} */
let turns = Array.from(conversation.querySelectorAll(".turn"), (element) => new Turn(element));
/** A question of which nobody said whether it arrived; its key makes asking again safe. */
let unanswered = null;
let asking = false;
/** The address of what is on the page. */
let shown = location.search;

const composer = new Composer(byId("ask"));
const threads = keepList(page.dataset.threads, () => page.dataset.thread, renamed);

// Asking

/**
 * Ask, and show the new turn in place of what it replaces.
 *
 * @param {import("./composer.js").Order} order
 * @returns {Promise<boolean>} whether the service took it
 */
async function ask({ body, question, images, model }) {
  if (asking || isBusy()) {
    notice("An answer is being written. Wait for its end, or stop it.");
    return false;
  }
  asking = true;
  notice();
  announce("Asking");
  showBusy();
  const said = JSON.stringify(body);
  const key = unanswered?.said === said ? unanswered.key : newKey();
  let streamId;
  try {
    streamId = await startRun(body, key);
  } catch (error) {
    unanswered = error.retryable ? { said, key } : null;
    if (wasSignedOut(error)) return false;
    notice(`${sentence(error.message)}${error.retryable ? " Send it again: it is asked once." : ""}`);
    return false;
  } finally {
    asking = false;
    showBusy();
  }
  unanswered = null;
  add({ streamId, body, question, images, model });
  return true;
}

function add({ streamId, body, question, images, model }) {
  const { thread = "", replaces } = body;
  if (page.dataset.stream) leaveRun();
  const replaced = turns.find(({ id }) => id === replaces);
  const versions = replaced ? [...replaced.versions, streamId] : [streamId];
  if (replaced) cutFrom(replaced);
  const turn = Turn.create({
    stream_id: streamId,
    question,
    images,
    source: body.source ?? replaced.source,
    model,
    asked_model: body.model ?? replaced?.askedModel ?? "",
    versions,
    thread,
  });
  intro.hidden = true;
  append(turn);
  goToEnd();
  const address = thread ? { thread } : { stream: streamId };
  shown = `?${new URLSearchParams(address)}`;
  if (location.search !== shown) history.pushState(address, "", shown);
  page.dataset[thread ? "thread" : "stream"] = thread || streamId;
  if (thread) {
    tell({ kind: "turns", thread });
    showTitle(thread, question);
  }
}

/** A run that was shown by itself makes room for a conversation. */
function leaveRun() {
  cutFrom(turns[0]);
  page.dataset.stream = "";
}

function append(turn) {
  turns.at(-1)?.noteAnswered();
  turns.push(turn);
  conversation.append(turn.element);
  take(turn);
  if (turn.isBusy) turn.follow();
  composer.follows = turn.id;
  showBusy();
}

/** Be told when a turn's run ends. */
function take(turn) {
  turn.addEventListener("ended", () => {
    showBusy();
    tell({ kind: "turns", thread: page.dataset.thread });
  });
}

function cutFrom(turn) {
  const place = turns.indexOf(turn);
  for (const each of turns.slice(place)) each.remove();
  turns = turns.slice(0, place);
}

function isBusy() {
  return turns.at(-1)?.isBusy ?? false;
}

function showBusy() {
  const busy = asking || isBusy();
  page.dataset.state = busy ? "busy" : "idle";
  composer.busy = busy;
}

composer.addEventListener("send", async ({ detail }) => {
  if (await ask(detail)) composer.clear();
});

composer.addEventListener("stop", async () => {
  if (!isBusy()) return;
  const stopped = await turns.at(-1).stop();
  if (!stopped && isBusy()) notice("That did not reach the service: the answer goes on. Try to stop it again.");
});

intro.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { source, prompt, thread } = event.target.elements;
  const body = { prompt: prompt.value, source: source.value, thread: thread.value };
  await ask({ body, question: prompt.value, images: [], model: source.value });
  composer.focus();
});

// What is done with a turn

const turnOf = (element) => turns.find((turn) => turn.element === element.closest(".turn"));

conversation.addEventListener("submit", async (event) => {
  const turn = turnOf(event.target);
  if (!turn) return;
  event.preventDefault();
  const fields = event.target.elements;
  if (event.target.matches(".again")) {
    const { thread, source, model, prompt } = fields;
    const alone = { source: source.value, prompt: prompt.value, ...(model.value && { model: model.value }) };
    const body = thread.value ? { thread: thread.value, replaces: turn.id } : alone;
    await ask({ body, question: turn.question, images: turn.images, model: turn.model });
    composer.focus();
  } else {
    await reply(turn, event);
  }
});

/** Answer the question a graph has for a person. */
async function reply(turn, event) {
  const fields = event.target.elements;
  const resume = event.submitter?.name === "choice" ? event.submitter.value : fields.resume.value;
  if (!resume) return;
  const body = { source: fields.source.value, thread: fields.thread.value, input: { resume } };
  if (fields.follows.value) body.follows = fields.follows.value;
  if (await ask({ body, question: resume, images: [], model: turn.model })) composer.focus();
}

conversation.addEventListener("click", async (event) => {
  const control = event.target.closest(".action.edit, .action.copy");
  const turn = control && turnOf(control);
  if (!turn) return;
  if (control.matches(".edit")) {
    if (event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (isBusy()) notice("An answer is being written. Wait for its end, or stop it.");
    else composer.edit(turn);
  } else {
    await turn.copy(control);
  }
});

// The list of conversations, other tabs, other devices

function renamed(thread, title) {
  if (thread !== page.dataset.thread) return;
  byId("title").textContent = title;
  document.title = `${title} · Sluice`;
}

async function showTitle(thread, question) {
  byId("options-link").hidden = false;
  if (turns.length === 1) renamed(thread, question.slice(0, 60));
  await threads.refresh();
  const title = threads.title(thread);
  if (title) renamed(thread, title);
}

/** Look whether the conversation is still what is shown here; show what is new. */
async function look() {
  const { thread } = page.dataset;
  if (!thread || asking || new URLSearchParams(location.search).has("turn")) return;
  let found;
  try {
    const response = await fetch(`${page.dataset.threads}/${encodeURIComponent(thread)}`, {
      headers: { Accept: "application/json" },
    });
    if (response.status === 401) {
      noteSignedOut();
      return;
    }
    if (response.status === 404) {
      notice("This conversation was deleted.");
      return;
    }
    found = await response.json();
    if (!response.ok) return;
  } catch {
    return;
  }
  if (asking || page.dataset.thread !== thread) return;
  const ids = found.turns.map(({ stream_id: id }) => id);
  const isSame = turns.every(({ id }, place) => id === ids[place]);
  if (!isSame || turns.length > ids.length) {
    location.reload();
    return;
  }
  renamed(thread, found.title);
  for (const turn of found.turns.slice(turns.length)) append(Turn.fromThread(turn, thread));
}

listen(
  ({ kind, thread }) => {
    if (kind !== "turns" || thread !== page.dataset.thread) threads.refresh();
    if (thread !== page.dataset.thread) return;
    if (kind === "deleted") notice("This conversation was deleted in another tab.");
    else look();
  },
  () => {
    threads.refresh();
    look();
  },
);

// The page itself

for (const turn of turns) take(turn);
// What the server wrote has no copy buttons and no colours yet.
for (const box of conversation.querySelectorAll(".turn:not([data-state=busy]) div.code")) Code.of(box).finish();
if (isBusy()) turns.at(-1).follow();
showBusy();
watchSwitch(byId("numbers"));
followEnd(conversation, byId("to-end"));
if (turns.length && !location.hash) goToEnd();

// A link inside the page is a step of the history too, but leads nowhere else.
addEventListener("popstate", () => location.search !== shown && location.reload());

// A page that comes back out of the browser's cache has a dead connection.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
