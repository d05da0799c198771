/** Keeps a reader who is at the end of the page there, and any other where they are. */

const NEAR_END_PIXELS = 64;

/**
 * Change the page; a reader who was at its end stays there, any other stays where they were.
 *
 * @param {() => void} change
 */
export function keepingTheEnd(change) {
  const page = document.documentElement;
  const wasAtEnd = scrollY + innerHeight >= page.scrollHeight - NEAR_END_PIXELS;
  change();
  if (wasAtEnd) goToEnd();
}

/** Scroll to the end of the page. */
export function goToEnd() {
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}
