/** One question and its answer: shows what its run does until it ends, and says how it ended. */

import { copy } from "./copying.js";
import { LiveNumbers } from "./numbers.js";
import { Parts } from "./parts.js";
import { followRun } from "./runs.js";
import { announce, doing, ending, numbers } from "./saying.js";
import { clone, fill, slot } from "./templates.js";

const SILENT_MS = 10_000;
const MODEL_SOURCES = ["chat", "responses"];
const LINK_TROUBLE = ["reconnecting", "polling", "signed-out"];

/**
 * @typedef {object} Asked what a new turn shows
 * @property {string} stream_id
 * @property {string} question
 * @property {string[]} images data URLs
 * @property {string} source
 * @property {string} model who answers, for people
 * @property {string} asked_model what to name when it is asked again
 * @property {string[]} versions stream ids of the turns at this place, this one last
 * @property {string} thread
 */

/** Fires `ended` when its run has ended. */
export class Turn extends EventTarget {
  #parts;
  #run = null;
  #numbers = null;
  #doing = "connecting";
  #link = "connecting";
  #heardAt = 0;
  #watch = 0;

  /** @param {HTMLElement} element an `article.turn` of the server, or of `create` */
  constructor(element) {
    super();
    this.element = element;
    const form = element.querySelector(".again");
    this.#parts = new Parts(slot(element, "parts"), {
      source: element.dataset.source,
      thread: form.elements.thread.value,
      stream_id: this.id,
    });
    element.querySelector(".action.copy").hidden = false;
  }

  /**
   * Return a new turn, to be put into the page.
   *
   * @param {Asked} asked
   * @returns {Turn}
   */
  static create(asked) {
    const element = clone("turn");
    const versions = asked.versions.join(" ");
    Object.assign(element.dataset, { stream: asked.stream_id, source: asked.source, cursor: "", versions });
    fill(element, { question: asked.question, model: asked.model });
    for (const url of asked.images) {
      const image = document.createElement("img");
      image.src = url;
      image.alt = "An image you sent";
      slot(element, "images").append(image);
    }
    const fields = element.querySelector(".again").elements;
    fields.thread.value = asked.thread;
    fields.replaces.value = asked.thread ? asked.stream_id : "";
    fields.prompt.value = asked.thread ? "" : asked.question;
    fields.source.value = asked.source;
    fields.model.value = asked.asked_model;
    showVersions(element, asked);
    element.querySelector(".action.edit").hidden = !asked.thread;
    return new Turn(element);
  }

  /**
   * Return a turn as `GET /threads/<id>` tells of it; one that runs is still to be followed.
   *
   * @param {object} told
   * @param {string} thread
   * @returns {Turn}
   */
  static fromThread(told, thread) {
    const isModel = MODEL_SOURCES.includes(told.source);
    const turn = Turn.create({
      stream_id: told.stream_id,
      question: told.prompt,
      images: imagesOf(told.messages),
      source: told.source,
      model: told.model,
      asked_model: isModel ? told.model : "",
      versions: told.versions,
      thread,
    });
    if (told.answer && told.answer.state !== "running") turn.show(told.answer);
    return turn;
  }

  get id() {
    return this.element.dataset.stream;
  }

  get isBusy() {
    return this.element.dataset.state === "busy";
  }

  get question() {
    return slot(this.element, "question").textContent;
  }

  /** @returns {string[]} data URLs */
  get images() {
    return Array.from(slot(this.element, "images").querySelectorAll("img"), (image) => image.src);
  }

  get model() {
    return slot(this.element, "model").textContent;
  }

  get source() {
    return this.element.dataset.source;
  }

  /** What to name when it is asked again; empty where the source has its own model. */
  get askedModel() {
    return this.element.querySelector(".again").elements.model.value;
  }

  /** @returns {string[]} stream ids of the turns at this place, oldest first */
  get versions() {
    return this.element.dataset.versions.split(" ");
  }

  /** The answer's text as it was written. */
  get text() {
    return this.#parts.text;
  }

  /** Follow the run from where the page is, or from the start. */
  follow() {
    const { cursor = "", created } = this.element.dataset;
    const text = this.text;
    if (cursor) this.#parts.resume();
    this.#numbers = new LiveNumbers(created ? { startedAt: created * 1000, text } : {});
    this.#run = followRun(this.id, { after: cursor, text });
    this.#heardAt = Date.now();
    this.#doing = this.#parts.isEmpty ? "connecting" : "writing";
    this.#run.addEventListener("event", ({ detail }) => this.#hear(detail));
    this.#run.addEventListener("link", ({ detail }) => this.#noteLink(detail));
    this.#run.addEventListener("reset", () => this.#parts.clear());
    this.#run.addEventListener("end", ({ detail }) => this.#end(detail));
    this.#watch = setInterval(() => this.#showProgress(), 500);
    this.#showProgress();
    announce("Answer started");
  }

  /**
   * Show an answer that has ended, from its events.
   *
   * @param {{events: object[], state: string, finish_reason?: string, error?: object, metrics?: object}} answer
   */
  show(answer) {
    for (const event of answer.events) this.#parts.show(event);
    this.#settle(ending(answer), answer.metrics);
  }

  /**
   * Stop the run; its text stays.
   *
   * @returns {Promise<boolean>} whether the service was told
   */
  async stop() {
    const before = this.#doing;
    if (before === "stopping") return true;
    this.#doing = "stopping";
    this.#showProgress();
    try {
      await this.#run.cancel();
      return true;
    } catch {
      this.#doing = before;
      this.#showProgress();
      return false;
    }
  }

  /** Copy the answer as it was written. @param {HTMLButtonElement} button */
  copy(button) {
    return copy(this.text, button);
  }

  /** Listen no more, and leave the page. */
  remove() {
    clearInterval(this.#watch);
    this.#run?.close();
    this.element.remove();
  }

  /** The interrupt that waits for an answer was given one. */
  noteAnswered() {
    for (const form of this.element.querySelectorAll(".interrupt")) {
      form.querySelector(".reply").hidden = true;
      slot(form, "answered").hidden = false;
    }
  }

  #hear(event) {
    this.#heardAt = Date.now();
    this.#numbers.count(event);
    const now = this.#parts.show(event);
    if (event.type === "start") slot(this.element, "model").textContent = event.model;
    if (!now || !doing(now) || now === this.#doing || this.#doing === "stopping") return;
    this.#doing = now;
    this.#showProgress();
  }

  #noteLink(link) {
    this.#link = link;
    this.#showProgress();
  }

  #showProgress() {
    if (!this.isBusy) return;
    slot(this.element, "numbers").textContent = this.#numbers.line;
    const trouble = LINK_TROUBLE.includes(this.#link) ? this.#link : null;
    const silent = this.#doing !== "stopping" && Date.now() - this.#heardAt > SILENT_MS;
    const { look, words, hint } = doing(trouble ?? (silent ? "stalled" : this.#doing));
    const status = this.element.querySelector(".status");
    if (status.dataset.doing !== look || slot(status, "words").textContent !== words) {
      status.dataset.doing = look;
      fill(status, { words, hint });
      if (trouble || look === "stalled") announce(`${words}. ${hint}`);
    }
  }

  /** The run is over, or cannot be read any more. */
  #end(result) {
    this.#settle(ending(result, !this.#parts.isEmpty), result.metrics);
    this.#announceEnd();
    this.dispatchEvent(new Event("ended"));
  }

  #announceEnd() {
    const words = this.text.split(/\s+/).filter(Boolean).length;
    const { textContent: said } = this.element.querySelector(".status");
    const finished = `Answer finished, ${words} ${words === 1 ? "word" : "words"}.`;
    announce(this.element.dataset.state === "done" ? finished : said.replace(/\s+/g, " ").trim());
  }

  #settle({ state, words, hint }, metrics) {
    clearInterval(this.#watch);
    this.#parts.finish();
    this.element.dataset.state = state;
    slot(this.element, "parts").ariaBusy = "false";
    const status = this.element.querySelector(".status");
    delete status.dataset.doing;
    status.hidden = !words;
    fill(status, { words, hint });
    slot(this.element, "numbers").textContent = numbers(metrics);
  }
}

function imagesOf(messages) {
  const parts = messages.flatMap(({ content }) => (Array.isArray(content) ? content : []));
  const urls = parts.map((part) => (part.type === "image_url" ? part.image_url?.url : null));
  return urls.filter((url) => url?.startsWith("data:image/"));
}

/** The turn is the last of its versions, unless it was told with later ones. */
function showVersions(element, { versions, thread, stream_id: id }) {
  const place = versions.indexOf(id);
  if (place < 1) return;
  const nav = slot(element, "versions");
  nav.hidden = false;
  slot(nav, "earlier").href = `?${new URLSearchParams({ thread, turn: versions[place - 1] })}`;
  slot(nav, "place").textContent = `${place + 1} / ${versions.length}`;
}
