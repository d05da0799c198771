/** Where one asks: the question, its images, who is asked, the instructions; and the button that sends or stops. */

import { Images } from "./images.js";
import { notice } from "./saying.js";

const DRAFT = "sluice.draft:";

/**
 * @typedef {object} Order what to ask for, as `POST /streams` takes it, and what to show of it
 * @property {object} body
 * @property {string} question
 * @property {string[]} images
 * @property {string} model for people
 */

/** Fires `send` with an `Order`, `stop`, and `leave` when an edit is given up. */
export class Composer extends EventTarget {
  #form;
  #prompt;
  #send;
  #images;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    super();
    this.#form = form;
    this.#prompt = form.elements.prompt;
    this.#send = form.querySelector("#send");
    this.#images = new Images(form.querySelector("#images"));
    this.#images.addEventListener("refused", ({ detail }) => notice(detail));
    this.#listen();
    this.#takeImages();
    this.#restoreDraft();
    this.#noteInstructions();
    this.#fit();
  }

  /** The conversation questions go to. */
  get thread() {
    return this.#form.elements.thread.value;
  }

  /** The button stops while an answer is under way. @param {boolean} busy */
  set busy(busy) {
    const does = busy ? "stop" : "send";
    if (this.#send.dataset.does === does) return;
    this.#send.dataset.does = does;
    this.#send.ariaLabel = busy ? "Stop" : "Send";
  }

  /** The turn that the next question comes after. @param {string} streamId */
  set follows(streamId) {
    this.#form.elements.follows.value = streamId;
  }

  focus() {
    this.#prompt.focus();
  }

  /**
   * Ask in place of a turn: its question is there to be changed.
   *
   * @param {{id: string, question: string, images: string[]}} turn
   */
  edit(turn) {
    this.#form.elements.replaces.value = turn.id;
    this.#prompt.value = turn.question;
    this.#images.replace(turn.images);
    this.#form.querySelector("#editing").hidden = false;
    this.#fit();
    this.focus();
    this.#prompt.setSelectionRange(turn.question.length, turn.question.length);
  }

  /** Forget the question: it was sent, or is not to be changed after all. */
  clear() {
    this.#prompt.value = this.#form.elements.replaces.value = "";
    this.#images.clear();
    this.#form.querySelector("#editing").hidden = true;
    this.#keepDraft();
    this.#fit();
  }

  #listen() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const stops = this.#send.dataset.does === "stop";
      const pressed = event.submitter === this.#send;
      if (stops && pressed) this.dispatchEvent(new Event("stop"));
      else if (stops) notice("An answer is being written. Wait for its end, or stop it.");
      else this.#submit();
    });
    this.#send.addEventListener("click", (event) => {
      // The second click of a double click on Send is not meant to stop.
      if (event.detail > 1) event.preventDefault();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#prompt.addEventListener("input", () => {
      notice();
      this.#keepDraft();
      this.#fit();
    });
    this.#form.querySelector("#leave-editing").addEventListener("click", (event) => {
      event.preventDefault();
      this.clear();
      this.focus();
    });
    this.#form.elements.instructions.addEventListener("input", () => this.#noteInstructions());
    document.addEventListener("click", ({ target }) => this.#foldInstructions(target));
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.#foldInstructions(null));
  }

  #submit() {
    const { replaces, follows, instructions, answerer } = this.#form.elements;
    const question = this.#prompt.value;
    const images = this.#images.urls;
    if (!question.trim() && !images.length) {
      this.focus();
      return;
    }
    const chosen = answerer.selectedOptions[0];
    const body = { ...asked(question, images), ...answererOf(answerer.value), thread: this.thread };
    if (instructions.value.trim()) body.instructions = instructions.value;
    if (replaces.value) body.replaces = replaces.value;
    else if (follows.value) body.follows = follows.value;
    const detail = { body, question, images, model: chosen?.textContent ?? "" };
    this.dispatchEvent(new CustomEvent("send", { detail }));
  }

  #takeImages() {
    const files = this.#form.querySelector("#image-files");
    const add = this.#form.querySelector("#add-image");
    add.hidden = false;
    add.addEventListener("click", () => files.click());
    files.addEventListener("change", async () => {
      await this.#images.add(files.files);
      files.value = "";
      this.focus();
    });
    this.#prompt.addEventListener("paste", (event) => {
      const pasted = Array.from(event.clipboardData.files).filter(isImage);
      if (!pasted.length) return;
      event.preventDefault();
      this.#images.add(pasted);
    });
    // Anywhere on the page: a file dropped beside the form would replace the page.
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this.#form.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) this.#form.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      this.#form.classList.remove("dropping");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.#images.add(event.dataTransfer.files);
    });
  }

  /** Grow with the text, where the browser does not do so by itself. */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
  }

  #noteInstructions() {
    const { instructions } = this.#form.elements;
    instructions.closest("details").classList.toggle("given", instructions.value.trim() !== "");
  }

  #foldInstructions(target) {
    const panel = this.#form.querySelector("#instructions");
    if (!panel.open || panel.contains(target)) return;
    const hadFocus = panel.contains(document.activeElement);
    panel.open = false;
    if (hadFocus) panel.querySelector("summary").focus();
  }

  // What was typed and not sent outlives a reload, and a page that is fetched again.

  get #draftName() {
    return DRAFT + (new URLSearchParams(location.search).get("thread") ?? "");
  }

  #keepDraft() {
    try {
      if (this.#prompt.value) sessionStorage.setItem(this.#draftName, this.#prompt.value);
      else sessionStorage.removeItem(this.#draftName);
    } catch {
      // A browser that keeps nothing has no drafts.
    }
  }

  #restoreDraft() {
    if (this.#prompt.value || this.#form.elements.replaces.value) return;
    try {
      this.#prompt.value = sessionStorage.getItem(this.#draftName) ?? "";
    } catch {
      // As above.
    }
  }
}

/**
 * Return the fields of an order for a value of the choice: `model:<name>` or `runnable:<name>`.
 *
 * @param {string} value
 * @returns {{source: string, model?: string}}
 */
export function answererOf(value) {
  const [kind, ...name] = value.split(":");
  return kind === "runnable" ? { source: name.join(":") } : { source: "chat", model: name.join(":") };
}

function asked(question, images) {
  if (!images.length) return { prompt: question };
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  if (question.trim()) parts.unshift({ type: "text", text: question });
  return { messages: [{ role: "user", content: parts }] };
}

function isImage(file) {
  return file.type.startsWith("image/");
}
