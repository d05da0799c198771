// What static/sluice.js promises, against a service that fails in every way: node --test sluice_promises.mjs
import assert from "node:assert/strict";
import { afterEach, before, beforeEach, describe, test } from "node:test";
import { EventStreamParser, NotAuthenticated, PermissionDenied, RateLimited, Sluice, SluiceError, newKey } from "../../static/sluice.js";
import { ID, Service, begin, cutAt, eventsOf, heldBack, hurry, json, message, refuse, says, whole } from "./sluice_service.mjs";

hurry();

/** Node 18 has no checksums: there the text's is not judged. */
const CAN_CHECK = Boolean(globalThis.crypto?.subtle);
const WORDS = ["Hel", "lo, ", "wörld ", "😀", "\n\n", "\u2028", '{"done":true}', " end"];
const TEXT = WORDS.join("");

let service;
let sluice;

// The first use of fetch loads it, which takes as long as a hurried client waits for an event.
before(() => fetch("data:,").then((response) => response.text()));

beforeEach(async () => {
  service = await new Service(eventsOf(WORDS)).start();
  sluice = new Sluice(service.url);
});

afterEach(() => service.stop());

/** Follow to the end; return what was told. */
async function heard(run) {
  const got = { events: [], resets: 0, links: [] };
  run.addEventListener("event", ({ detail }) => got.events.push(detail));
  run.addEventListener("link", ({ detail }) => got.links.push(detail));
  run.addEventListener("reset", () => {
    got.resets += 1;
    got.events = [];
  });
  got.result = await run.finished;
  got.text = got.events.map((event) => (event.type === "token" ? event.content : "")).join("");
  return got;
}

