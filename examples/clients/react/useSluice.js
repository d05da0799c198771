/** A React hook on sluice.js. To copy: this file and static/sluice.js; React 18 or newer. */

import { useCallback, useEffect, useRef, useState } from "react";

const NOTHING = { state: "idle", text: "", events: [], link: "closed", error: null, streamId: null };

/**
 * One answer at a time: what was asked last.
 *
 * `state` is `idle`, `asking`, `running`, `done`, `stopped` or `error`; `text` the answer so far;
 * `events` everything else in it, such as tool calls; `link` how the connection is. `ask` takes a
 * prompt or the body of `POST /streams`, `resume` the `streamId` of a run, as after a reload.
 *
 * @param {import("../../../static/sluice.js").Sluice} sluice made once, outside of components
 */
export function useSluice(sluice) {
  const [answer, setAnswer] = useState(NOTHING);
  const current = useRef(null);
  const turn = useRef(0);
  const isThere = useRef(true);

  const leave = useCallback(() => {
    turn.current += 1;
    current.current?.close(); // no listener is called any more; the run goes on
    current.current = null;
    return turn.current;
  }, []);

  const follow = useCallback((run) => {
    current.current = run;
    let events = [];
    const update = (change) => setAnswer((answer) => ({ ...answer, text: run.text, events, ...change }));
    setAnswer({ ...NOTHING, state: "running", streamId: run.id, link: run.link });
    run.addEventListener("event", ({ detail }) => {
      // Tokens are in the text: twenty thousand of them are no list to copy each time.
      if (detail.type !== "token") events = [...events, detail];
      update({});
    });
    run.addEventListener("link", ({ detail }) => update({ link: detail }));
    run.addEventListener("reset", () => {
      events = [];
      update({});
    });
    run.addEventListener("end", ({ detail }) => update({ ...ended(detail), link: "closed" }));
  }, []);

  const ask = useCallback(
    async (request) => {
      const mine = leave();
      setAnswer({ ...NOTHING, state: "asking" });
      try {
        const run = await sluice.start(typeof request === "string" ? { prompt: request } : request);
        if (mine === turn.current && isThere.current) follow(run);
        else run.cancel().catch(() => {}); // stopped, or asked anew, while it was on its way
      } catch (error) {
        if (mine === turn.current) setAnswer({ ...NOTHING, state: "error", error });
      }
    },
    [sluice, leave, follow],
  );

  const resume = useCallback(
    (streamId) => {
      leave();
      follow(sluice.follow(streamId));
    },
    [sluice, leave, follow],
  );

  /** Stop the run for everybody; its end is heard as usual. Rejects when the service does not answer. */
  const stop = useCallback(async () => {
    if (current.current) return current.current.cancel();
    leave();
    setAnswer((answer) => (answer.state === "asking" ? { ...answer, state: "stopped" } : answer));
  }, [leave]);

  useEffect(() => {
    isThere.current = true; // StrictMode takes a component away and puts it back
    return () => {
      isThere.current = false;
      current.current?.close();
    };
  }, []);

  return { ...answer, ask, resume, stop };
}

/** An end without an error is not enough: the text may not be the one that was written. */
function ended({ error, finish_reason, verified }) {
  if (error) return { state: "error", error };
  if (verified === false) return { state: "error", error: { message: "the answer did not arrive whole" } };
  return { state: finish_reason === "cancelled" ? "stopped" : "done" };
}
