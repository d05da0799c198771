/** Changes a part of the page to what it should be, and leaves alone whatever is already so. */

import { Code, isCode } from "./code.js";

/**
 * Make what follows `after` in `parent` like `wanted`.
 *
 * A selection, the focus and the place in a scrolled box survive in nodes that stay.
 *
 * @param {Element} parent
 * @param {Node | null} after its last child that is not looked at; null for all
 * @param {Iterable<Node>} wanted new nodes, which may be taken
 * @param {boolean} [keepsRest] leave what `parent` has beyond them
 * @returns {Node[]} the nodes that are there now, one for each of `wanted`
 */
export function patchAfter(parent, after, wanted, keepsRest = false) {
  let old = after ? after.nextSibling : parent.firstChild;
  const shown = [];
  for (const fresh of wanted) {
    const next = old?.nextSibling ?? null;
    if (old) shown.push(patch(old, fresh));
    else shown.push(parent.appendChild(adopted(fresh)));
    old = next;
  }
  while (old && !keepsRest) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
  return shown;
}

/**
 * Make `old` like `fresh`, or put `fresh` in its place.
 *
 * @param {Node} old
 * @param {Node} fresh
 * @returns {Node} the one that is there now
 */
export function patch(old, fresh) {
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(adopted(fresh));
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) patchText(old, fresh.data);
  else {
    patchAttributes(old, fresh);
    if (isCode(old) && isCode(fresh)) Code.of(old).become(fresh);
    else patchAfter(old, null, [...fresh.childNodes]);
  }
  return old;
}

function patchText(old, text) {
  if (old.data === text) return;
  // What is selected in it stays selected.
  if (text.startsWith(old.data)) old.appendData(text.slice(old.data.length));
  else old.data = text;
}

function patchAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of old.getAttributeNames()) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
}

function adopted(node) {
  if (node.nodeType === Node.ELEMENT_NODE) Code.adoptIn(node);
  return node;
}
