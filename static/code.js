/**
 * Code of an answer: coloured a piece at a time while it is written, with a button that copies it.
 *
 * A piece is a few lines in a box of their own, so that a browser lays out the last of them again
 * and not all of the code. Pieces end where highlight.js is inside of nothing; it then goes on with
 * the next as it would have with the whole.
 */

import hljs from "./vendor/highlight.js";

const PIECE_CHARACTERS = 2_000;
const MOST_CHARACTERS = 12_000;
const STEP_MS = 8;
const PAUSE_MS = 100;
const SHARE = 8;
const SAID_MS = 2_000;

const known = new WeakMap();

/** @param {Node} node */
export function isCode(node) {
  return node.nodeType === Node.ELEMENT_NODE && node.classList.contains("code") && node.matches("div");
}

export class Code {
  #box;
  #element;
  #language = "";
  #pieces = [];
  #isWhole = false;
  #notBefore = 0;

  /** @param {HTMLElement} box a `div.code` of the dialect */
  constructor(box) {
    this.#box = box;
    known.set(box, this);
    this.#adopt();
  }

  /** @param {HTMLElement} box */
  static of(box) {
    return known.get(box) ?? new Code(box);
  }

  /** Take care of all code in `node`. */
  static adoptIn(node) {
    if (isCode(node)) Code.of(node);
    else for (const box of node.querySelectorAll("div.code")) Code.of(box);
  }

  /** Colour to the end, also a last line without an end. */
  finish() {
    this.#isWhole = true;
    later(this);
  }

  /**
   * @param {string} text goes after what is there
   */
  grow(text) {
    let rest = text;
    while (rest) {
      const piece = this.#openPiece();
      const room = Math.max(0, PIECE_CHARACTERS - piece.text.length - 1);
      const end = rest.indexOf("\n", room) + 1 || rest.length;
      piece.text += rest.slice(0, end);
      piece.element.append(rest.slice(0, end));
      rest = rest.slice(end);
    }
    if (text) later(this);
  }

  /**
   * Show what `fresh` shows; its text is most often this one's, and more.
   *
   * @param {HTMLElement} fresh a `div.code`
   */
  become(fresh) {
    const element = fresh.querySelector("code");
    const language = fresh.querySelector(".language").textContent;
    const text = element.textContent;
    const shown = this.#text();
    if (language === this.#language && text.startsWith(shown)) {
      this.grow(text.slice(shown.length));
      return;
    }
    this.#box.replaceChildren(...fresh.childNodes);
    this.#adopt();
  }

