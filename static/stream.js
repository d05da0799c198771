/**
 * Follows a stream to its end: an `EventSource` that comes back after whatever
 * closed it, and long-polling where the network holds event streams back.
 *
 * What it hands out is the stream's log, in order, nothing lost and nothing
 * twice; the sequence and the text's checksum are verified.
 */

import { backOff, pause } from "./waiting.js";

const FIRST_EVENT_MS = 5_000;
const SILENCE_MS = 20_000;
const LATE_MS = 2_000;
const ASK_MS = 10_000;
const POLL_SECONDS = 20;
const POLL_PAUSE_MS = 250;
const MAX_DEAF = 3;

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "polling" | "gone" | "unverified"} LinkState
 *
 * @typedef {object} Options
 * @property {string} [after] cursor of what the caller already has; empty for nothing
 * @property {string} [text] the text up to that cursor
 * @property {(event: object) => void} onEvent takes each event once, in order; the last has `done: true`
 * @property {(state: LinkState, error?: {type: string, message: string}) => void} onState
 *   `gone` comes with the error and is the end; `unverified` says that the text could not be checked
 * @property {() => void} onReset forget what was shown: it comes again from the start
 */

/**
 * Follow the stream at `url`, such as `/streams/st_…`.
 *
 * @param {string} url
 * @param {Options} options
 * @returns {{close(): void}} `close` ends it without another call of the options' functions
 */
export function follow(url, options) {
  const follower = new Follower(url, options);
  follower.run();
  return { close: () => follower.close() };
}

