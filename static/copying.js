/** Puts text on the clipboard, and says so on the button that was pressed. */

import { copyText } from "./code.js";
import { announce } from "./saying.js";

const SAID_MS = 2000;

/**
 * Copy `text`; `button` says "Copied" for a moment.
 *
 * @param {string} text
 * @param {HTMLButtonElement} button with its label in a span
 */
export async function copy(text, button) {
  const done = await copyText(text);
  const label = button.querySelector("span");
  const words = done ? "Copied" : "Not copied";
  label.dataset.was ??= label.textContent;
  label.textContent = words;
  announce(words);
  clearTimeout(label.timer);
  label.timer = setTimeout(() => (label.textContent = label.dataset.was), SAID_MS);
}
