/** The one place where markup becomes elements: what the dialect does not write is taken out. */

import createSanitiser from "./vendor/dompurify.js";

/**
 * A page with `require-trusted-types-for 'script'` allows this policy by its name. It passes on what
 * it gets: only this module has it, for a document that is shown to nobody, and the sanitiser walks
 * through what came of it before anybody sees that.
 */
const POLICY = "sluice-markdown";

const policy = window.trustedTypes?.createPolicy(POLICY, {
  createHTML: (html) => html,
  createScriptURL: () => null,
});

const USES = 32;

// Nothing is loaded and nothing runs in a document without a window. To make one for each use would
// take longer than most uses; but each use leaves an iterator behind, and a document asks all its
// iterators whenever a node leaves it.
let nowhere = null;
let uses = 0;

const sanitiser = createSanitiser(window);

sanitiser.setConfig({
  ALLOWED_TAGS: [
    ..."p br strong em s code pre h3 h4 h5 h6 ul ol li blockquote hr".split(" "),
    ..."table thead tbody tr th td a img span div #text".split(" "),
  ],
  ALLOWED_ATTR: "href rel target title class src alt start tabindex role aria-label".split(" "),
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  // As the sanitiser's own, without the schemes that the dialect does not make links of.
  ALLOWED_URI_REGEXP: /^(?:(?:https?|mailto):|[^a-z]|[a-z+.-]+(?:[^a-z+.\-:]|$))/i,
  // Not a text that is parsed again: what was looked at is what is shown.
  IN_PLACE: true,
  ...(policy && { TRUSTED_TYPES_POLICY: policy }),
});

/**
 * Return what `html` shows, and nothing that does anything.
 *
 * @param {string} html
 * @returns {HTMLElement} a box of it
 */
export function sanitised(html) {
  if (uses++ % USES === 0) nowhere = document.implementation.createHTMLDocument("");
  const box = nowhere.createElement("div");
  box.innerHTML = policy ? policy.createHTML(html) : html;
  return sanitiser.sanitize(box);
}
