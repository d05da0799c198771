/** What the tests call in the page. */

import { MarkdownView, renderInto } from "/static/markdown.js";

const answer = document.getElementById("answer");

window.executed = 0;
window.breaches = [];
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) => {
  window.breaches.push(`${violatedDirective} ${blockedURI} ${sample}`);
});

/** What an element shows, without what only the client adds: colours, boxes of lines, buttons. */
function normalForm(element) {
  const copy = element.cloneNode(true);
  for (const button of copy.querySelectorAll(".copy")) button.remove();
  for (const code of copy.querySelectorAll("pre code")) code.textContent = code.textContent;
  const blocks = "ul, ol, li, blockquote, table, thead, tbody, tr, .table";
  for (const parent of [copy, ...copy.querySelectorAll(blocks)]) {
    for (const node of [...parent.childNodes]) if (node.nodeType === 3 && !node.data.trim()) node.remove();
  }
  copy.normalize();
  return copy.innerHTML;
}

function parsed(html) {
  const policy = (window.testPolicy ??= trustedTypes.createPolicy("test", { createHTML: (text) => text }));
  const element = document.createElement("div");
  element.append(...new DOMParser().parseFromString(policy.createHTML(html), "text/html").body.childNodes);
  return element;
}

const box = () => document.createElement("div");
const alone = (change) => change();

window.tests = { MarkdownView, renderInto, normalForm, parsed, box, alone, answer };

/** Return the normal form of `text`, shown in pieces. */
window.tests.streamed = (pieces) => {
  const element = box();
  const view = new MarkdownView(element, alone);
  for (const piece of pieces) {
    view.append(piece);
    view.flush();
  }
  view.finish();
  if (view.text !== pieces.join("")) throw new Error("the view forgot its text");
  return normalForm(element);
};

window.tests.whole = (text) => {
  const element = box();
  renderInto(element, text);
  return normalForm(element);
};

window.tests.server = (html) => normalForm(parsed(html));

window.tests.ready = true;

/**
 * Show `tokens` one by one, each in a frame of its own that takes no time, and let colouring run in
 * between as it would.
 *
 * @returns {Promise<{parse: number, slowest: number}>} milliseconds: of all frames, of the slowest
 */
window.tests.timed = async (tokens) => {
  const element = box();
  answer.replaceChildren(element);
  const view = new MarkdownView(element, alone);
  let parse = 0;
  let slowest = 0;
  for (const [at, token] of tokens.entries()) {
    const began = performance.now();
    view.append(token);
    view.flush();
    const took = performance.now() - began;
    parse += took;
    slowest = Math.max(slowest, took);
    if (at % 60 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  view.finish();
  return { parse, slowest };
};

/** Show `tokens` in real time, after `before`; return the tasks of more than 50 ms, by the browser's measure. */
window.tests.live = async (before, tokens, perSecond) => {
  answer.replaceChildren();
  const view = new MarkdownView(answer);
  view.append(before);
  view.flush();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const long = [];
  const observer = new PerformanceObserver((list) => {
    for (const { duration, startTime } of list.getEntries()) long.push({ duration, startTime });
  });
  observer.observe({ type: "longtask" });
  const began = performance.now();
  for (let shown = 0; shown < tokens.length; ) {
    const due = Math.min(tokens.length, Math.floor(((performance.now() - began) * perSecond) / 1000));
    for (; shown < due; shown++) view.append(tokens[shown]);
    await new Promise((resolve) => setTimeout(resolve, 1000 / perSecond));
  }
  view.finish();
  await new Promise((resolve) => setTimeout(resolve, 500));
  observer.disconnect();
  return long;
};
