/** What the tests call in the page. */

import { adopt, MarkdownView, renderInto } from "/static/markdown.js";

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

window.tests = { adopt, MarkdownView, renderInto, normalForm, parsed, box, alone, answer };

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

let live = null;

/** Show an answer so far, for `stream` to go on with. */
window.tests.prepare = async (before) => {
  answer.replaceChildren();
  live = new MarkdownView(answer);
  live.append(before);
  live.flush();
};

/** Show `tokens` in real time. */
window.tests.stream = async (tokens, perSecond) => {
  const began = performance.now();
  for (let shown = 0; shown < tokens.length; ) {
    const due = Math.min(tokens.length, Math.floor(((performance.now() - began) * perSecond) / 1000));
    for (; shown < due; shown++) live.append(tokens[shown]);
    await new Promise((resolve) => setTimeout(resolve, 1000 / perSecond));
  }
  live.finish();
};

/** Show `text` cut once, at each place, and in single characters; return what is there that must not be. */
window.tests.attacked = (text) => {
  const found = [];
  const element = box();
  answer.replaceChildren(element);
  const check = () => {
    for (const node of element.querySelectorAll("*")) {
      const isKnown = KNOWN.has(node.localName) && node.namespaceURI === "http://www.w3.org/1999/xhtml";
      const attributes = node.getAttributeNames().filter((name) => !ATTRIBUTES.has(name));
      const leads = node.localName === "a" && !["http:", "https:", "mailto:"].includes(node.protocol);
      const loads = node.localName === "img" && !node.src.startsWith("data:image/");
      if (!isKnown || attributes.length || leads || loads) found.push(node.outerHTML.slice(0, 200));
    }
  };
  const show = (pieces) => {
    const view = new MarkdownView(element, alone);
    for (const piece of pieces) {
      view.append(piece);
      view.flush();
      check();
    }
    view.finish();
    check();
    view.clear();
  };
  const cuts = Math.ceil(text.length / Math.ceil(text.length / 120));
  for (let at = 1; at < text.length; at += Math.ceil(text.length / cuts)) show([text.slice(0, at), text.slice(at)]);
  show(Array.from(text));
  return found;
};

const KNOWN = new Set(
  ("p br strong em s code pre h3 h4 h5 h6 ul ol li blockquote hr table thead tbody tr th td a img span div button").split(" "),
);
const ATTRIBUTES = new Set("href rel target title class src alt start tabindex role aria-label type".split(" "));

window.tests.ready = true;
