/**
 * Measure the way from the service to this browser. Nothing is judged here: the service does that, in the same
 * words for a page and a terminal. Times are milliseconds since 1970.
 */

const TICKS = 20;
const EVERY_MS = 100;
const LAST_EVENT_ID = "1.7";
const IDEMPOTENCY_KEY = "doctor-1";
const BESIDE_MS = 1_800;
const SOCKET_MS = 10_000;
const PATIENCE_MS = 15_000;
const LARGE_BODY_BYTES = 2 * 1024 * 1024;
const SHARES = [1, 0.5];

/** The service has answered, and will not be examined by us. */
export class Refused extends Error {
  /** A proxy gave up waiting for the service. */
  gaveUp = false;
}

/** @returns {number} the time by a clock that does not jump */
function now() {
  return performance.timeOrigin + performance.now();
}

/**
 * Listen to ticks, and see what comes of the headers.
 *
 * @param {string} address of the ticks
 * @returns {Promise<object>} a part of what the service judges
 */
export async function measureTicks(address) {
  const url = `${address}?count=${TICKS}&every_ms=${EVERY_MS}`;
  const askedAt = now();
  const headers = { "Last-Event-ID": LAST_EVENT_ID, "Idempotency-Key": IDEMPOTENCY_KEY };
  const response = await open(url, headers);
  const beside = answerBeside();
  const ticks = { every_ms: EVERY_MS, asked: TICKS, sent: [], came: [], first_byte_ms: 0, whole: false };
  let hello = null;
  let helloAt = askedAt;
  for await (const { at, event } of heard(response, PATIENCE_MS)) {
    ticks.first_byte_ms ||= at - askedAt;
    if (event?.type === "hello") [hello, helloAt] = [event, at];
    else if (event?.type === "tick") {
      ticks.sent.push(event.at);
      ticks.came.push(at);
    } else if (event?.type === "done") ticks.whole = true;
  }
  const besideMs = await beside;
  const measured = {
    url: location.origin,
    headers: Object.fromEntries([...response.headers].map(([name, value]) => [name, value.slice(0, 300)])),
    http: await httpVersion(url),
    ticks,
    encoding: response.headers.get("Content-Encoding") ?? "",
    sent_last_event_id: LAST_EVENT_ID,
    sent_idempotency_key: IDEMPOTENCY_KEY,
    answer_beside_ms: besideMs,
  };
  if (!hello) return measured;
  return {
    ...measured,
    seen: hello.seen,
    heartbeat_seconds: hello.heartbeat_seconds,
    // It was written between the request and now: in the middle, give or take half of it.
    clock_ahead_seconds: (hello.at - (askedAt + helloAt) / 2) / 1000,
    clock_within_seconds: (helloAt - askedAt) / 2000,
  };
}

/**
 * Say whether a WebSocket opens: 101, or 0 where it does not. A browser tells no more.
 *
 * @returns {Promise<number>}
 */
export async function tryWebSocket() {
  const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  const opened = await new Promise((resolve) => {
    socket.onopen = () => resolve(true);
    socket.onerror = socket.onclose = () => resolve(false);
    setTimeout(resolve, SOCKET_MS, false);
  });
  socket.close();
  return opened ? 101 : 0;
}

/**
 * Send a large body to where findings are made.
 *
 * @param {string} address
 * @returns {Promise<number>} the status, 0 without an answer
 */
export async function sendLargeBody(address) {
  const body = JSON.stringify({ url: location.origin }).padEnd(LARGE_BODY_BYTES);
  try {
    return (await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body })).status;
  } catch {
    return 0;
  }
}

/**
 * Listen to silent streams, all at the same time: as EventSource does, and once with heartbeats.
 *
 * @param {string} address of the ticks
 * @param {number} seconds the longest
 * @param {number} heartbeatSeconds how often the service sends one
 * @returns {Promise<object[]>}
 */
export async function listenToSilence(address, seconds, heartbeatSeconds) {
  const often = seconds >= 2.2 * heartbeatSeconds ? heartbeatSeconds : seconds / 4;
  const silences = await Promise.all([
    withHeartbeats(address, seconds, often),
    ...SHARES.map((share) => asEventSource(address, seconds * share)),
  ]);
  return silences.filter(Boolean);
}

async function withHeartbeats(address, seconds, often) {
  // Where all is held back, also the head, the silence begins with the request.
  let begun = now();
  let survived = false;
  const beats = [];
  const told = () => {
    const lasted = (now() - begun) / 1000;
    const mute = !survived && lasted > seconds + 2;
    const heartbeats = beats.slice(0, 1000);
    return { asked_seconds: seconds, heartbeat_seconds: often, lasted_seconds: lasted, survived, heartbeats, mute };
  };
  let response;
  try {
    response = await open(`${address}?count=1&silence_s=${seconds}&heartbeat_s=${often}`);
  } catch (error) {
    // One that was not let in tells nothing of silence.
    return error instanceof Refused && !error.gaveUp ? null : told();
  }
  for await (const { at, event } of heard(response, seconds * 1000 + PATIENCE_MS)) {
    if (!event) beats.push((at - begun) / 1000);
    else if (event.type === "hello") begun = at;
    else if (event.type === "done") survived = true;
  }
  return told();
}

function asEventSource(address, seconds) {
  const source = new EventSource(`${address}?count=1&silence_s=${seconds}`);
  return new Promise((resolve) => {
    let begun = now();
    const end = (survived, mute = false) => {
      clearTimeout(timer);
      source.close();
      const lasted = (now() - begun) / 1000;
      resolve({ asked_seconds: seconds, heartbeat_seconds: 0, lasted_seconds: lasted, survived, mute });
    };
    const timer = setTimeout(end, seconds * 1000 + PATIENCE_MS, false, true);
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "hello") begun = now();
      if (event.done) end(true);
    };
    source.onerror = () => end(false);
  });
}

async function open(url, headers = {}) {
  const response = await fetch(url, { headers: { Accept: "text/event-stream", ...headers }, cache: "no-store" });
  if (response.ok && response.body) return response;
  const told = await response.json().catch(() => null);
  const refused = new Refused(told?.error?.message ?? `the service answers ${response.status}`);
  refused.gaveUp = response.status === 502 || response.status === 504;
  throw refused;
}

/** Give out events and comments, each with its time, until the end, a cut, or a silence that is too long. */
async function* heard(response, patienceMs) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await patiently(reader.read(), patienceMs);
      if (done) return;
      const at = now();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith(":")) yield { at, event: null };
        else if (line.startsWith("data:")) yield { at, event: JSON.parse(line.slice(5)) };
      }
    }
  } catch {
    // Cut, or no stream of ticks: what came until then is what was measured.
  } finally {
    reader.cancel().catch(() => {});
  }
}

function patiently(promise, milliseconds) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, milliseconds, { done: true });
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function answerBeside() {
  const begun = now();
  try {
    await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(BESIDE_MS) });
    return now() - begun;
  } catch {
    return -1;
  }
}

async function httpVersion(url) {
  const { href } = new URL(url, location.href);
  let entry;
  // The browser notes it a moment after the end, and some never do.
  for (let look = 0; look < 10 && !entry; look += 1) {
    entry = performance.getEntriesByName(href).at(-1);
    if (!entry) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { "http/1.0": "1.0", "http/1.1": "1.1", h2: "2", h3: "3" }[entry?.nextHopProtocol] ?? "";
}