class Follower {
  #url;
  #options;
  #cursor;
  #parts;
  #closing = new AbortController();
  #polling = typeof EventSource === "undefined";
  #received = 0;
  #failures = 0;
  /** Connections in a row that brought no event. */
  #deaf = 0;
  #readAgain = false;

  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    this.#cursor = options.after ?? "";
    this.#parts = [options.text ?? ""];
  }

  close() {
    this.#closing.abort();
  }

  async run() {
    this.#say("connecting");
    while (!this.#closed) {
      const end = this.#polling ? await this.#poll() : await this.#listen();
      if (!end || this.#closed) continue;
      if (await this.#isWhole(end)) {
        this.#finish(end);
      } else if (this.#readAgain) {
        this.#say("unverified");
        this.#finish(end);
      } else {
        this.#readAgain = true;
        this.#reset();
      }
    }
  }

  get #closed() {
    return this.#closing.signal.aborted;
  }

  #say(state, error) {
    if (!this.#closed) this.#options.onState(state, error);
  }

  #finish(end) {
    if (this.#closed) return;
    this.close();
    this.#options.onEvent(end);
  }

  #reset() {
    this.#cursor = "";
    this.#parts = [];
    if (!this.#closed) this.#options.onReset();
  }

  #address(parameters) {
    const after = this.#cursor ? { after: this.#cursor } : {};
    const query = new URLSearchParams({ ...after, ...parameters });
    return query.size ? `${this.#url}?${query}` : this.#url;
  }

  // One connection

  /** Return the terminal event, or null when it has to be tried again. */
  async #listen() {
    const { end, delivered, heldBack, gap } = await this.#connection();
    if (end || this.#closed) return end;
    this.#deaf = delivered ? 0 : this.#deaf + 1;
    if (heldBack) {
      this.#startPolling();
      return null;
    }
    if (gap) {
      this.#readAgain = true;
      this.#reset();
      return null;
    }
    this.#say("reconnecting");
    return this.#recover();
  }

  #startPolling() {
    this.#polling = true;
    this.#say("polling");
  }

  /** Listen until the end, an error, a silence that is not the model's, or `close`. */
  #connection() {
    return new Promise((resolve) => {
      const source = new EventSource(this.#address());
      const signal = this.#closing.signal;
      let delivered = false;
      let over = false;
      let timer;

      const finish = (outcome = {}) => {
        over = true;
        clearTimeout(timer);
        source.close();
        signal.removeEventListener("abort", leave);
        removeEventListener("offline", check);
        resolve({ delivered, ...outcome });
      };
      const leave = () => finish();
      const watch = () => {
        clearTimeout(timer);
        timer = setTimeout(check, delivered ? SILENCE_MS : FIRST_EVENT_MS);
      };
      const check = async () => {
        const missed = await this.#missed();
        if (over) return;
        if (missed === "nothing") watch();
        else finish({ heldBack: missed === "text" && !delivered });
      };

      signal.addEventListener("abort", leave);
      addEventListener("offline", check);
      source.onopen = () => this.#say("open");
      source.onerror = leave;
      source.onmessage = (message) => {
        delivered = true;
        const outcome = this.#receive(message);
        if (outcome) finish(outcome);
        else watch();
      };
      watch();
    });
  }

  /** Take one message; say how the connection is over, if it is. */
  #receive(message) {
    const event = JSON.parse(message.data);
    if (!this.#readAgain && !follows(this.#cursor, message.lastEventId, event.n ?? 1)) return { gap: true };
    this.#cursor = message.lastEventId;
    this.#failures = 0;
    this.#received += 1;
    if (event.type === "token") this.#parts.push(event.content);
    if (event.done) return { end: event };
    this.#options.onEvent(event);
    return null;
  }

  /** Say what a silent connection keeps from us: "nothing", "text", or that nobody "answers". */
  async #missed() {
    const received = this.#received;
    const answer = await this.#ask();
    if (this.#received !== received) return "nothing";
    if (!answer?.snapshot) return "answers";
    const { text, state } = answer.snapshot;
    if (!text && isRunning(state) && this.#cursor) return "nothing";
    await pause(LATE_MS, this.#closing.signal);
    return this.#received === received ? "text" : "nothing";
  }

  // Between two connections

  /** Find out what became of the stream; return its terminal event if it has ended. */
  async #recover() {
    while (!this.#closed) {
      await pause(backOff(this.#failures++), this.#closing.signal);
      const answer = await this.#ask();
      if (!answer) continue;
      if (answer.error) return this.#refused(answer.error);
      if (!isRunning(answer.snapshot.state)) return this.#take(answer.snapshot);
      if (this.#deaf >= MAX_DEAF) this.#startPolling();
      return null;
    }
    return null;
  }

  #refused(error) {
    if (error.type === "cursor_lost") {
      this.#reset();
    } else {
      this.#say("gone", error);
      this.close();
    }
    return null;
  }

  /** Ask for a snapshot of what is new; null when there was no answer worth the name. */
  async #ask(waitSeconds = 0) {
    const patience = AbortSignal.timeout(ASK_MS + waitSeconds * 1000);
    try {
      const response = await fetch(this.#address(waitSeconds ? { wait: waitSeconds } : {}), {
        headers: { Accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.any([this.#closing.signal, patience]),
      });
      const body = await response.json();
      if (response.ok) return { snapshot: body };
      return isForGood(response.status) && body.error ? { error: body.error } : null;
    } catch {
      return null;
    }
  }

  /** Hand out a snapshot's text; return a terminal event if it has ended. */
  #take({ text, cursor, state, finish_reason, error, usage, metrics }) {
    if (this.#closed) return null;
    this.#cursor = cursor;
    this.#failures = 0;
    if (text) {
      this.#parts.push(text);
      this.#options.onEvent({ type: "token", content: text });
    }
    if (isRunning(state)) return null;
    const last = error ? { type: "error", error } : { type: "done", finish_reason };
    return { ...last, done: true, usage, metrics };
  }

  async #poll() {
    const answer = await this.#ask(POLL_SECONDS);
    if (!answer) {
      this.#say("reconnecting");
      await pause(backOff(this.#failures++), this.#closing.signal);
      return null;
    }
    if (answer.error) return this.#refused(answer.error);
    this.#say("polling");
    const end = this.#take(answer.snapshot);
    if (!end) await pause(POLL_PAUSE_MS, this.#closing.signal);
    return end;
  }

  // Verification

  /** Say whether all of the stream came. A snapshot's end and an insecure page cannot tell. */
  async #isWhole(end) {
    if (!end.text_sha256) return true;
    if (end.last_seq !== placeOf(this.#cursor).seq) return false;
    if (!globalThis.crypto?.subtle) return true;
    return (await sha256(this.#parts.join(""))) === end.text_sha256;
  }
}

/** Read a cursor, `<gen>.<seq>`. */
function placeOf(cursor) {
  const [gen, seq] = (cursor || "0.0").split(".").map(Number);
  return { gen, seq };
}

/** Say whether `next`, which stands for `count` events, comes right after `cursor`. */
function follows(cursor, next, count) {
  const before = placeOf(cursor);
  const after = placeOf(next);
  return after.seq === before.seq + count && after.gen >= before.gen;
}

function isRunning(state) {
  return state === "running" || state === "queued";
}

/** A 408 or 429 may be asked again; other refusals of a request stay what they are. */
function isForGood(status) {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}

async function sha256(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
