/** Starts and follows runs, on the one connection that all tabs of this browser share. */

import { sharedSluice } from "./shared.js";
import { signedIn } from "./sign_in.js";

export { newKey } from "./sluice.js";

const sluice = sharedSluice("", { signIn: signedIn });

/**
 * Create a run, once, over a network that may fail.
 *
 * @param {object} body of `POST /streams`
 * @param {string} key makes asking again safe
 * @returns {Promise<string>} the stream's id. Rejects with `SluiceError`
 */
export async function startRun(body, key) {
  const { id } = await sluice.start(body, { key });
  return id;
}

/**
 * Follow a run from `after`, whose text so far is `text`.
 *
 * @param {string} streamId
 * @param {{after: string, text: string}} from
 * @returns {import("./sluice.js").Run}
 */
export function followRun(streamId, { after, text }) {
  return sluice.follow(streamId, { after, text, metrics: true });
}
