/**
 * A client for Sluice: start a run, follow it to its end, cancel it. One file, no dependencies.
 *
 *     const sluice = new Sluice("https://sluice.example");
 *     const run = await sluice.start({ prompt: "hi" });
 *     for await (const event of run) if (event.type === "token") write(event.content);
 *
 * What a run hands out is the stream's log: in order, nothing lost and nothing twice, over however
 * many connections it takes; the sequence and the text's checksum are verified at the end.
 *
 * Needs `fetch`, `EventTarget` and `AbortController`: browsers, Node 18 and newer. To stream where
 * there is no `EventSource`, as in Node, `ReadableStream` too. The checksum needs `crypto.subtle`,
 * which Node 18 and pages over plain HTTP have not.
 */

const ATTEMPTS = 4;
const ASK_MS = 10_000;
const START_MS = 30_000;
const BACK_OFF_MS = 500;
const MAX_BACK_OFF_MS = 10_000;
const MAX_RETRY_AFTER_MS = 10_000;
const FIRST_EVENT_MS = 5_000;
const SILENCE_MS = 20_000;
const LATE_MS = 2_000;
const POLL_SECONDS = 20;
const POLL_PAUSE_MS = 250;
const MAX_DEAF = 3;
const MAX_EVENT_CHARACTERS = 16 * 1024 * 1024;

/**
 * The service said no, or could not be asked. `type`, `code` and `param` are the service's own;
 * besides them there are `unreachable` (no answer) and `bad_response` (an answer of somebody else).
 */
export class SluiceError extends Error {
  constructor({ message, type = "bad_response", code = type, param = null, retryable = false, status = 0, retryAfterMs = 0 }) {
    super(message);
    this.name = "SluiceError";
    this.type = type;
    this.code = code;
    this.param = param;
    /** Whether the same request may succeed later. */
    this.retryable = retryable;
    /** The HTTP status, 0 where there was none. */
    this.status = status;
    /** How long the service asks to wait, 0 where it does not say. */
    this.retryAfterMs = retryAfterMs;
  }
}

/** The service does not know who asks: there is no key, or not a valid one, or the session has ended. */
export class NotAuthenticated extends SluiceError {
  name = "NotAuthenticated";
}

/** The service knows who asks, and does not allow it: the message says what is missing. */
export class PermissionDenied extends SluiceError {
  name = "PermissionDenied";
}

/** Too much was asked for; `retryAfterMs` says when there is room again. */
export class RateLimited extends SluiceError {
  name = "RateLimited";
}

const KINDS = { 401: NotAuthenticated, 403: PermissionDenied, 429: RateLimited };

/**
 * Return a key that makes asking twice the same as asking once.
 *
 * @returns {string}
 */
export function newKey() {
  const { crypto } = globalThis;
  // A page that was loaded over plain HTTP from another machine has no randomUUID, Node 18 no crypto.
  if (crypto?.randomUUID) return crypto.randomUUID();
  const bytes = new Uint8Array(16);
  if (crypto) crypto.getRandomValues(bytes);
  else for (const place of bytes.keys()) bytes[place] = Math.random() * 256;
  return hex(bytes);
}

/**
 * @typedef {object} SluiceOptions
 * @property {string} [key] of the service, sent with every request. Not for pages that others see:
 *   whoever sees the page has the key
 * @property {Record<string, string>} [headers] sent with every request
 * @property {() => boolean | Promise<boolean>} [signIn] called when the service does not know any more
 *   who asks (401) while a run is followed; once for all runs that wait for it. Answers whether it is
 *   worth asking again: the run then goes on, nothing lost. Without it the run ends with that error
 * @property {typeof fetch} [fetch] to be used instead of the platform's
 * @property {"auto" | "eventsource" | "fetch" | "polling"} [transport] `auto` is `EventSource` where
 *   there is one and no header has to be sent with it, else `fetch`. Either goes over to polling by
 *   itself where the network holds event streams back
 * @property {typeof EventSource} [EventSource] to be used instead of the platform's
 */

