/** Creates a run, once, over a network that may fail in the middle of the request. */

import { backOff, pause } from "./waiting.js";

const ATTEMPTS = 4;

/** The service said no, or could not be asked; `message` is for the reader. */
export class NotAsked extends Error {
  /**
   * @param {string} message
   * @param {boolean} retryable whether the same question may succeed later
   */
  constructor(message, retryable) {
    super(message);
    this.retryable = retryable;
  }
}

/**
 * Return a key that makes asking twice the same as asking once.
 *
 * @returns {string}
 */
export function newKey() {
  // A page that was loaded over plain HTTP from another machine has no randomUUID.
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Ask, and ask again while the network fails: `key` keeps that one run.
 *
 * @param {string} url where runs are created
 * @param {string} prompt
 * @param {string} source what answers: `chat`, or a runnable's name
 * @param {string} key of `newKey`
 * @returns {Promise<string>} the stream's id. Rejects with `NotAsked`
 */
export async function ask(url, prompt, source, key) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await askOnce(url, prompt, source, key);
    } catch (error) {
      if (!error.retryable || attempt === ATTEMPTS) throw error;
    }
    await pause(backOff(attempt - 1));
  }
}

async function askOnce(url, prompt, source, key) {
  let response;
  let body;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", "Idempotency-Key": key },
      body: JSON.stringify({ prompt, source }),
    });
    body = await response.json();
  } catch {
    throw new NotAsked("The service cannot be reached.", true);
  }
  if (response.ok) return body.stream_id;
  throw new NotAsked(sentence(body.error?.message), response.status >= 500 || response.status === 429);
}

/**
 * Write the service's message as a sentence of its own.
 *
 * @param {string} [message]
 * @returns {string}
 */
export function sentence(message = "the service could not do that") {
  return `${message[0].toUpperCase()}${message.slice(1)}.`;
}
