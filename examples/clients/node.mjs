// Stream an answer in Node 20: node node.mjs "What is a cursor?"
// To copy: this file, and static/sluice.js beside it.
import { Sluice } from "../../static/sluice.js";

const sluice = new Sluice(process.env.SLUICE_URL ?? "http://localhost:8000");
const run = await sluice.start({ prompt: process.argv.slice(2).join(" ") || "hi" });
process.once("SIGINT", () => run.cancel()); // for everybody, also at the model; then it ends below

// Each event once and in order, over as many connections as it takes.
for await (const event of run) {
  if (event.type === "token") process.stdout.write(event.content);
  if (event.type === "reset") process.stdout.write("\n[it comes again from the start]\n");
}

// A loop that is over says nothing yet: the run may have failed.
const { error, finish_reason, verified } = await run.finished;
if (error || verified === false) {
  console.error(`\n${error?.message ?? "the text is not the one that was written"}`);
  process.exitCode = 1;
} else if (finish_reason === "cancelled") {
  process.exitCode = 130;
}