/** A service. */
export class Sluice {
  #base;
  #options;
  #headers;
  #signingIn = null;

  /**
   * @param {string} [base] where the service is; empty for the page's own origin
   * @param {SluiceOptions} [options]
   */
  constructor(base = "", options = {}) {
    this.#base = base.replace(/\/+$/, "");
    this.#options = options;
    this.#headers = options.key ? { Authorization: `Bearer ${options.key}`, ...options.headers } : options.headers;
  }

  /**
   * Start a run, once, over a network that may fail in the middle of the request: it is asked again
   * with the same key, which keeps that one run.
   *
   * @param {object} request the body of `POST /streams`: `prompt` or `messages`, `source`, `model`…
   * @param {{key?: string, metrics?: boolean}} [options] `key`: of `newKey`, for who wants to ask
   *   again later; `metrics` as for `follow`
   * @returns {Promise<Run>} rejects with `SluiceError`
   */
  async start(request, { key = newKey(), metrics } = {}) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    const body = await this.#post("/streams", { headers, body: JSON.stringify(request) });
    if (typeof body.stream_id !== "string") {
      throw new SluiceError({ message: "the answer names no stream", retryable: true });
    }
    return this.follow(body.stream_id, { metrics });
  }

  /**
   * Follow a run that is there. The connection is opened once somebody listens.
   *
   * @param {string} streamId
   * @param {{after?: string, text?: string, metrics?: boolean}} [options] `after`: cursor of what is
   *   there already, `text`: its text, without which the checksum cannot be verified; `metrics`: send
   *   them while it runs
   * @returns {Run}
   */
  follow(streamId, { after = "", text, metrics = false } = {}) {
    const path = `/streams/${encodeURIComponent(streamId)}`;
    return new Run(streamId, { after, text, metrics }, {
      url: this.#url(path),
      open: this.#transport(),
      fetch: (url, init) => this.#fetch(url, init),
      cancel: () => this.#post(`${path}/cancel`, {}),
      signIn: this.#options.signIn ? () => this.#signIn() : null,
    });
  }

  #signIn() {
    this.#signingIn ??= Promise.resolve()
      .then(() => this.#options.signIn())
      .catch(() => false)
      .finally(() => (this.#signingIn = null));
    return this.#signingIn;
  }

  #url(path) {
    const url = `${this.#base}${path}`;
    try {
      new URL(url, globalThis.location?.href);
    } catch {
      const message = `${url} is no address here: outside of a page a whole one is needed`;
      throw new SluiceError({ message, type: "invalid_request", param: "base" });
    }
    return url;
  }

  /** Return what opens an event stream; null where only polling is left. */
  #transport() {
    const { transport = "auto", fetch } = this.#options;
    const headers = this.#headers;
    const EventSource = this.#options.EventSource ?? globalThis.EventSource;
    const wanted =
      transport !== "auto" ? transport : EventSource && !headers && !fetch ? "eventsource" : "fetch";
    if (wanted === "eventsource" && EventSource) return (url, on) => openEventSource(EventSource, url, on);
    if (wanted === "fetch" && globalThis.ReadableStream) {
      return (url, on) => openFetch((signal) => this.#fetch(url, eventStreamRequest(signal)), on);
    }
    return null;
  }

  #fetch(url, init) {
    const send = this.#options.fetch ?? globalThis.fetch;
    return send(url, { ...init, headers: { ...init.headers, ...this.#headers } });
  }

  async #post(path, init) {
    const url = this.#url(path);
    for (let attempt = 1; ; attempt++) {
      let waitMs = 0;
      try {
        const { response, body } = await this.#postOnce(url, init);
        if (response.ok) return body;
        throw refusal(response, body);
      } catch (error) {
        waitMs = error.retryAfterMs ?? 0;
        const isHopeless = !error.retryable || waitMs > MAX_RETRY_AFTER_MS;
        if (isHopeless || attempt === ATTEMPTS) throw error;
      }
      await pause(Math.max(waitMs, backOff(attempt - 1)));
    }
  }

  async #postOnce(url, init) {
    const headers = { Accept: "application/json", ...init.headers };
    const patience = new Patience(START_MS);
    try {
      const request = { ...init, method: "POST", headers, signal: patience.signal };
      const response = await this.#fetch(url, request);
      return { response, body: await response.json().catch(() => ({ error: null })) };
    } catch {
      throw new SluiceError({ message: "the service cannot be reached", type: "unreachable", retryable: true });
    } finally {
      patience.end();
    }
  }
}

