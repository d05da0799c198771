/** Keeps a reader who is at the end there while the page grows; leaves any other where they are. */

const NEAR_END_PIXELS = 64;

const ROUNDING_PIXELS = 2;

let atEnd = true;
let lastY = 0;
let lastHeight = 0;
let button = null;

/** Scroll to the end, and stay there. */
export function goToEnd() {
  const page = document.documentElement;
  atEnd = true;
  scrollTo({ top: page.scrollHeight, behavior: "instant" });
  lastY = scrollY;
  lastHeight = page.scrollHeight;
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
  const height = document.documentElement.scrollHeight;
  const left = height - innerHeight - scrollY;
  // Only who goes up leaves the end, and be it by a pixel: a wheel's first frames are small, and who is
  // taken back by the next token never gets away. The end also gets away from a reader, by growing
  // before this is called; so who went down is judged by the end that they saw.
  if (scrollY < lastY) atEnd = left <= ROUNDING_PIXELS;
  else if (scrollY > lastY && lastHeight - innerHeight - scrollY <= NEAR_END_PIXELS) atEnd = true;
  lastY = scrollY;
  lastHeight = height;
  button.hidden = atEnd || left < innerHeight / 2;
}
