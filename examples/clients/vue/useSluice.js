/** A Vue composable on sluice.js. To copy: this file and static/sluice.js; Vue 3. */

import { onScopeDispose, shallowReactive, toRefs } from "vue";

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
  const answer = shallowReactive({ ...NOTHING });
  let current = null;
  let turn = 0;

  function leave() {
    current?.close(); // no listener is called any more; the run goes on
    current = null;
    Object.assign(answer, NOTHING);
    return ++turn;
  }

  function follow(run) {
    current = run;
    Object.assign(answer, { state: "running", streamId: run.id, link: run.link });
    run.addEventListener("event", ({ detail }) => {
      answer.text = run.text;
      // Tokens are in the text: twenty thousand of them are no list to copy each time.
      if (detail.type !== "token") answer.events = [...answer.events, detail];
    });
    run.addEventListener("link", ({ detail }) => (answer.link = detail));
    run.addEventListener("reset", () => Object.assign(answer, { text: "", events: [] }));
    run.addEventListener("end", ({ detail }) => Object.assign(answer, ended(detail), { link: "closed" }));
  }

  async function ask(request) {
    const mine = leave();
    answer.state = "asking";
    try {
      const run = await sluice.start(typeof request === "string" ? { prompt: request } : request);
      if (mine === turn) follow(run);
      else run.cancel().catch(() => {}); // stopped, or asked anew, while it was on its way
    } catch (error) {
      if (mine === turn) Object.assign(answer, { state: "error", error });
    }
  }

  function resume(streamId) {
    leave();
    follow(sluice.follow(streamId));
  }

  /** Stop the run for everybody; its end is heard as usual. Rejects when the service does not answer. */
  async function stop() {
    if (current) return current.cancel();
    if (answer.state !== "asking") return undefined;
    leave();
    answer.state = "stopped";
  }

  onScopeDispose(leave);

  return { ...toRefs(answer), ask, resume, stop };
}

/** An end without an error is not enough: the text may not be the one that was written. */
function ended({ error, finish_reason, verified }) {
  if (error) return { state: "error", error };
  if (verified === false) return { state: "error", error: { message: "the answer did not arrive whole" } };
  return { state: finish_reason === "cancelled" ? "stopped" : "done" };
}