/** What a run tells: `detail` is the event, the state of the link, or the result. */
class RunEvent extends Event {
  constructor(type, detail) {
    super(type);
    this.detail = detail;
  }
}

/**
 * @typedef {object} Result
 * @property {string} text
 * @property {string} [finish_reason]
 * @property {object} [usage]
 * @property {object} [metrics]
 * @property {object} [error] of a run that failed or cannot be followed; its text is not whole
 * @property {boolean | null} verified whether the text has the log's checksum; null where that cannot be told
 */

/**
 * One run, as one client follows it.
 *
 * It is followed from when somebody listens: a listener is added, it is iterated over, or `finished`
 * is read. Events, each with a `detail`:
 *
 * - `event`: an event of the stream, once, in order; the last one has `done: true`
 * - `link`: the new value of `link`
 * - `reset`: forget what was shown, it comes again from the start
 * - `end`: the `Result`, after the last event
 */
export class Run extends EventTarget {
  /** @type {string} */
  id;
  /** @type {"connecting" | "open" | "reconnecting" | "polling" | "signed-out" | "closed"} */
  link = "connecting";

  #service;
  #cursor;
  #text;
  /** The text begins somewhere in the middle, so nothing can be said about its checksum. */
  #isPart;
  #metrics;
  #closing = new AbortController();
  #queues = new Set();
  #begun = false;
  #told = false;
  #result = null;
  #settle = null;
  #finished = null;

  #polling;
  #received = 0;
  #failures = 0;
  /** Connections in a row that brought no event. */
  #deaf = 0;
  #readAgain = false;

  /** Made by `Sluice`. */
  constructor(id, { after, text, metrics }, service) {
    super();
    this.id = id;
    this.#service = service;
    this.#cursor = after;
    this.#text = text ?? "";
    this.#isPart = Boolean(after) && text === undefined;
    this.#metrics = metrics;
    this.#polling = service.open === null;
  }

  /** The text so far. */
  get text() {
    return this.#text;
  }

  /** The place after the last event that was handed out: what `follow` takes as `after`. */
  get cursor() {
    return this.#cursor;
  }

