/** The doctor's page: measures, has it judged by the service, and shows what was found. */

import { Refused, listenToSilence, measureTicks, sendLargeBody, tryWebSocket } from "./doctor_measure.js";

const find = (id) => document.getElementById(id);
const form = find("examine");
const doing = find("doing");
const progress = find("progress");
const trouble = find("trouble");
const { ticks: ticksAddress, findings: findingsAddress, heartbeat } = form.dataset;
let ticking = 0;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (form.dataset.state !== "busy") examine(Number(find("silence").value));
});
form.hidden = false; // what it starts needs this script
find("origin").textContent = location.origin;

/**
 * Examine, and show what is found: at once what takes a moment, and then what silence tells.
 *
 * @param {number} silenceSeconds
 */
async function examine(silenceSeconds) {
  begin(silenceSeconds);
  try {
    say("Listening to ticks");
    let measured = await measureTicks(ticksAddress);
    say("Trying WebSocket and a large request");
    measured.websocket_status = await tryWebSocket();
    measured.large_body_status = await sendLargeBody(findingsAddress);
    show(await judge(measured));
    say(`Listening to silence, for ${silenceSeconds} seconds`);
    const often = measured.heartbeat_seconds ?? Number(heartbeat);
    measured = { ...measured, silences: await listenToSilence(ticksAddress, silenceSeconds, often) };
    const findings = await judge(measured);
    show(findings);
    end("done", summary(findings));
  } catch (error) {
    trouble.textContent =
      error instanceof Refused
        ? `It could not be examined: ${error.message}.`
        : "It could not be examined: the service cannot be reached.";
    trouble.hidden = false;
    end("failed", "");
    if (!(error instanceof Refused || error instanceof TypeError)) throw error;
  }
}

async function judge(measured) {
  const response = await fetch(findingsAddress, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(measured),
  });
  const told = await response.json().catch(() => null);
  if (!response.ok || !told) throw new Refused(told?.error?.message ?? `the service answers ${response.status}`);
  return told.findings;
}

function show(findings) {
  find("way").replaceChildren(...findings.map(drawn));
}

function drawn(finding) {
  const item = find("a-finding").content.cloneNode(true).querySelector("li");
  item.dataset.level = finding.level;
  item.dataset.code = finding.code;
  item.querySelector(".level").textContent = finding.level;
  for (const name of ["title", "measured", "why"]) item.querySelector(`.${name}`).textContent = finding[name];
  for (const { where, setting } of finding.changes) {
    const change = find("a-change").content.cloneNode(true);
    change.querySelector("dt").textContent = where;
    change.querySelector("code").textContent = setting;
    item.querySelector(".changes").append(change);
  }
  return item;
}

function summary(findings) {
  const counts = new Map();
  for (const { level } of findings) counts.set(level, (counts.get(level) ?? 0) + 1);
  const plural = { fault: "faults", warning: "warnings", note: "notes", ok: "ok" };
  const told = [...counts].map(([level, count]) => `${count} ${count === 1 ? level : plural[level]}`);
  return `Done: ${told.join(", ")}.`;
}

function begin(silenceSeconds) {
  form.dataset.state = "busy";
  form.querySelector("button").setAttribute("aria-disabled", "true");
  trouble.hidden = true;
  progress.hidden = false;
  const begun = performance.now();
  const whole = (silenceSeconds + 4) * 1000;
  const tick = () => {
    progress.value = Math.min(0.99, (performance.now() - begun) / whole);
  };
  tick();
  ticking = setInterval(tick, 200);
}

function end(state, said) {
  clearInterval(ticking);
  form.dataset.state = state;
  form.querySelector("button").removeAttribute("aria-disabled");
  progress.hidden = true;
  say(said);
}

function say(text) {
  doing.textContent = text;
}
