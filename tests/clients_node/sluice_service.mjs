// A small service with one stream, which fails as told. What the real one answers, in the same words.
import { createHash } from "node:crypto";
import { createServer } from "node:http";

export const ID = "st_double";

/** Make timers so many times faster: the client's back-off and patience are of no interest here. */
export function hurry(times = 15) {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (body, milliseconds, ...rest) => setTimeout(body, milliseconds / times, ...rest);
}

export function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

/** Return the events of a stream that says these words. */
export function eventsOf(words, last = { type: "done", finish_reason: "stop" }) {
  const events = [{ type: "start", stream_id: ID, source: "chat", model: "double", created: 1 }];
  events.push({ type: "status", status: "connecting", milliseconds: 0 });
  events.push(...words.map((content) => ({ type: "token", content })));
  const checked = { last_seq: events.length + 1, text_sha256: sha256(words.join("")) };
  return [...events, { ...last, done: true, ...checked }];
}

export class Service {
  /** How the next connections to the event stream go; each is a function, the last stays. */
  connections = [whole];
  /** How the next snapshots are answered; `null` is as they are. */
  snapshots = [null];
  /** How the next posts are answered; `null` is as the service would. */
  posts = [null];
  /** What was asked: `{method, path, query, headers, body}`. */
  asked = [];
  /** How many event streams are open. */
  open = 0;

  constructor(events) {
    this.events = events;
    /** How many of them are there by now. */
    this.written = events.length;
    this.server = createServer((request, response) => this.#answer(request, response));
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Return the requests for what ends in `end`. */
  askedFor(method, kind) {
    return this.asked.filter((each) => each.method === method && each.kind === kind);
  }

  /** Return the bytes of the messages after a cursor. */
  messages(after, change = (event) => event) {
    const messages = [];
    for (const [place, event] of this.events.slice(0, this.written).entries()) {
      if (place + 1 > after) messages.push(message(`1.${place + 1}`, change(event)));
    }
    return messages;
  }

  async #answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.url);
    let body = "";
    for await (const block of request) body += block;
    const isStream = request.headers.accept === "text/event-stream";
    const kind = request.method === "POST" ? "post" : isStream ? "stream" : "snapshot";
    const query = Object.fromEntries(searchParams);
    this.asked.push({ method: request.method, path: pathname, kind, query, headers: request.headers, body });
    if (kind === "post") return this.#post(pathname, response);
    const after = Number((query.after ?? "0.0").split(".")[1]);
    if (kind === "snapshot") return this.#snapshot(after, response);
    this.open += 1;
    response.on("close", () => (this.open -= 1));
    return next(this.connections)(this, response, after, query);
  }

  #post(path, response) {
    const told = next(this.posts);
    if (told) return told(response);
    if (path.endsWith("/cancel")) return json(response, 200, { stream_id: ID, state: "cancelled", upstream: "closed" });
    return json(response, 201, { stream_id: ID, state: "running", links: {} });
  }

  #snapshot(after, response) {
    const told = next(this.snapshots);
    if (told) return told(response, after);
    return json(response, 200, this.snapshot(after));
  }

  snapshot(after = 0) {
    const there = this.events.slice(0, this.written);
    const events = there.slice(after).filter((event) => !event.done);
    const text = events.map((event) => (event.type === "token" ? event.content : "")).join("");
    const last = there.at(-1);
    const state = !last?.done ? "running" : last.error ? "failed" : "completed";
    return { stream_id: ID, state, text, cursor: `1.${there.length}`, events, ...(last?.done ? { ...last, type: undefined } : {}) };
  }
}

function next(plan) {
  return plan.length > 1 ? plan.shift() : plan[0];
}

export function json(response, status, body, headers = {}) {
  response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(body));
}

export function refuse(type, status, more = {}) {
  return (response) => json(response, status, { error: { message: `it is ${type}`, type, code: type, ...more } });
}

export function message(id, event) {
  return Buffer.from(`id: ${id}\ndata: ${JSON.stringify(event)}\n\n`);
}

export function begin(response) {
  response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
  response.flushHeaders();
}

// How a connection goes

export function whole(service, response, after) {
  begin(response);
  response.end(Buffer.concat(service.messages(after)));
}

/** Cut after so many bytes. */
export function cutAt(bytes) {
  return (service, response, after) => {
    begin(response);
    const body = Buffer.concat(service.messages(after)).subarray(0, bytes);
    response.write(body, () => setImmediate(() => response.destroy()));
    if (!body.length) response.destroy();
  };
}

/** Say this, whatever is asked, and hold the connection. */
export function says(...blocks) {
  return (service, response) => {
    begin(response);
    for (const block of blocks) response.write(block);
  };
}

/** Nothing ever comes, not even headers. */
export function heldBack() {}
