/** Says how a run goes: to the eye beside the answer, to a screen reader in one quiet line. */

const WORDS = JSON.parse(document.getElementById("words").textContent);

/**
 * @typedef {object} Ending how a run ended
 * @property {"done" | "stopped" | "interrupted" | "error" | "gone"} state
 * @property {string} words
 * @property {string} hint what the reader can do
 */

/**
 * Return how to show what a run is doing: its look, the words, and what the reader can do.
 *
 * @param {string} name such as `thinking`
 * @returns {{look: string, words: string, hint: string} | null} null for what is not told
 */
export function doing(name) {
  const found = WORDS.doing[name];
  return found ? { look: found[0], words: found[1], hint: found[2] } : null;
}

/**
 * Return how a run ended, as the server words it after a reload.
 *
 * @param {{error?: object, finish_reason?: string, verified?: boolean | null}} result `verified` is
 *   false where the text does not have the checksum it should have
 * @param {boolean} [isShown] some of the answer is on the page
 * @returns {Ending}
 */
export function ending({ error, finish_reason: reason, verified }, isShown = false) {
  if (WORDS.gone.includes(error?.type)) {
    return { state: "gone", words: sentence(error.message), hint: isShown ? WORDS.kept : WORDS.again };
  }
  if (error) {
    const state = error.type === "interrupted" ? "interrupted" : "error";
    const hint = error.retryable ? WORDS.retryable : WORDS.final;
    const kept = error.partial ? ` ${WORDS.kept}` : "";
    return { state, words: `${WORDS[state]}: ${error.message}.`, hint: `${hint}${kept}` };
  }
  const [state, words, hint] = WORDS.finished[reason] ?? ["done", "", ""];
  return { state, words: verified === false ? `${words} ${WORDS.unverified}`.trim() : words, hint };
}

/**
 * Return metrics on one line.
 *
 * @param {object} [metrics] as the service gives them
 * @returns {string}
 */
export function numbers(metrics) {
  if (!metrics) return "";
  const said = [`${metrics.estimated ? "about " : ""}${metrics.tokens} tokens`];
  said.push(`${tenths(metrics.elapsed_seconds)} s`);
  if (metrics.tokens_per_second) said.push(`${tenths(metrics.tokens_per_second)} tokens/s`);
  const first = metrics.time_to_first_token_ms;
  if (first != null) said.push(`first after ${Math.floor(first + 0.5)} ms`);
  return said.join(" · ");
}

/** Rounded as the server does it: each language has its own way with halves. */
function tenths(value) {
  return (Math.floor(value * 10 + 0.5) / 10).toFixed(1);
}

/**
 * Write the service's message as a sentence of its own.
 *
 * @param {string} [message]
 * @returns {string}
 */
export function sentence(message = "the service could not do that") {
  return `${message[0].toUpperCase()}${message.slice(1)}${/[.!?]$/.test(message) ? "" : "."}`;
}

/**
 * Tell a screen reader, when it has nothing else to say. The same words twice are said once.
 *
 * @param {string} words
 */
export function announce(words) {
  const line = document.getElementById("announced");
  if (line.textContent !== words) line.textContent = words;
}

/**
 * Show, and read out, what the reader has to know now; nothing: take it away.
 *
 * @param {string} [words]
 */
export function notice(words = "") {
  const line = document.getElementById("notice");
  line.textContent = words;
  line.hidden = !words;
}
