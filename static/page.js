/** The page: sends the question, shows the answer as it comes, says in words what is going on. */

import { GrowingText, goToEnd, keepingTheEnd } from "./growing_text.js";
import { sharedSluice } from "./shared.js";
import { newKey } from "./sluice.js";

const SILENT_MS = 10_000;
const TITLE_CHARACTERS = 60;

const DOING = {
  asking: "Asking",
  queued: "Waiting for a free place",
  connecting: "Connecting to the model",
  thinking: "Thinking",
  writing: "Writing",
  retrying: "The model did not answer: retrying",
  stalled: "The model is silent",
  stopping: "Stopping",
};

const LINK_TROUBLE = {
  reconnecting: "Connection lost, reconnecting",
  polling: "This network holds streams back: polling",
};

const FINISHED = {
  cancelled: "Stopped; the text so far is kept",
  length: "Ended at the length limit",
  content_filter: "Ended by the model's content filter",
};

/** Errors that are not the run's: it cannot be followed any more. */
const GONE = ["not_found", "bad_cursor", "stream_lost", "stream_expired"];

const byId = (id) => document.getElementById(id);
const [page, form, prompt, send, stop] = ["page", "ask", "prompt", "send", "stop"].map(byId);
const [status, again, intro, conversation] = ["status", "again", "intro", "conversation"].map(byId);
const [question, model, reasoning, tools] = ["question", "model", "reasoning", "tools"].map(byId);
const [answer, another] = ["answer", "another"].map(byId);

const sluice = sharedSluice(page.dataset.streams.replace(/\/streams$/, ""));
const answerText = new GrowingText(answer);
const reasoningText = new GrowingText(reasoning.querySelector("div"));

/** The run that is followed, or was: what it does, and how its connection is. */
let run = null;
/** A question of which nobody said whether it arrived; its key makes asking again safe. */
let unanswered = null;

// Saying what is going on

/**
 * Put the page in a state: `busy` while an answer is under way, else `done`, `stopped`,
 * `interrupted`, `error` or `refused`. A screen reader hears `words` when they change.
 */
function setState(state, words) {
  const isBusy = state === "busy";
  const stopHadFocus = document.activeElement === stop;
  page.dataset.state = state;
  send.disabled = isBusy;
  stop.hidden = !(isBusy && run);
  // Not disabled: that would take the focus away from a keyboard.
  stop.ariaDisabled = String(run?.doing === "stopping");
  again.hidden = !["stopped", "interrupted", "error"].includes(state);
  answer.ariaBusy = String(isBusy && run !== null);
  if (status.textContent !== words) status.textContent = words;
  if (stopHadFocus && stop.hidden) (again.hidden ? prompt : again.querySelector("button")).focus();
}

function showProgress() {
  const doing = isSilent() ? DOING.stalled : DOING[run.doing];
  setState("busy", LINK_TROUBLE[run.followed.link] ?? doing);
}

function isSilent() {
  return run.doing !== "stopping" && Date.now() - run.heardAt > SILENT_MS;
}

/** Offer to ask `source` for `text` again. */
function offer(text, source, label) {
  again.elements.prompt.value = text;
  again.elements.source.value = source;
  again.querySelector("button").textContent = label;
}

// Asking

async function submit(text, source) {
  if (send.disabled || !text.trim()) return;
  const sendHadFocus = document.activeElement === send;
  const same = unanswered?.text === text && unanswered.source === source;
  const asked = same ? unanswered : { text, source, key: newKey() };
  if (run) leave(run);
  run = null;
  setState("busy", DOING.asking);
  let begun;
  try {
    begun = await sluice.start({ prompt: text, source }, { key: asked.key });
  } catch (error) {
    unanswered = error.retryable ? asked : null;
    offer(text, source, "Retry");
    setState(error.retryable ? "error" : "refused", sentence(error.message));
    (error.retryable ? again.querySelector("button") : prompt).focus();
    return;
  }
  unanswered = null;
  showQuestion(begun.id, text, source);
  show(begun);
  goToEnd();
  if (sendHadFocus) stop.focus();
}

function showQuestion(id, text, source) {
  if (prompt.value === text) prompt.value = "";
  offer(text, source, "Ask again");
  intro.hidden = true;
  conversation.hidden = another.hidden = false;
  question.textContent = text;
  document.title = `${text.slice(0, TITLE_CHARACTERS)} · Sluice`;
  forgetAnswer();
  page.dataset.stream = id;
  history.pushState({ stream: id }, "", `?${new URLSearchParams({ stream: id })}`);
}

