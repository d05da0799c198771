/**
 * The shared worker: one event stream for all tabs of a browser, opened anew at each run's cursor
 * when a run comes or goes. It promises nothing besides: what is lost on the way, each tab's
 * `sluice.js` notices, as it would with a connection of its own.
 */

const JOIN_MS = 5;
/** A page that is loaded again comes back for its run. */
const LEAVE_MS = 1_000;
const PING_MS = 10_000;
const MISSED_PINGS = 2;
/** As many as the service takes for one feed. */
const MOST_STREAMS = 64;

/** Who follows one run: a source of a tab, and what it has got. */
class Follower {
  /**
   * @param {{post(message: object): void}} tab
   * @param {number} number what the tab calls it
   * @param {string} stream
   * @param {string} after
   */
  constructor(tab, number, stream, after) {
    this.tab = tab;
    this.number = number;
    this.stream = stream;
    this.after = after;
  }

  get seq() {
    return seqOf(this.after);
  }

  tell(message) {
    this.tab.post({ number: this.number, ...message });
  }

  /**
   * Hand on the message at `id`, which stands for `count` events, if it is the next one. Another
   * follower of the run may be further behind, or further on.
   */
  hear(data, id, count) {
    const seq = seqOf(id);
    if (seq <= this.seq || seq - count > this.seq) return;
    this.after = id;
    this.tell({ data, id });
  }
}

/**
 * The feed of one service: one connection. To carry other runs, another one is opened, and the first
 * is closed when that is there: nobody waits meanwhile, and no run is without a reader.
 */
export class Feed {
  #address;
  #open;
  #followers = new Set();
  /** What the newest connection carries: for each run, the cursor it has come to. */
  #carried = new Map();
  #source = null;
  /** Its successor, which has not answered yet. It may be the only one that carries some run. */
  #next = null;
  /** And that one is to be succeeded too, once it has answered. */
  #isDueAgain = false;
  #timer = 0;
  #due = Infinity;

  /**
   * @param {string} address of the service's streams
   * @param {(url: string) => EventSource} [open]
   */
  constructor(address, open = (url) => new EventSource(url)) {
    this.#address = address;
    this.#open = open;
  }

  join(follower) {
    const streams = new Set([...this.#followers].map(({ stream }) => stream));
    if (!streams.has(follower.stream) && streams.size >= MOST_STREAMS) {
      follower.tell({ full: true });
      return;
    }
    this.#followers.add(follower);
    const at = this.#carried.get(follower.stream);
    if (at === undefined || follower.seq < seqOf(at)) this.#reopenIn(JOIN_MS);
    else if (!this.#next) follower.tell({ open: true });
  }

  drop(follower) {
    if (!this.#followers.delete(follower)) return;
    const isWanted = [...this.#followers].some(({ stream }) => stream === follower.stream);
    if (!isWanted && this.#carried.has(follower.stream)) this.#reopenIn(LEAVE_MS);
  }

  #reopenIn(milliseconds) {
    const due = Date.now() + milliseconds;
    if (due >= this.#due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.#reopen(), milliseconds);
  }

  #reopen() {
    this.#due = Infinity;
    const places = this.#places();
    if (!places.size) {
      this.#close();
      return;
    }
    if (this.#next) {
      this.#isDueAgain = true;
      return;
    }
    this.#carried = places;
    const query = new URLSearchParams({ metrics: "1" });
    for (const [stream, after] of this.#carried) query.append("follow", after ? `${stream}@${after}` : stream);
    const source = this.#open(`${this.#address}?${query}`);
    this.#next = source;
    source.onopen = () => {
      this.#source?.close();
      this.#source = source;
      this.#next = null;
      if (this.#isDueAgain) {
        this.#isDueAgain = false;
        this.#reopen();
      } else {
        for (const follower of this.#followers) follower.tell({ open: true });
      }
    };
    source.onerror = () => this.#lose(source);
    for (const stream of this.#carried.keys()) {
      source.addEventListener(stream, ({ data, lastEventId }) => this.#hear(stream, data, lastEventId));
    }
  }

  /** Return for each run the cursor of whoever is furthest behind. */
  #places() {
    const places = new Map();
    for (const { stream, after } of this.#followers) {
      if (!places.has(stream) || seqOf(after) < seqOf(places.get(stream))) places.set(stream, after);
    }
    return places;
  }

  #hear(stream, data, id) {
    const { done, n = 1, last_seq: events } = JSON.parse(data);
    if (done) this.#carried.delete(stream);
    else if (this.#carried.has(stream)) this.#carried.set(stream, id);
    for (const follower of [...this.#followers]) {
      if (follower.stream !== stream) continue;
      // An end that is not the log's says what keeps the feed from telling more, whoever has what.
      if (done && (!events || follower.seq >= events)) follower.tell({ data, id });
      else follower.hear(data, id, n);
    }
  }

  /**
   * A connection is over. If somebody counted on it, let the followers find out what became of their
   * runs: they come back for those that go on.
   */
  #lose(source) {
    source.close();
    const isNewest = source === (this.#next ?? this.#source);
    if (this.#source === source) this.#source = null;
    if (!isNewest || !this.#carried.size) return;
    this.#close();
    const left = [...this.#followers];
    this.#followers.clear();
    for (const follower of left) follower.tell({ over: true });
  }

  #close() {
    clearTimeout(this.#timer);
    this.#due = Infinity;
    this.#source?.close();
    this.#next?.close();
    this.#source = this.#next = null;
    this.#isDueAgain = false;
    this.#carried = new Map();
  }
}

/** One tab, for as long as it answers. */
class Tab {
  #port;
  #followers = new Map();
  #missed = 0;
  #timer = 0;

  constructor(port) {
    this.#port = port;
    port.onmessage = ({ data }) => this.#take(data);
    this.post({ hello: true });
  }

  post(message) {
    this.#port.postMessage(message);
  }

  #take({ follow, streams, after, number, drop, bye }) {
    this.#missed = 0;
    if (follow) this.#follow(number, follow, streams, after);
    else if (drop) this.#drop(drop);
    else if (bye) this.#leave();
  }

  #follow(number, stream, address, after) {
    if (!feeds.has(address)) feeds.set(address, new Feed(address));
    const feed = feeds.get(address);
    const follower = new Follower(this, number, stream, after);
    this.#followers.set(number, { feed, follower });
    this.#timer ||= setInterval(() => this.#ping(), PING_MS);
    feed.join(follower);
  }

  #drop(number) {
    const { feed, follower } = this.#followers.get(number) ?? {};
    this.#followers.delete(number);
    feed?.drop(follower);
    if (this.#followers.size) return;
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  /** A tab that was killed says nothing; neither does one that sleeps, which is told for when it wakes. */
  #ping() {
    if (this.#missed < MISSED_PINGS) {
      this.#missed += 1;
      this.post({ ping: true });
      return;
    }
    for (const number of this.#followers.keys()) this.post({ number, over: true });
    this.#leave();
  }

  #leave() {
    for (const number of [...this.#followers.keys()]) this.#drop(number);
  }
}

const feeds = new Map();

globalThis.onconnect = ({ ports: [port] }) => new Tab(port);

function seqOf(cursor) {
  return Number((cursor || "0.0").split(".")[1]);
}
