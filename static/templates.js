/** Clones the page's templates: the server's markup, written once. */

/**
 * Return a new element of the template `a-<name>` or `an-<name>`.
 *
 * @param {string} name
 * @returns {HTMLElement}
 */
export function clone(name) {
  const template = document.getElementById(`a-${name}`) ?? document.getElementById(`an-${name}`);
  return template.content.firstElementChild.cloneNode(true);
}

/**
 * Return the element in `root` that a script fills in.
 *
 * @param {Element} root
 * @param {string} name its `data-slot`
 * @returns {HTMLElement}
 */
export function slot(root, name) {
  return root.querySelector(`[data-slot="${name}"]`);
}

/**
 * Put texts into the slots of `root`.
 *
 * @param {Element} root
 * @param {Record<string, string>} texts by slot
 */
export function fill(root, texts) {
  for (const [name, text] of Object.entries(texts)) slot(root, name).textContent = text;
}