  /**
   * Colour a piece.
   *
   * @returns {number | null} when there is more to do, as of `performance.now()`; null for nothing
   */
  step() {
    const at = this.#pieces.findIndex(({ isSettled }) => !isSettled);
    if (at < 0 || !hljs.getLanguage(this.#language)) return null;
    const piece = this.#pieces[at];
    const isLast = at === this.#pieces.length - 1;
    if (piece.text.length > MOST_CHARACTERS * 2) piece.isSettled = !isLast;
    else if (isLast) return this.#colourLast(piece);
    else if (this.#colour(piece, piece.text) || piece.text.length >= MOST_CHARACTERS) piece.isSettled = true;
    else this.#join(at);
    return isLast ? null : performance.now();
  }

  #adopt() {
    this.#element = this.#box.querySelector("code");
    this.#language = this.#box.querySelector(".language").textContent;
    const text = this.#element.textContent;
    this.#element.replaceChildren();
    this.#pieces = [];
    this.#isWhole = false;
    this.grow(text);
    if (!this.#box.querySelector(".copy")) this.#box.querySelector(".code-head").append(copyButton());
  }

  #text() {
    return this.#pieces.map(({ text }) => text).join("");
  }

  #openPiece() {
    const last = this.#pieces.at(-1);
    if (last && !(last.text.length >= PIECE_CHARACTERS && last.text.endsWith("\n"))) return last;
    const element = document.createElement("span");
    element.className = "lines";
    this.#element.append(element);
    const piece = { element, text: "", isSettled: false, coloured: 0 };
    this.#pieces.push(piece);
    return piece;
  }

  /** While a piece is written its whole lines are coloured now and then. */
  #colourLast(piece) {
    const end = this.#isWhole ? piece.text.length : piece.text.lastIndexOf("\n") + 1;
    if (end === piece.coloured) return null;
    const now = performance.now();
    if (now < this.#notBefore) return this.#notBefore;
    this.#colour(piece, piece.text.slice(0, end));
    this.#notBefore = performance.now() + Math.max(PAUSE_MS, SHARE * (performance.now() - now));
    return null;
  }

  /** Return whether the next piece can be coloured for itself. */
  #colour(piece, text) {
    const result = hljs.highlight(text, { language: this.#language, ignoreIllegals: true });
    const rest = piece.text.slice(text.length);
    piece.element.replaceChildren(...nodesOf(result._emitter.root), ...(rest ? [rest] : []));
    piece.coloured = text.length;
    return !result._top?.parent;
  }

  #join(at) {
    const [piece, next] = this.#pieces.splice(at, 2);
    next.text = piece.text + next.text;
    next.coloured = 0;
    next.element.prepend(piece.text);
    piece.element.remove();
    this.#pieces.splice(at, 0, next);
  }
}

/** Elements for what highlight.js found: no markup is written and none is parsed. */
function nodesOf({ children }) {
  return children.map((child) => {
    if (typeof child === "string") return document.createTextNode(child);
    const nodes = nodesOf(child);
    if (!child.scope) {
      const fragment = document.createDocumentFragment();
      fragment.append(...nodes);
      return fragment;
    }
    const element = document.createElement("span");
    element.className = classOf(child.scope);
    element.append(...nodes);
    return element;
  });
}

/** As highlight.js names its classes. */
function classOf(scope) {
  if (scope.startsWith("language:")) return scope.replace("language:", "language-");
  const [first, ...parts] = scope.split(".");
  return [`hljs-${first}`, ...parts.map((part, depth) => part + "_".repeat(depth + 1))].join(" ");
}

// Colouring in the time nothing else needs

const waiting = new Set();
let isScheduled = false;

function later(code) {
  waiting.add(code);
  if (!isScheduled) schedule(0);
}

function schedule(milliseconds) {
  isScheduled = true;
  if (milliseconds > 0) setTimeout(schedule, milliseconds, 0);
  else if (globalThis.requestIdleCallback) requestIdleCallback(colourSome, { timeout: 300 });
  else setTimeout(colourSome, 16);
}

function colourSome() {
  const began = performance.now();
  let next = Infinity;
  for (const code of waiting) {
    let due = began;
    while (due !== null && due <= performance.now()) {
      if (performance.now() - began > STEP_MS) {
        schedule(1);
        return;
      }
      due = code.step();
    }
    if (due === null) waiting.delete(code);
    else next = Math.min(next, due);
  }
  isScheduled = false;
  if (waiting.size) schedule(Math.max(1, next - performance.now()));
}

// Copying

/**
 * Put `text` on the clipboard.
 *
 * @param {string} text
 * @returns {Promise<boolean>} whether it is there
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page that was loaded over plain HTTP from another machine has no such clipboard.
    return copySelected(text);
  }
}

function copySelected(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return isCopied;
}

function copyButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.ariaLabel = "Copy code";
  return button;
}

let said = null;

/** Tell a screen reader, which hears nothing when a button's words change. */
function say(words) {
  if (!said?.isConnected) {
    said = document.createElement("p");
    said.className = "unseen";
    said.role = "status";
    document.body.append(said);
  }
  said.textContent = words;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("div.code .copy");
  if (!button) return;
  const isCopied = await copyText(button.closest("div.code").querySelector("code").textContent);
  button.textContent = isCopied ? "Copied" : "Not copied";
  say(isCopied ? "Copied" : "The browser did not let this be copied");
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = "Copy";
    say("");
  }, SAID_MS);
});
