/** Keeps a reader who is at the end there while the page grows; leaves any other where they are. */

const NEAR_END_PIXELS = 64;

let atEnd = true;
let lastY = 0;
let button = null;

/** Scroll to the end, and stay there. */
export function goToEnd() {
  atEnd = true;
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

/**
 * Follow the end of `growing`, and offer `toEnd` to whoever is elsewhere.
 *
 * @param {HTMLElement} growing
 * @param {HTMLButtonElement} toEnd
 */
export function followEnd(growing, toEnd) {
  button = toEnd;
  addEventListener("scroll", look, { passive: true });
  toEnd.addEventListener("click", goToEnd);
  // Called after layout and before the frame is painted: nothing is seen to jump.
  new ResizeObserver(() => {
    if (atEnd) goToEnd();
    else look();
  }).observe(growing);
}

function look() {
  const page = document.documentElement;
  const left = page.scrollHeight - innerHeight - scrollY;
  // Only who goes up leaves the end: it also gets away from a reader, by growing before this is called.
  if (left <= NEAR_END_PIXELS) atEnd = true;
  else if (scrollY < lastY) atEnd = false;
  lastY = scrollY;
  button.hidden = atEnd || left < innerHeight / 2;
}
