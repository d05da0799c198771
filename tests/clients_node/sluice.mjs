// static/sluice.js on the real service: node sluice.mjs '{"base_url", "how", "request", "stream_id", "after", "text"}'.
// Prints one line of JSON: what the client was told.
import { Sluice } from "../../static/sluice.js";
import { report } from "./report.mjs";

const asked = JSON.parse(process.argv[2]);
const sluice = new Sluice(asked.base_url, asked.options);
const got = { links: [], resets: 0 };

async function listen(run) {
  got.id = run.id;
  run.addEventListener("link", ({ detail }) => got.links.push(detail));
  got.events = [];
  for await (const event of run) {
    if (event.type === "reset") {
      got.resets += 1;
      got.events = [];
    } else {
      got.events.push(event);
    }
    if (asked.cancel_after && got.events.length === asked.cancel_after) got.receipt = await run.cancel();
    if (asked.leave_after && got.events.length === asked.leave_after) break;
  }
  got.cursor = run.cursor;
  got.result = await run.finished;
}

const ways = {
  start: async () => listen(await sluice.start(asked.request)),
  follow: async () => listen(sluice.follow(asked.stream_id, { after: asked.after, text: asked.text })),
};

await report(got, ways[asked.how]);
