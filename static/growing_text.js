/** Shows text that grows: once per frame, as text and never as markup. */

const HIDDEN_FRAME_MS = 500;
const BLOCK_CHARACTERS = 2_000;
const NEAR_END_PIXELS = 64;

export class GrowingText {
  #element;
  #block;
  #blockCharacters = 0;
  #waiting = [];
  #frame = 0;
  #timer = 0;

  /** @param {HTMLElement} element what is in it, in a `.block`, stays */
  constructor(element) {
    this.#element = element;
    this.#block = element.querySelector(".block:last-child");
    if (this.#block) this.#blockCharacters = this.#block.textContent.length;
    else this.#startBlock();
  }

  /** @param {string} text shown with the next frame */
  append(text) {
    this.#waiting.push(text);
    if (this.#timer) return;
    const draw = () => this.flush();
    this.#frame = requestAnimationFrame(draw);
    // A hidden tab has no frames.
    this.#timer = setTimeout(draw, HIDDEN_FRAME_MS);
  }

  /** Show what was appended, now. */
  flush() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#timer = 0;
    const text = this.#waiting.join("");
    this.#waiting = [];
    if (!text) return;
    keepingTheEnd(() => this.#show(text));
  }

  /** Forget everything, shown or not. */
  clear() {
    this.#waiting = [];
    this.flush();
    this.#element.replaceChildren();
    this.#startBlock();
  }

  /**
   * Text goes into blocks that end at a line's end, so that a browser lays out
   * the last of them again and not the whole answer.
   */
  #show(text) {
    const cut = this.#blockCharacters < BLOCK_CHARACTERS ? 0 : text.indexOf("\n") + 1;
    this.#add(text.slice(0, cut));
    if (cut) this.#startBlock();
    this.#add(text.slice(cut));
  }

  #add(text) {
    if (text) this.#block.append(text);
    this.#blockCharacters += text.length;
  }

  #startBlock() {
    this.#blockCharacters = 0;
    this.#block = document.createElement("span");
    this.#block.className = "block";
    this.#element.append(this.#block);
  }
}

/**
 * Change the page; a reader who was at its end stays there, any other stays where they were.
 *
 * @param {() => void} change
 */
export function keepingTheEnd(change) {
  const page = document.documentElement;
  const wasAtEnd = scrollY + innerHeight >= page.scrollHeight - NEAR_END_PIXELS;
  change();
  if (wasAtEnd) goToEnd();
}

/** Scroll to the end of the page. */
export function goToEnd() {
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}