function forgetAnswer() {
  answerText.clear();
  reasoningText.clear();
  reasoning.hidden = true;
  reasoning.open = false;
  tools.replaceChildren();
}

// Following

function show(followed) {
  const mine = { followed, doing: followed.text ? "writing" : "connecting", heardAt: Date.now() };
  run = mine;
  followed.addEventListener("reset", forgetAnswer);
  followed.addEventListener("link", showProgress);
  followed.addEventListener("event", ({ detail }) => showEvent(mine, detail));
  followed.addEventListener("end", ({ detail }) => {
    leave(mine);
    end(...ending(detail));
  });
  mine.watch = setInterval(showProgress, 1000);
  showProgress();
}

function leave(mine) {
  clearInterval(mine.watch);
  mine.followed.close();
}

function end(state, words) {
  answerText.flush();
  reasoningText.flush();
  keepingTheEnd(() => setState(state, words));
}

function showEvent(mine, event) {
  mine.heardAt = Date.now();
  const handler = HANDLERS[event.type];
  if (!handler) return;
  const doing = handler(event);
  if (!doing || doing === mine.doing || mine.doing === "stopping") return;
  mine.doing = doing;
  showProgress();
}

/** What each event shows; a handler returns what the run is doing, where the event says so. */
const HANDLERS = {
  start(event) {
    model.textContent = event.model;
  },
  status(event) {
    return event.status in DOING ? event.status : undefined;
  },
  token(event) {
    answerText.append(event.content);
    return "writing";
  },
  reasoning(event) {
    reasoning.hidden = false;
    reasoningText.append(event.content);
    return "thinking";
  },
  tool_call(event) {
    const line = document.createElement("li");
    line.textContent = `Tool call: ${event.tool}(${event.args_text ?? JSON.stringify(event.args)})`;
    tools.append(line);
  },
};

/** Return the state and the words for a result. */
function ending({ error, finish_reason: reason, metrics, verified }) {
  if (GONE.includes(error?.type)) return ["error", `${sentence(error.message)} The text so far is kept.`];
  if (error) {
    const hint = error.retryable ? "Asking again may help." : "Asking the same again will hardly help.";
    const kept = error.partial ? " The text so far is kept." : "";
    const isInterrupted = error.type === "interrupted";
    const words = `${isInterrupted ? "Interrupted" : "Error"}: ${error.message}. ${hint}${kept}`;
    return [isInterrupted ? "interrupted" : "error", words];
  }
  const doubt = verified === false ? " The text may have gaps: its checksum differs." : "";
  const words = `${FINISHED[reason] ?? "Done"}.${numbers(metrics)}${doubt}`;
  return [reason === "cancelled" ? "stopped" : "done", words];
}

/** Write the service's message as a sentence of its own. */
function sentence(message) {
  return `${message[0].toUpperCase()}${message.slice(1)}.`;
}

function numbers(metrics) {
  if (!metrics) return "";
  const about = metrics.estimated ? "About " : "";
  const seconds = metrics.elapsed_seconds.toFixed(1);
  const pace = metrics.tokens_per_second ? ` (${metrics.tokens_per_second.toFixed(1)} tokens/s)` : "";
  return ` ${about}${metrics.tokens} tokens in ${seconds} s${pace}.`;
}

// Stopping

async function cancel() {
  const mine = run;
  const before = mine.doing;
  if (before === "stopping") return;
  mine.doing = "stopping";
  showProgress();
  try {
    await mine.followed.cancel();
  } catch {
    if (page.dataset.state !== "busy") return;
    mine.doing = before;
    setState("busy", "That did not reach the service: the answer goes on. Try to stop it again.");
  }
}

// What the reader does

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit(prompt.value, form.elements.source?.value ?? "chat");
});

again.addEventListener("submit", (event) => {
  event.preventDefault();
  submit(again.elements.prompt.value, again.elements.source.value);
});

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

stop.addEventListener("click", cancel);

addEventListener("popstate", () => {
  const wanted = new URLSearchParams(location.search).get("stream") ?? "";
  if (wanted !== page.dataset.stream) location.reload();
});

// The reader may have gone forward while this script was on its way.
if (history.state && history.state.stream !== page.dataset.stream) location.reload();

// A page that comes back out of the browser's cache has a dead connection.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

if (page.dataset.state === "busy") {
  show(sluice.follow(page.dataset.stream, { after: page.dataset.cursor, text: answer.textContent }));
}
