/** Counts a run's live metrics, from what the service told last, and remembers whether to show them. */

import { numbers } from "./saying.js";

const CHARACTERS_PER_TOKEN = 4;
const SWITCH = "sluice.metrics";

export class LiveNumbers {
  #startedAt;
  #tokens;
  #estimated;
  #firstAt = null;
  #told = null;
  #toldAt = 0;

  /**
   * @param {object} seen
   * @param {number} [seen.startedAt] of the run, milliseconds since 1970
   * @param {string} [seen.text] what was there already; its tokens are estimated
   */
  constructor({ startedAt = Date.now(), text = "" } = {}) {
    this.#startedAt = startedAt;
    this.#tokens = Math.round(text.length / CHARACTERS_PER_TOKEN);
    this.#estimated = text !== "";
  }

  /** Count one event. What the service tells of itself is better than what is counted here. */
  count(event) {
    if (event.type === "metrics") {
      this.#told = event.metrics;
      this.#toldAt = Date.now();
      // The service's count is a batch behind; an estimate may be anything.
      this.#tokens = Math.max(this.#estimated ? 0 : this.#tokens, event.metrics.tokens);
    }
    if (event.type !== "token" && event.type !== "reasoning") return;
    this.#tokens += 1;
    if (!this.#estimated) this.#firstAt ??= Date.now();
  }

  /** The metrics so far on one line. */
  get line() {
    if (this.#told) return numbers(this.#goneOn(this.#told));
    const seconds = Math.max(0, (Date.now() - this.#startedAt) / 1000);
    const writing = this.#firstAt ? (Date.now() - this.#firstAt) / 1000 : seconds;
    return numbers({
      tokens: this.#tokens,
      estimated: true,
      elapsed_seconds: seconds,
      tokens_per_second: writing > 0.5 ? this.#tokens / writing : null,
      time_to_first_token_ms: this.#firstAt ? this.#firstAt - this.#startedAt : null,
    });
  }

  /** The service tells metrics as tokens come, and time goes on also when none do. */
  #goneOn(told) {
    const passed = (Date.now() - this.#toldAt) / 1000;
    const rate = told.tokens_per_second;
    return {
      ...told,
      tokens: this.#tokens,
      elapsed_seconds: told.elapsed_seconds + passed,
      tokens_per_second: rate ? this.#tokens / (told.tokens / rate + passed) : rate,
    };
  }
}

/**
 * Make `button` the switch that shows metrics, in all tabs and from now on.
 *
 * @param {HTMLButtonElement} button
 */
export function watchSwitch(button) {
  const show = () => {
    const on = remembered() === "on";
    document.documentElement.toggleAttribute("data-numbers", on);
    button.ariaChecked = String(on);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const on = button.ariaChecked !== "true";
    try {
      localStorage.setItem(SWITCH, on ? "on" : "off");
    } catch {
      forgetful = on ? "on" : "off";
    }
    show();
  });
  addEventListener("storage", show);
  show();
}

/** Where the browser lets nothing be kept, it holds for this page. */
let forgetful = "off";

function remembered() {
  try {
    return localStorage.getItem(SWITCH) ?? forgetful;
  } catch {
    return forgetful;
  }
}
