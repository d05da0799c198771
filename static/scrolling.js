/** Keeps a reader who is at the end there while the page grows; leaves any other where they are. */

const NEAR_END_PIXELS = 64;

const ROUNDING_PIXELS = 2;
const SETTING_OFF_FRAMES = 20; // A third of a second; more where frames are slow, and scrolling with them.
const KEYS_UP = new Set(["ArrowUp", "PageUp", "Home"]);

let atEnd = true;
let lastY = 0;
let lastHeight = 0;
let button = null;
let framesToSetOff = 0;

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
  addEventListener("wheel", (event) => event.deltaY < 0 && letSetOff(), { passive: true });
  addEventListener("touchmove", letSetOff, { passive: true });
  addEventListener("keydown", (event) => KEYS_UP.has(event.key) && letSetOff());
  // Called after layout and before the frame is painted: nothing is seen to jump.
  new ResizeObserver(() => {
    if (atEnd && !framesToSetOff) goToEnd();
    else look();
  }).observe(growing);
}

/**
 * Do not scroll for a moment: it would end the reader's own scrolling before its first frame is seen.
 *
 * Whoever turns the wheel elsewhere than over the page is followed to the end again after that.
 */
function letSetOff() {
  if (!framesToSetOff) requestAnimationFrame(countFrame);
  framesToSetOff = SETTING_OFF_FRAMES;
}

function countFrame() {
  if (--framesToSetOff) requestAnimationFrame(countFrame);
  else if (atEnd) goToEnd();
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
