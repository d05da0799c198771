/** Shows the events of an answer as its parts, in their order: text, reasoning, tools, sources, states, questions. */

import { MarkdownView } from "./markdown.js";
import { clone, fill, slot } from "./templates.js";

const BRIEF_CHARACTERS = 60;
const MOST_ANSWERS = 12;
const NEEDED = "An answer is needed to go on";

export class Parts {
  #element;
  #where;
  /** The part whose text grows, and its view; null after any other part. */
  #open = null;
  #views = new Map();

  /**
   * @param {HTMLElement} element what the server rendered in it stays, and is gone on with
   * @param {{source: string, thread: string, stream_id: string}} where for the answer to a question of the run
   */
  constructor(element, where) {
    this.#element = element;
    this.#where = where;
  }

  /**
   * Show one event.
   *
   * @param {object} event native
   * @returns {string | undefined} what the run is doing now, where the event says so
   */
  show(event) {
    return this.#handlers[event.type]?.(event);
  }

  /** Go on with the last text the server rendered. */
  resume() {
    const last = this.#element.lastElementChild;
    if (!["text", "reasoning"].includes(last?.dataset.part)) return;
    const text = sourceOf(last);
    this.#grow(last).resume(text);
  }

  /** Show the rest of the open text: nothing more comes. */
  finish() {
    this.#open?.view.finish();
    this.#open = null;
  }

  /** Forget everything. */
  clear() {
    this.finish();
    this.#views.clear();
    this.#element.replaceChildren();
  }

  /** The text of the answer as it was written, in Markdown. */
  get text() {
    const texts = this.#element.querySelectorAll(':scope > [data-part="text"]');
    return Array.from(texts, (part) => this.#views.get(part)?.text ?? sourceOf(part)).join("");
  }

  get isEmpty() {
    return !this.#element.firstElementChild;
  }

  #handlers = {
    status: (event) => event.status,
    token: (event) => this.#append("text", event.content, "writing"),
    reasoning: (event) => this.#append("reasoning", event.content, "thinking"),
    tool_call: (event) => {
      const part = this.#add("tool");
      part.dataset.call = event.id;
      const args = event.args_text ?? indented(event.args);
      fill(part, { tool: event.tool, brief: shortened(event.args_text ?? JSON.stringify(event.args)), args });
      return event.handled ? "tool" : undefined;
    },
    tool_result: (event) => {
      const called = `[data-part="tool"][data-call="${CSS.escape(event.id)}"]`;
      const part = Array.from(this.#element.querySelectorAll(called)).at(-1) ?? this.#add("tool");
      part.dataset.state = event.failed ? "failed" : "answered";
      fill(part, { tool: event.tool, outcome: event.failed ? "failed" : "done", result: indented(event.result) });
      slot(part, "answered").hidden = false;
      slot(part, "truncated").hidden = !event.truncated;
      return "connecting";
    },
    sources: (event) => {
      const list = slot(this.#add("sources"), "documents");
      for (const found of event.documents) {
        const line = clone("source");
        fill(line, { title: found.title || found.id, score: found.score?.toFixed(2) ?? "", snippet: found.snippet });
        list.append(line);
      }
    },
    state: (event) => {
      const node = event.node || (event.namespace ?? []).join(".");
      fill(this.#add("state"), { mode: event.mode, node, data: indented(event.data) });
    },
    interrupt: (event) => {
      ask(this.#add("interrupt"), event.value, this.#where);
    },
  };

  #append(kind, text, doing) {
    if (this.#open?.part.dataset.part !== kind) {
      if (!text) return undefined;
      this.#grow(this.#add(kind));
    }
    this.#open.view.append(text);
    return doing;
  }

  #grow(part) {
    const view = new MarkdownView(part.querySelector(".markdown"), inPlace);
    this.#views.set(part, view);
    this.#open = { part, view };
    return view;
  }

  #add(name) {
    this.finish();
    const part = clone(name);
    this.#element.append(part);
    return part;
  }
}

/** The page keeps the reader's place itself. */
function inPlace(change) {
  change();
}

/** Fill in the form of an interrupt: what is asked, the answers to choose from, where the answer goes. */
function ask(form, value, where) {
  const { question, details, answers } = read(value);
  fill(form, { question, details });
  slot(form, "details").hidden = !details;
  for (const text of answers) {
    const button = clone("answer");
    button.value = button.textContent = text;
    slot(form, "answers").append(button);
  }
  if (answers.length > 0) fill(form, { label: "Or something else" });
  form.elements.source.value = where.source;
  form.elements.thread.value = where.thread;
  form.elements.follows.value = where.stream_id;
}

function read(value) {
  if (typeof value === "string") return { question: value, details: "", answers: [] };
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    return { question: NEEDED, details: indented(value), answers: [] };
  }
  const { question, answers, ...rest } = value;
  const told = typeof question === "string" ? rest : { ...(question === undefined ? {} : { question }), ...rest };
  const left = Object.values(told);
  const offered = Array.isArray(answers) && answers.every((each) => typeof each === "string") ? answers : [];
  return {
    question: typeof question === "string" ? question : NEEDED,
    details: left.length ? indented(left.length === 1 ? left[0] : told) : "",
    answers: offered.slice(0, MOST_ANSWERS),
  };
}

function sourceOf(part) {
  return part.querySelector("template.source")?.content.textContent ?? "";
}

function indented(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function shortened(text) {
  return text.length > BRIEF_CHARACTERS ? `${text.slice(0, BRIEF_CHARACTERS)}…` : text;
}