  /**
   * Settles when the run has ended or is closed; never rejects.
   *
   * @returns {Promise<Result>}
   */
  get finished() {
    this.#begin();
    this.#finished ??= new Promise((resolve) => {
      if (this.#result) resolve(this.#result);
      else this.#settle = resolve;
    });
    return this.#finished;
  }

  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    this.#begin();
  }

  /**
   * Iterate over the events, `{type: "reset"}` among them; ends after the last, or `close`. Leaving
   * the loop closes the run. Throws when events were handed out before.
   */
  [Symbol.asyncIterator]() {
    if (this.#told) throw new Error("this run has begun: iterate over it at once, or follow it again");
    const queue = new Queue();
    if (this.#result) queue.end();
    this.#queues.add(queue);
    this.#begin();
    return this.#iterate(queue);
  }

  async *#iterate(queue) {
    try {
      for (;;) {
        const events = await queue.take();
        if (!events.length) return;
        yield* events;
      }
    } finally {
      this.close();
    }
  }

  /**
   * Stop the run, for everybody. Asked again while the network fails.
   *
   * @returns {Promise<{stream_id: string, state: string, cursor: string, upstream: string}>} rejects
   *   with `SluiceError`
   */
  cancel() {
    return this.#service.cancel();
  }

  /** Stop listening; the run goes on. No listener is called any more. */
  close() {
    if (this.#closed) return;
    const error = { type: "closed", message: "closed before the end", retryable: true };
    this.#over({ text: this.#text, error, verified: null });
  }

  get #closed() {
    return this.#closing.signal.aborted;
  }

  #begin() {
    if (this.#begun || this.#closed) return;
    this.#begun = true;
    // Whoever adds a listener adds the next one in the same breath.
    queueMicrotask(() => this.#follow());
  }

  async #follow() {
    while (!this.#closed) {
      const end = this.#polling ? await this.#poll() : await this.#listen();
      if (!end || this.#closed) continue;
      const verified = await this.#verify(end);
      if (this.#closed) return;
      if (verified === false && !this.#readAgain) {
        this.#readAgain = true;
        this.#reset();
      } else {
        this.#finish(end, verified);
      }
    }
  }

  // Telling

  #tell(type, detail) {
    if (!this.#closed) this.dispatchEvent(new RunEvent(type, detail));
  }

  #say(link) {
    if (this.link === link || this.#closed) return;
    this.link = link;
    this.#tell("link", link);
  }

  #hand(event) {
    this.#told = true;
    if (event.type === "token") this.#text += event.content;
    for (const queue of this.#queues) queue.put(event);
    this.#tell("event", event);
  }

  #reset() {
    this.#cursor = "";
    this.#text = "";
    this.#isPart = false;
    for (const queue of this.#queues) queue.put({ type: "reset" });
    this.#tell("reset");
  }

  #finish(last, verified) {
    this.#hand(last);
    if (this.#closed) return;
    const { finish_reason, usage, metrics, error } = last;
    const result = { text: this.#text, finish_reason, usage, metrics, error, verified };
    this.#over(result);
    this.dispatchEvent(new RunEvent("end", result));
  }

  #over(result) {
    this.#result = result;
    this.link = "closed";
    this.#closing.abort();
    for (const queue of this.#queues) queue.end();
    this.#settle?.(result);
  }

  // One connection

  /** Return the terminal event, or null when it has to be tried again. */
  async #listen() {
    const { end, delivered, heldBack, gap } = await this.#connection();
    if (end || this.#closed) return end ?? null;
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
      let close = null;
      let delivered = false;
      let over = false;
      let timer;

      const finish = (outcome = {}) => {
        if (over) return;
        over = true;
        clearTimeout(timer);
        close?.();
        this.#closing.signal.removeEventListener("abort", leave);
        globalThis.removeEventListener?.("offline", check);
        resolve({ delivered, ...outcome });
      };
      const leave = () => finish();
      const watch = () => {
        clearTimeout(timer);
        if (!over) timer = setTimeout(check, delivered ? SILENCE_MS : FIRST_EVENT_MS);
      };
      const check = async () => {
        const missed = await this.#missed();
        if (over) return;
        if (missed === "nothing") watch();
        else finish({ heldBack: missed === "events" && !delivered });
      };

      this.#closing.signal.addEventListener("abort", leave);
      globalThis.addEventListener?.("offline", check);
      watch();
      close = this.#service.open(this.#address(), {
        open: () => over || this.#say("open"),
        // A heartbeat shows that the connection lives, not that events come through.
        alive: () => delivered && watch(),
        over: leave,
        message: (data, id) => {
          if (over) return;
          const outcome = this.#receive(data, id);
          if (outcome) {
            finish(outcome);
          } else {
            delivered = true;
            watch();
          }
        },
      });
      if (over) close();
    });
  }

  /** Take one message; say how the connection is over, if it is. */
  #receive(data, id) {
    const event = parsed(data);
    // The log's last event counts the log's events. Any other end is only that of this connection.
    if (typeof event?.type !== "string" || (event.done && !event.last_seq)) return {};
    const isRepeatedEnd = event.done && id === this.#cursor;
    if (!this.#readAgain && !isRepeatedEnd && !follows(this.#cursor, id, event.n ?? 1)) return { gap: true };
    this.#cursor = id;
    this.#failures = 0;
    this.#received += 1;
    if (event.done) return { end: event };
    this.#hand(event);
    return null;
  }

  /** Say what a silent connection keeps from us: "nothing", "events", or that nobody "answers". */
  async #missed() {
    const received = this.#received;
    const answer = await this.#ask();
    if (this.#received !== received) return "nothing";
    if (!answer?.snapshot) return "answers";
    const isSilent = isRunning(answer.snapshot.state) && !eventsOf(answer.snapshot).length;
    if (isSilent && this.#cursor) return "nothing";
    await pause(LATE_MS, this.#closing.signal);
    return this.#received === received ? "events" : "nothing";
  }

  // Between two connections

  /** Find out what became of the stream; return its terminal event if it has ended. */
  async #recover() {
    while (!this.#closed) {
      await pause(backOff(this.#failures++), this.#closing.signal);
      const answer = await this.#ask();
      if (!answer) continue;
      if (answer.error) return this.#refused(answer);
      if (!isRunning(answer.snapshot.state)) return this.#take(answer.snapshot);
      if (this.#deaf >= MAX_DEAF) this.#startPolling();
      return null;
    }
    return null;
  }

  async #refused({ error, status }) {
    if (status === 401 && (await this.#signedInAgain())) return null;
    if (this.#closed) return null;
    if (error.type === "cursor_lost" && this.#cursor) this.#reset();
    else this.#finish({ type: "error", done: true, error }, null);
    return null;
  }

  /** Wait until somebody has signed in; say whether that is so. The text stays as it is meanwhile. */
  async #signedInAgain() {
    if (!this.#service.signIn) return false;
    this.#say("signed-out");
    const left = new Promise((resolve) => {
      this.#closing.signal.addEventListener("abort", () => resolve(false), { once: true });
    });
    const again = await Promise.race([this.#service.signIn(), left]);
    // Who signs in without anybody being asked could do so for ever.
    if (again) await pause(backOff(this.#failures++), this.#closing.signal);
    return again;
  }

  /** Ask for a snapshot of what is new; null when there was no answer worth the name. */
  async #ask(waitSeconds = 0) {
    const patience = new Patience(ASK_MS + waitSeconds * 1000, this.#closing.signal);
    try {
      const url = this.#address({ events: 1, ...(waitSeconds ? { wait: waitSeconds } : {}) });
      const request = { headers: { Accept: "application/json" }, cache: "no-store", signal: patience.signal };
      const response = await this.#service.fetch(url, request);
      const body = await response.json();
      if (response.ok) return isSnapshot(body) ? { snapshot: body } : null;
      const { status } = response;
      return isForGood(status) && body.error ? { error: body.error, status } : null;
    } catch {
      return null;
    } finally {
      patience.end();
    }
  }

  /** Hand out what a snapshot holds; return a terminal event if the stream has ended. */
  #take(snapshot) {
    if (this.#closed) return null;
    this.#failures = 0;
    const events = eventsOf(snapshot);
    const last = events.pop();
    for (const event of events) this.#hand(event);
    // With the last of them, and not before: who keeps the cursor of an event has had them all.
    this.#cursor = snapshot.cursor;
    if (last) this.#hand(last);
    return isRunning(snapshot.state) ? null : endOf(snapshot);
  }

  async #poll() {
    const answer = await this.#ask(POLL_SECONDS);
    if (!answer) {
      this.#say("reconnecting");
      await pause(backOff(this.#failures++), this.#closing.signal);
      return null;
    }
    if (answer.error) return this.#refused(answer);
    this.#say("polling");
    const end = this.#take(answer.snapshot);
    if (!end) await pause(POLL_PAUSE_MS, this.#closing.signal);
    return end;
  }

  #address(parameters = {}) {
    const query = new URLSearchParams(parameters);
    if (this.#cursor) query.set("after", this.#cursor);
    if (this.#metrics) query.set("metrics", "1");
    const text = String(query);
    return text ? `${this.#service.url}?${text}` : this.#service.url;
  }

  /** Say whether all of the stream came: true, false, or null where that cannot be told. */
  async #verify(end) {
    if (!end.text_sha256) return null;
    if (end.last_seq !== placeOf(this.#cursor).seq) return false;
    if (this.#isPart || !globalThis.crypto?.subtle) return null;
    return (await sha256(this.#text)) === end.text_sha256;
  }
}

// Ways to an event stream. Each calls `on.open`, `on.alive`, `on.message(data, id)`, then `on.over`
// once, and returns what closes it.

function openEventSource(EventSource, url, on) {
  const source = new EventSource(url);
  source.onopen = on.open;
  source.onerror = on.over;
  source.onmessage = (message) => on.message(message.data, message.lastEventId);
  return () => source.close();
}

function eventStreamRequest(signal) {
  return { headers: { Accept: "text/event-stream" }, cache: "no-store", signal };
}

function openFetch(send, on) {
  const closing = new AbortController();
  const read = async () => {
    const response = await send(closing.signal);
    const type = response.headers.get("Content-Type") ?? "";
    if (response.status !== 200 || !response.body || !type.startsWith("text/event-stream")) return;
    on.open();
    const parser = new EventStreamParser();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || closing.signal.aborted) return;
      on.alive();
      for (const message of parser.feed(value)) {
        if (closing.signal.aborted) return;
        if (message.type === "message") on.message(message.data, message.id);
      }
    }
  };
  read()
    .catch(() => {})
    .then(() => {
      closing.abort(); // also of a body that is not read
      on.over();
    });
  return () => closing.abort();
}

/**
 * Turns the bytes of an event stream into messages, however they are cut.
 *
 * Source: HTML Living Standard 9.2.6, "Interpreting an event stream".
 */
export class EventStreamParser {
  /** What the stream asked for, in milliseconds. */
  retry = null;
  #decoder = new TextDecoder();
  #rest = "";
  #afterCarriageReturn = false;
  #data = [];
  #dataCharacters = 0;
  #type = "";
  #id = "";

  /**
   * Return the messages that `bytes` completes. Throws when one grows too large to be meant.
   *
   * @param {Uint8Array} bytes
   * @returns {{data: string, id: string, type: string}[]}
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    // A carriage return ends its line at once: to wait for a line feed would hold the message back.
    if (this.#afterCarriageReturn && text[0] === "\n") text = text.slice(1);
    this.#afterCarriageReturn = text ? text.endsWith("\r") : false;
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop();
    const messages = [];
    for (const line of lines) {
      if (line) this.#take(line);
      else this.#dispatch(messages);
    }
    if (this.#rest.length + this.#dataCharacters > MAX_EVENT_CHARACTERS) throw new Error("an event without an end");
    return messages;
  }

  #take(line) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") {
      this.#data.push(value);
      this.#dataCharacters += value.length;
    } else if (field === "event") {
      this.#type = value;
    } else if (field === "id") {
      if (!value.includes("\0")) this.#id = value;
    } else if (field === "retry") {
      if (/^[0-9]+$/.test(value)) this.retry = Number(value);
    }
  }

  #dispatch(messages) {
    if (this.#data.length) {
      messages.push({ data: this.#data.join("\n"), id: this.#id, type: this.#type || "message" });
    }
    this.#data = [];
    this.#dataCharacters = 0;
    this.#type = "";
  }
}

/** Events on their way to one iterator. */
class Queue {
  #waiting = [];
  #ended = false;
  #wake = null;

  put(event) {
    this.#waiting.push(event);
    this.#wake?.();
  }

  end() {
    this.#ended = true;
    this.#wake?.();
  }

  /** Return all that is there, once there is something; nothing after the end. */
  async take() {
    if (!this.#waiting.length && !this.#ended) await new Promise((resolve) => (this.#wake = resolve));
    this.#wake = null;
    const events = this.#waiting;
    this.#waiting = [];
    return events;
  }
}

/** A signal that aborts after some time, or with another one; to be ended when it is not needed. */
class Patience {
  #controller = new AbortController();
  #timer;
  #other;

  constructor(milliseconds, other) {
    this.#timer = setTimeout(this.#abort, milliseconds);
    this.#other = other;
    other?.addEventListener("abort", this.#abort);
    if (other?.aborted) this.#abort();
  }

  #abort = () => this.#controller.abort();

  get signal() {
    return this.#controller.signal;
  }

  end() {
    clearTimeout(this.#timer);
    this.#other?.removeEventListener("abort", this.#abort);
  }
}

// Snapshots

function isSnapshot(body) {
  return typeof body?.state === "string" && typeof body.cursor === "string";
}

/** Return the events a snapshot holds; an older service only tells what they add up to. */
function eventsOf(snapshot) {
  if (snapshot.events) return snapshot.events.filter((event) => !event.done);
  const { reasoning, tool_calls = [], tool_results = [], sources = [], interrupts = [], text } = snapshot;
  return [
    ...(reasoning ? [{ type: "reasoning", content: reasoning }] : []),
    ...tool_calls,
    ...tool_results,
    ...(sources.length ? [{ type: "sources", documents: sources }] : []),
    ...(text ? [{ type: "token", content: text }] : []),
    ...interrupts,
  ];
}

/** Return the last event of a stream whose snapshot this is. */
function endOf({ error, finish_reason, usage, metrics, last_seq, text_sha256 }) {
  const last = error ? { type: "error", error } : { type: "done", finish_reason };
  return { ...last, done: true, usage, metrics, last_seq, text_sha256 };
}

function isRunning(state) {
  return state === "running" || state === "queued";
}

// Cursors

/** Read a cursor, `<gen>.<seq>`. */
function placeOf(cursor) {
  const [gen, seq] = (cursor || "0.0").split(".").map(Number);
  return { gen, seq };
}

/** Say whether `next`, which stands for `count` events, comes right after `cursor`. */
function follows(cursor, next, count) {
  const before = placeOf(cursor);
  const after = placeOf(next);
  // A cursor may lie among the events a message stands for but does not show.
  return after.seq > before.seq && after.seq - count <= before.seq && after.gen >= before.gen;
}

// Answers

/** Return the error for an answer that is none; `body` may be anything, or another server's. */
function refusal({ status, headers }, body) {
  const Kind = KINDS[status] ?? SluiceError;
  const retryable = status >= 500 || status === 429 || status === 408;
  const retryAfterMs = 1000 * (Number(headers.get("Retry-After")) || 0);
  const { message, type, code, param } = body?.error ?? {};
  const known = { retryable, status, retryAfterMs };
  if (typeof message === "string") return new Kind({ message, type, code, param, ...known });
  return new Kind({ message: `the service answered with status ${status}`, ...known });
}

/** A 408 or 429 may be asked again; other refusals of a request stay what they are. */
function isForGood(status) {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

// Waiting

/** Wait, but not longer than until `signal` aborts or the browser comes online. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", end);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, signal?.aborted ? 0 : milliseconds);
    globalThis.addEventListener?.("online", end);
    signal?.addEventListener("abort", end);
  });
}

/** Return how long to wait before attempt number `failures` + 2: doubling, with jitter. */
function backOff(failures) {
  return Math.min(BACK_OFF_MS * 2 ** failures, MAX_BACK_OFF_MS) * (0.5 + Math.random() / 2);
}

// Checksums

async function sha256(text) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