async function eventually(condition) {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `still not: ${condition}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function assertWhole(got) {
  assert.deepEqual(JSON.parse(JSON.stringify(got.events)), service.events);
  assert.equal(got.result.text, TEXT);
  assert.equal(got.result.verified, CAN_CHECK || null);
  assert.equal(got.result.error, undefined);
}

describe("the parser", () => {
  const stream = Buffer.from(
    "\ufeffretry: 1500\n: comment\nid: 1.1\ndata: one\n\n" +
      "id:1.2\r\ndata:  two\r\ndata\r\ndata:lines\r\n\r\n" +
      "event: named\rdata: é😀\u2028\u0085\r\rdata\n\n" +
      "id: a\0b\nretry: x\nunknown: y\ndata:kept id\n\nid\n\nevent: lost\n\ndata: no id\n\ndata: unfinished\n",
  );
  const expected = [
    { data: "one", id: "1.1", type: "message" },
    { data: " two\n\nlines", id: "1.2", type: "message" },
    { data: "é😀\u2028\u0085", id: "1.2", type: "named" },
    { data: "", id: "1.2", type: "message" },
    { data: "kept id", id: "1.2", type: "message" },
    { data: "no id", id: "", type: "message" },
  ];

  test("reads a stream in one piece", () => {
    const parser = new EventStreamParser();
    assert.deepEqual(parser.feed(stream), expected);
    assert.equal(parser.retry, 1500);
  });

  test("reads it the same however it is cut in two, and byte by byte", () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const parser = new EventStreamParser();
      const got = [...parser.feed(stream.subarray(0, cut)), ...parser.feed(stream.subarray(cut))];
      assert.deepEqual(got, expected, `cut at ${cut}`);
    }
    const parser = new EventStreamParser();
    const got = Array.from(stream).flatMap((byte) => parser.feed(Uint8Array.of(byte)));
    assert.deepEqual(got, expected);
    assert.equal(parser.retry, 1500);
  });

  test("hands a message out at its blank line, without waiting for what comes after a carriage return", () => {
    assert.equal(new EventStreamParser().feed(Buffer.from("data: x\r\n\r")).length, 1);
  });

  test("refuses an event that does not end", () => {
    const parser = new EventStreamParser();
    const block = Buffer.alloc(4 * 1024 * 1024, "x");
    assert.throws(() => {
      for (let times = 0; times < 6; times++) parser.feed(block);
    });
  });
});

describe("a run that is followed", () => {
  test("hands out each event once, in order, and is verified", async () => {
    const got = await heard(sluice.follow(ID));
    assertWhole(got);
    assert.deepEqual(got.links, ["open"]);
    assert.equal(service.askedFor("GET", "stream").length, 1);
  });

  test("can be iterated over", async () => {
    const run = sluice.follow(ID);
    const events = [];
    for await (const event of run) events.push(event);
    assert.deepEqual(events, service.events);
    assert.equal(run.text, TEXT);
    assert.equal(run.cursor, `1.${service.events.length}`);
    assert.equal(run.link, "closed");
    assert.equal((await run.finished).text, TEXT);
  });

  test("loses and repeats nothing wherever the connection is cut", async () => {
    const bytes = Buffer.concat(service.messages(0)).length;
    for (let cut = 0; cut < bytes; cut += 11) {
      service.written = service.events.length - 1;
      service.connections = [
        cutAt(cut),
        (...connection) => {
          service.written = service.events.length;
          whole(...connection);
        },
      ];
      assertWhole(await heard(sluice.follow(ID)));
    }
  });

  test("goes on from every event of it", async () => {
    for (let seq = 1; seq < service.events.length; seq++) {
      const text = WORDS.slice(0, Math.max(0, seq - 2)).join("");
      const got = await heard(sluice.follow(ID, { after: `1.${seq}`, text }));
      assert.deepEqual(got.events, service.events.slice(seq), `after ${seq}`);
      assert.equal(got.result.text, TEXT);
      assert.notEqual(got.result.verified, false);
    }
  });

  test("cut at each of its events, it comes whole, over as many connections", async () => {
    service.written = 1;
    service.connections = [
      (_, response, after) => {
        begin(response);
        service.written = Math.min(after + 1, service.events.length);
        response.end(service.messages(after)[0]);
      },
    ];
    const got = await heard(sluice.follow(ID));
    assertWhole(got);
    assert.ok(service.askedFor("GET", "stream").length >= WORDS.length);
    assert.ok(got.links.includes("reconnecting"));
  });

  test("that ended while nobody listened is told from what is kept", async () => {
    service.connections = [
      (_, response) => {
        service.written = service.events.length;
        response.destroy();
      },
    ];
    assertWhole(await heard(sluice.follow(ID)));
  });

  test("without its text so far is told, and its checksum is not judged", async () => {
    const got = await heard(sluice.follow(ID, { after: "1.4" }));
    assert.equal(got.result.verified, null);
    assert.equal(got.result.text, WORDS.slice(2).join(""));
  });

  test("at its end already is told its end", async () => {
    const last = `1.${service.events.length}`;
    service.connections = [(_, response) => response.writeHead(204).end()];
    const got = await heard(sluice.follow(ID, { after: last, text: TEXT }));
    assert.equal(got.result.text, TEXT);
    assert.equal(got.result.finish_reason, "stop");
  });

  test("that failed has its error and its text", async () => {
    const error = { message: "gone", type: "interrupted", code: "worker_lost", retryable: true, partial: true };
    service.events = eventsOf(WORDS, { type: "error", error });
    const got = await heard(sluice.follow(ID));
    assert.deepEqual(got.events, service.events);
    assert.deepEqual(got.result.error, error);
    assert.equal(got.result.text, TEXT);
  });

  test("passes over what only others need", async () => {
    const hidden = { ...service.events[4], n: 3 };
    const rest = service.events.slice(5).map((event, place) => message(`1.${place + 8}`, event));
    const last = { ...service.events.at(-1), last_seq: service.events.length + 2 };
    rest.splice(-1, 1, message(`1.${last.last_seq}`, last));
    const body = Buffer.concat([...service.messages(0).slice(0, 4), message("1.7", hidden), ...rest]);
    service.connections = [says(body)];
    const got = await heard(sluice.follow(ID));
    assert.equal(got.resets, 0);
    assert.equal(got.text, TEXT);
    // A cursor of a snapshot may lie among them.
    service.connections = [says(Buffer.concat([message("1.7", hidden), ...rest]))];
    const resumed = await heard(sluice.follow(ID, { after: "1.6", text: WORDS.slice(0, 2).join("") }));
    assert.equal(resumed.resets, 0);
    assert.equal(resumed.result.text, TEXT);
  });
});

describe("a connection that lies", () => {
  const lies = {
    "text that is no JSON": says("id: 1.1\ndata: <html>\n\n"),
    "JSON that is no event": says("id: 1.1\ndata: [1, null]\n\n", "id: 1.2\ndata: null\n\n"),
    "an end that is not the log's": says(message("1.1", { type: "error", done: true, error: { type: "store_unavailable", message: "x" } })),
    "a page instead of a stream": (_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<h1>hi</h1>"),
    "a gateway's error": (_, response) => response.writeHead(502).end("bad gateway"),
    "a redirect to nowhere": (_, response) => response.writeHead(302, { Location: "http://127.0.0.1:1/" }).end(),
    "a body that is cut": (_, response) => response.writeHead(200, { "Content-Type": "text/event-stream", "Content-Length": "50" }).write("id: 1", () => response.destroy()),
  };
  for (const [name, lie] of Object.entries(lies)) {
    test(`is left and come back from: ${name}`, async () => {
      service.written = service.events.length - 1;
      const mend = (...connection) => {
        service.written = service.events.length;
        whole(...connection);
      };
      service.connections = [lie, mend];
      const got = await heard(sluice.follow(ID));
      assertWhole(got);
      assert.equal(got.resets, 0);
    });
  }

  const holes = {
    "an event left out": (messages) => messages.filter((_, place) => place !== 4),
    "an event twice": (messages) => messages.flatMap((each, place) => (place === 4 ? [each, each] : [each])),
    "events out of order": (messages) => [...messages.slice(0, 3), messages[4], messages[3], ...messages.slice(5)],
    "text of another": (messages) => messages.map((each, place) => (place === 4 ? message("1.5", { type: "token", content: "XX" }) : each)),
    "an end that comes too early": (messages) => [...messages.slice(0, 5), message("1.6", service.events.at(-1))],
  };
  for (const [name, change] of Object.entries(holes)) {
    const skip = name.startsWith("text") && !CAN_CHECK;
    test(`is noticed, and all is read again: ${name}`, { skip }, async () => {
      service.connections = [
        (_, response, after) => {
          begin(response);
          response.end(Buffer.concat(change(service.messages(after))));
        },
        whole,
      ];
      const got = await heard(sluice.follow(ID));
      assertWhole(got);
      assert.equal(got.resets, 1);
    });
  }

  test("about the text, twice, leaves a result that says so", async () => {
    const lie = (_, response, after) => {
      begin(response);
      response.end(Buffer.concat(service.messages(after, (event) => (event.content === "lo, " ? { ...event, content: "la, " } : event))));
    };
    service.connections = [lie];
    const got = await heard(sluice.follow(ID));
    assert.equal(got.result.verified, CAN_CHECK ? false : null);
    assert.equal(got.resets, CAN_CHECK ? 1 : 0);
    assert.equal(got.result.finish_reason, "stop");
  });

  test("iterating, a reset is an event among others", async () => {
    service.connections = [(_, response) => (begin(response), response.end(service.messages(3)[0])), whole];
    const types = [];
    for await (const event of sluice.follow(ID)) types.push(event.type);
    assert.deepEqual(types, ["reset", ...service.events.map((event) => event.type)]);
  });
});

describe("a log that lost its end", () => {
  test("makes the client forget what it has and read again", async () => {
    service.connections = [(_, response, after) => (after ? refuse("cursor_lost", 410)(response) : whole(service, response, after))];
    service.snapshots = [(response, after) => (after ? refuse("cursor_lost", 410)(response) : json(response, 200, service.snapshot()))];
    const got = await heard(sluice.follow(ID, { after: "1.99", text: "what nobody has any more" }));
    assertWhole(got);
    assert.equal(got.resets, 1);
  });

  for (const [type, status] of [["not_found", 404], ["stream_expired", 410], ["stream_lost", 410], ["bad_cursor", 400]]) {
    test(`or its stream ends the run with what is known: ${type}`, async () => {
      service.connections = [(_, response) => refuse(type, status)(response)];
      service.snapshots = [refuse(type, status)];
      const run = sluice.follow(ID, { after: "1.3", text: "H" });
      const events = [];
      for await (const event of run) events.push(event);
      assert.deepEqual(events.map(({ type, done }) => [type, done]), [["error", true]]);
      const { error, text, verified } = await run.finished;
      assert.deepEqual([error.type, text, verified], [type, "H", null]);
    });
  }
});

describe("a network that holds event streams back", () => {
  test("is noticed by the first event that does not come, said, and polled", async () => {
    service.connections = [heldBack];
    service.written = 5;
    service.snapshots = [
      null, // asked because nothing came
      null, // the first poll
      (response) => response.writeHead(502).end("<html>"),
      (response, after) => {
        service.written = service.events.length;
        json(response, 200, service.snapshot(after));
      },
    ];
    const got = await heard(sluice.follow(ID));
    assertWhole(got);
    assert.deepEqual(got.links, ["polling", "reconnecting", "polling"]);
    assert.ok(service.askedFor("GET", "snapshot").some(({ query }) => query.wait === "20"));
    assert.ok(service.askedFor("GET", "snapshot").every(({ query }) => query.events === "1"));
  });

  test("heartbeats that come through are not events that do", async () => {
    service.connections = [says(...Array(50).fill(": hb\n"))];
    const got = await heard(sluice.follow(ID));
    assertWhole(got);
    assert.ok(got.links.includes("polling"));
  });

  test("is polled at once on request, also where the service tells no events", async () => {
    service.snapshots = [(response, after) => json(response, 200, { ...service.snapshot(after), events: undefined })];
    const got = await heard(new Sluice(service.url, { transport: "polling" }).follow(ID));
    assert.equal(got.text, TEXT);
    assert.equal(service.askedFor("GET", "stream").length, 0);
    assert.notEqual(got.result.verified, false);
  });

  test("a polled text that has another checksum is read again", async () => {
    const lie = (response, after) => json(response, 200, { ...service.snapshot(after), events: [{ type: "token", content: "lie" }] });
    service.snapshots = [lie, null];
    const got = await heard(new Sluice(service.url, { transport: "polling" }).follow(ID));
    if (CAN_CHECK) assert.equal(got.text, TEXT);
  });

  test("connections that bring nothing three times over are given up for polling", async () => {
    service.written = service.events.length - 1;
    service.connections = [(_, response) => response.destroy()];
    service.snapshots = [null, null, null, (response, after) => {
      service.written = service.events.length;
      json(response, 200, service.snapshot(after));
    }];
    const got = await heard(sluice.follow(ID));
    assertWhole(got);
    assert.equal(service.askedFor("GET", "stream").length, 3);
  });

  test("a silence in which nothing was written is left alone, one that hides something is not", async () => {
    service.written = 4;
    const silent = (_, response, after) => (begin(response), response.write(Buffer.concat(service.messages(after))));
    service.connections = [silent, whole];
    const run = sluice.follow(ID);
    const told = heard(run);
    await eventually(() => run.text === WORDS.slice(0, 2).join(""));
    await eventually(() => service.askedFor("GET", "snapshot").length >= 2);
    assert.equal(service.askedFor("GET", "stream").length, 1);
    service.written = service.events.length;
    assertWhole(await told);
  });
});

describe("starting", () => {
  test("sends the request as it is, with a key, and follows the run", async () => {
    const run = await sluice.start({ prompt: "hi", source: "chat", thread: "t" });
    assert.equal(run.id, ID);
    const [post] = service.askedFor("POST", "post");
    assert.deepEqual(JSON.parse(post.body), { prompt: "hi", source: "chat", thread: "t" });
    assert.ok(post.headers["idempotency-key"].length >= 32);
    assertWhole(await heard(run));
  });

  test("asks again with the same key while the network fails", async () => {
    service.posts = [(response) => response.destroy(), (response) => response.writeHead(502).end("<html>"), refuse("overloaded", 503), null];
    await sluice.start({ prompt: "hi" }, { key: "mine" });
    const keys = service.askedFor("POST", "post").map(({ headers }) => headers["idempotency-key"]);
    assert.deepEqual(keys, ["mine", "mine", "mine", "mine"]);
  });

  test("rejects at once what is refused, with all the service says", async () => {
    service.posts = [refuse("invalid_request", 400, { code: "required", param: "prompt", retryable: false })];
    await assert.rejects(sluice.start({}), (error) => {
      assert.ok(error instanceof SluiceError);
      const { type, code, param, message, retryable, status } = error;
      assert.deepEqual([type, code, param, retryable, status], ["invalid_request", "required", "prompt", false, 400]);
      assert.equal(message, "it is invalid_request");
      return true;
    });
    assert.equal(service.asked.length, 1);
  });

  test("rejects in the end when nobody answers, and says that it may be tried again", async () => {
    service.posts = [(response) => response.destroy()];
    await assert.rejects(sluice.start({ prompt: "hi" }), { type: "unreachable", retryable: true, status: 0 });
    assert.equal(service.asked.length, 4);
  });

  test("rejects an answer of somebody else", async () => {
    service.posts = [(response) => response.writeHead(404).end("nothing here")];
    await assert.rejects(sluice.start({ prompt: "hi" }), { type: "bad_response", status: 404, retryable: false });
    service.posts = [(response) => json(response, 200, { hello: "world" })];
    await assert.rejects(sluice.start({ prompt: "hi" }), { type: "bad_response", retryable: true });
  });

  test("needs an address outside of a page", async () => {
    await assert.rejects(new Sluice("").start({ prompt: "hi" }), { type: "invalid_request", param: "base" });
    assert.throws(() => new Sluice("/x").follow(ID), { param: "base" });
  });

  test("makes another key each time", () => {
    assert.notEqual(newKey(), newKey());
  });
});

describe("a run", () => {
  test("is followed from when somebody listens", async () => {
    const run = sluice.follow(ID);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    assert.equal(service.asked.length, 0);
    assertWhole(await heard(run));
  });

  test("that has begun is not iterated over any more", async () => {
    const run = sluice.follow(ID);
    await run.finished;
    assert.throws(() => run[Symbol.asyncIterator](), /has begun/);
  });

  test("that is closed leaves its connection, tells nothing and ends its iterations", async () => {
    service.written = 4;
    service.connections = [(_, response, after) => (begin(response), response.write(Buffer.concat(service.messages(after))))];
    const run = sluice.follow(ID);
    let told = 0;
    for (const type of ["event", "end", "link", "reset"]) run.addEventListener(type, () => (told += 1));
    const events = [];
    for await (const event of run) {
      events.push(event);
      if (events.length === 4) {
        told = 0;
        run.close();
      }
    }
    await eventually(() => service.open === 0);
    assert.equal(events.length, 4);
    assert.equal(told, 0);
    assert.equal(run.link, "closed");
    const result = await run.finished;
    assert.deepEqual([result.error.type, result.text, result.verified], ["closed", WORDS.slice(0, 2).join(""), null]);
  });

  test("whose loop is left is closed", async () => {
    service.connections = [(_, response, after) => (begin(response), response.write(Buffer.concat(service.messages(after).slice(0, 4))))];
    for await (const event of sluice.follow(ID)) if (event.type === "token") break;
    await eventually(() => service.open === 0);
  });

  test("is cancelled with a receipt, asked for again while the network fails", async () => {
    service.posts = [(response) => response.destroy(), null];
    const receipt = await sluice.follow(ID).cancel();
    assert.deepEqual([receipt.state, receipt.upstream], ["cancelled", "closed"]);
    assert.deepEqual(service.asked.map(({ path }) => path), [`/streams/${ID}/cancel`, `/streams/${ID}/cancel`]);
  });

  test("sends the headers it is told with every request", async () => {
    service.connections = [(_, response) => response.destroy()];
    const signed = new Sluice(`${service.url}/`, { headers: { Authorization: "Bearer x" } });
    const run = await signed.start({ prompt: "hi" });
    await heard(run);
    await run.cancel();
    assert.ok(service.asked.length >= 4);
    for (const { headers, path } of service.asked) assert.equal(headers.authorization, "Bearer x", path);
  });

  test("sends its key with every request, also with those that stream", async () => {
    const signed = new Sluice(service.url, { key: "sk-sluice-x", headers: { "X-More": "1" }, EventSource: class {} });
    await heard(await signed.start({ prompt: "hi" }));
    assert.equal(service.askedFor("GET", "stream").length, 1, "an EventSource could not send it");
    for (const { headers } of service.asked) {
      assert.equal(headers.authorization, "Bearer sk-sluice-x");
      assert.equal(headers["x-more"], "1");
    }
  });

  test("uses the fetch it is given", async () => {
    const urls = [];
    const given = new Sluice(service.url, { fetch: (url, init) => (urls.push(url), fetch(url, init)) });
    assertWhole(await heard(await given.start({ prompt: "hi" })));
    assert.equal(urls.length, service.asked.length);
  });

  test("asks for metrics when it is told to", async () => {
    await heard(sluice.follow(ID, { metrics: true }));
    assert.equal(service.asked[0].query.metrics, "1");
  });
});

describe("who is not known, or not allowed", () => {
  const signedOut = refuse("not_authenticated", 401);

  for (const [status, type, Kind] of [
    [401, "not_authenticated", NotAuthenticated],
    [403, "permission_denied", PermissionDenied],
  ]) {
    test(`is told so at once: ${status}`, async () => {
      service.posts = [refuse(type, status)];
      await assert.rejects(sluice.start({ prompt: "hi" }), (error) => {
        assert.ok(error instanceof Kind && error instanceof SluiceError);
        assert.deepEqual([error.name, error.type, error.status, error.retryable], [Kind.name, type, status, false]);
        return true;
      });
      assert.equal(service.asked.length, 1);
    });
  }

  test("has asked for too much: a short wait is waited for", async () => {
    const full = (response) => json(response, 429, { error: { message: "too much", type: "rate_limited" } }, { "Retry-After": "2" });
    service.posts = [full, null];
    assertWhole(await heard(await sluice.start({ prompt: "hi" })));
    assert.equal(service.askedFor("POST", "post").length, 2);
  });

  test("has asked for too much: a long wait is told", async () => {
    service.posts = [(response) => json(response, 429, { error: { message: "too much", type: "rate_limited" } }, { "Retry-After": "3600" })];
    await assert.rejects(sluice.start({ prompt: "hi" }), (error) => {
      assert.ok(error instanceof RateLimited);
      assert.deepEqual([error.retryAfterMs, error.retryable], [3_600_000, true]);
      return true;
    });
    assert.equal(service.asked.length, 1);
  });

  test("any more, in the middle of a run, ends it with the text so far", async () => {
    service.connections = [cutAt(300), (_, response) => signedOut(response)];
    service.snapshots = [signedOut];
    const got = await heard(sluice.follow(ID));
    assert.equal(got.result.error.type, "not_authenticated");
    assert.ok(got.result.text && TEXT.startsWith(got.result.text));
  });

  for (const transport of ["fetch", "polling"]) {
    test(`any more, in the middle of a run, waits to be signed in and loses nothing: ${transport}`, async () => {
      let let_in = null;
      let asked = 0;
      const patient = new Sluice(service.url, { transport, signIn: () => (asked++, new Promise((resolve) => (let_in = resolve))) });
      service.connections = [cutAt(300), whole];
      service.snapshots = [signedOut, signedOut, null];
      const run = patient.follow(ID);
      const hearing = heard(run);
      await eventually(() => let_in);
      assert.equal(run.link, "signed-out");
      const before = run.text;
      service.snapshots = [null];
      let_in(true);
      const got = await hearing;
      assertWhole(got);
      assert.ok(got.text.startsWith(before));
      assert.equal(got.resets, 0);
      assert.equal(asked, 1);
    });
  }

  test("any more: all runs that wait are let in at once", async () => {
    let asked = 0;
    let let_in = null;
    const patient = new Sluice(service.url, { signIn: () => (asked++, new Promise((resolve) => (let_in = resolve))) });
    service.connections = [(_, response) => signedOut(response)];
    service.snapshots = [signedOut];
    const runs = [patient.follow(ID), patient.follow(ID), patient.follow(ID)];
    const hearing = Promise.all(runs.map(heard));
    await eventually(() => runs.every(({ link }) => link === "signed-out"));
    assert.equal(asked, 1);
    service.connections = [whole];
    service.snapshots = [null];
    let_in(true);
    for (const got of await hearing) assertWhole(got);
  });

  for (const [how, signIn] of [
    ["says no", () => false],
    ["throws", () => assert.fail("no")],
    ["rejects", () => Promise.reject(new Error("no"))],
  ]) {
    test(`any more, where signing in ${how}, ends the run`, async () => {
      service.connections = [(_, response) => signedOut(response)];
      service.snapshots = [signedOut];
      const got = await heard(new Sluice(service.url, { signIn }).follow(ID));
      assert.equal(got.result.error.type, "not_authenticated");
    });
  }

  test("any more, where signing in helps nothing, is not asked in a hurry", async () => {
    let asked = 0;
    service.connections = [(_, response) => signedOut(response)];
    service.snapshots = [signedOut];
    const run = new Sluice(service.url, { transport: "polling", signIn: () => ++asked < 4 }).follow(ID);
    const began = Date.now();
    await heard(run);
    assert.equal(asked, 4);
    assert.ok(Date.now() - began > 60, "three waits, each longer, made shorter for this test");
  });

  test("any more: closing a run that waits ends it", async () => {
    service.connections = [(_, response) => signedOut(response)];
    service.snapshots = [signedOut];
    const run = new Sluice(service.url, { signIn: () => new Promise(() => {}) }).follow(ID);
    const { finished } = run;
    await eventually(() => run.link === "signed-out");
    run.close();
    assert.equal((await finished).error.type, "closed");
  });
});
