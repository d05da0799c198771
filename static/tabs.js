/** What one tab does, the browser's other tabs hear of. */

const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("sluice");

/**
 * Tell the other tabs.
 *
 * @param {{kind: "turns" | "list" | "deleted", thread: string} | {kind: "signed-in", csrf: string} | {kind: "signed-out"}} news
 */
export function tell(news) {
  channel?.postMessage(news);
}

/**
 * Hear what other tabs tell.
 *
 * @param {(news: object) => void} heard
 */
export function hear(heard) {
  channel?.addEventListener("message", ({ data }) => heard(data));
}

/**
 * Hear what other tabs tell; and look again when this one is looked at, since
 * other devices tell nothing.
 *
 * @param {(news: {kind: string, thread: string}) => void} heard
 * @param {() => void} lookedAt
 */
export function listen(heard, lookedAt) {
  hear(heard);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && lookedAt());
  addEventListener("focus", lookedAt);
}
