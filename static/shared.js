/**
 * One event stream for all tabs of a browser, which allows six connections to a server.
 *
 * A shared worker keeps it (`shared_worker.js`). Here is the tab's side: what looks like an
 * `EventSource` for one run, so that everything `sluice.js` promises holds here too. A browser
 * without shared workers, or with one that does not answer, gets an `EventSource` for each run.
 */

import { Sluice } from "./sluice.js";

const HELLO_MS = 3_000;
// With another number, tabs of before a deploy keep the worker of before it.
const NAME = "sluice 1";
const ADDRESS = /^(.*\/streams)\/([^/?]+)(?:\?(.*))?$/;

/** The worker, as this tab knows it: what it says, it says to a source, by its number. */
class Line {
  /** Settles with true once the worker has answered, with false when there is none to be had. */
  ready;
  #port = null;
  #sources = new Map();
  #numbers = 0;

  constructor() {
    this.ready = this.#connect().catch(() => false);
    // A page that is left tells; one that was killed is missed when it does not answer.
    addEventListener("pagehide", () => this.#leave());
  }

  /**
   * @param {object} order what to follow
   * @param {(message: object) => void} hear
   * @returns {number} the source's
   */
  join(order, hear) {
    const number = ++this.#numbers;
    this.#sources.set(number, hear);
    this.#port.postMessage({ ...order, number });
    return number;
  }

  drop(number) {
    if (this.#sources.delete(number)) this.#port.postMessage({ drop: number });
  }

  #connect() {
    return new Promise((resolve, reject) => {
      const worker = new SharedWorker(workerAddress(), { name: NAME, type: "module" });
      const timer = setTimeout(reject, HELLO_MS);
      worker.onerror = reject;
      this.#port = worker.port;
      this.#port.onmessage = ({ data }) => {
        clearTimeout(timer);
        if (data.hello) resolve(true);
        else if (data.ping) this.#port.postMessage({ pong: true });
        else this.#sources.get(data.number)?.(data);
      };
    });
  }

  #leave() {
    this.#port?.postMessage({ bye: true });
    // A page that is shown again finds its sources closed, and opens new ones.
    const left = [...this.#sources.values()];
    this.#sources.clear();
    const tell = () => left.forEach((hear) => hear({ over: true }));
    addEventListener("pageshow", tell, { once: true });
  }
}

let line = null;

/** An `EventSource` for one run's address, as far as `sluice.js` needs one. */
export class SharedEventSource {
  onopen = null;
  onmessage = null;
  onerror = null;
  #number = 0;
  #own = null;
  #closed = false;

  /** @param {string} url such as `/streams/st_…?after=1.42` */
  constructor(url) {
    this.#open(url);
  }

  close() {
    this.#closed = true;
    this.#own?.close();
    if (this.#number) line.drop(this.#number);
  }

  async #open(url) {
    line ??= new Line();
    const isShared = await line.ready;
    if (this.#closed) return;
    const order = isShared && orderFor(url);
    if (order) this.#number = line.join(order, (message) => this.#hear(message, url));
    else this.#listenAlone(url);
  }

  #hear({ open, over, full, data, id }, url) {
    if (this.#closed) return;
    if (open) this.onopen?.(new Event("open"));
    else if (over) this.onerror?.(new Event("error"));
    else if (full) this.#listenAlone(url);
    else this.onmessage?.(new MessageEvent("message", { data, lastEventId: id }));
  }

  #listenAlone(url) {
    this.#own = new EventSource(url);
    for (const name of ["onopen", "onmessage", "onerror"]) this.#own[name] = (event) => this[name]?.(event);
  }
}

/**
 * Return a service whose runs are followed on the connection that all tabs share.
 *
 * @param {string} [base] as for `Sluice`
 * @param {import("./sluice.js").SluiceOptions} [options]
 * @returns {Sluice}
 */
export function sharedSluice(base = "", options = {}) {
  const shared = globalThis.EventSource ? { EventSource: SharedEventSource } : {};
  return new Sluice(base, { ...shared, ...options });
}

/**
 * Follow a run of this page's origin on the connection that all tabs share; otherwise as `Sluice.follow`.
 *
 * @param {string} streamId
 * @param {{after?: string, text?: string, metrics?: boolean}} [options]
 * @returns {import("./sluice.js").Run}
 */
export function sharedFollow(streamId, options) {
  return sharedSluice().follow(streamId, options);
}

/** Return what the worker is to follow; null for an address that is not one run's. */
function orderFor(url) {
  const match = ADDRESS.exec(new URL(url, location.href).href);
  if (!match || new URL(match[1]).origin !== location.origin) return null;
  const query = new URLSearchParams(match[3]);
  return { follow: decodeURIComponent(match[2]), streams: match[1], after: query.get("after") ?? "" };
}

/** Under Trusted Types the address of a script has to come from a policy. */
function workerAddress() {
  const address = new URL("./shared_worker.js", import.meta.url).href;
  const policy = globalThis.trustedTypes?.createPolicy("sluice-worker", {
    createScriptURL: (url) => (url === address ? url : ""),
  });
  return policy ? policy.createScriptURL(address) : address;
}
