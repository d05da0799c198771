/** The one place where markup becomes elements: what the dialect does not write is taken out. */

import createSanitiser from "./vendor/dompurify.js";

/**
 * A page with `require-trusted-types-for 'script'` allows this policy by its name. It passes on what
 * it gets, because only the sanitiser has it, for a document that is shown to nobody.
 */
const POLICY = "sluice-markdown";

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
  RETURN_DOM_FRAGMENT: true,
  ...(window.trustedTypes && {
    TRUSTED_TYPES_POLICY: trustedTypes.createPolicy(POLICY, {
      createHTML: (html) => html,
      createScriptURL: () => null,
    }),
  }),
});

/**
 * Return what `html` shows, and nothing that does anything.
 *
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function sanitised(html) {
  return sanitiser.sanitize(html);
}
