/** Waiting between attempts. */

const BACK_OFF_MS = 500;
const MAX_BACK_OFF_MS = 10_000;

/**
 * Wait, but not longer than until `signal` aborts or the browser comes online.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}

/**
 * Return how long to wait before attempt number `failures` + 2: doubling, with jitter.
 *
 * @param {number} failures
 * @returns {number} milliseconds
 */
export function backOff(failures) {
  return Math.min(BACK_OFF_MS * 2 ** failures, MAX_BACK_OFF_MS) * (0.5 + Math.random() / 2);
}
