/** The list of conversations, and what is done with one: rename, delete. */

import { notice, sentence } from "./saying.js";
import { noteSignedOut } from "./sign_in.js";
import { tell } from "./tabs.js";
import { clone } from "./templates.js";

const byId = (id) => document.getElementById(id);
const [list, older, empty, dialog] = ["threads", "older", "no-threads", "options"].map(byId);
const PAGE = 50;

/**
 * Make the list and its dialog work; `current` returns the thread that is shown.
 *
 * @param {string} url where conversations are
 * @param {() => string} current
 * @param {(thread: string, title: string) => void} renamed
 */
export function keepList(url, current, renamed) {
  const keeper = new Keeper(url, current, renamed);
  return { refresh: () => keeper.refresh(), title: (thread) => keeper.title(thread) };
}

class Keeper {
  #url;
  #current;
  #renamed;

  constructor(url, current, renamed) {
    this.#url = url;
    this.#current = current;
    this.#renamed = renamed;
    document.addEventListener("click", (event) => this.#click(event));
    older.addEventListener("click", (event) => {
      event.preventDefault();
      this.#more();
    });
    dialog.querySelector(".rename").addEventListener("submit", (event) => this.#rename(event));
    dialog.querySelector(".delete").addEventListener("submit", (event) => this.#delete(event));
    dialog.querySelector(".close").addEventListener("click", (event) => {
      event.preventDefault();
      dialog.close();
    });
    // A click beside it closes it.
    dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
    if (dialog.open) {
      dialog.close();
      dialog.showModal();
    }
  }

  /** Show the newest conversations again; what "older" brought stays. */
  async refresh() {
    const found = await this.#ask("GET", `?limit=${PAGE}`).catch(() => null);
    if (!found) return;
    const isFirstPage = list.children.length <= PAGE;
    const shown = new Set(found.threads.map(({ id }) => id));
    for (const line of [...list.children].slice(0, PAGE)) if (!shown.has(line.dataset.thread)) line.remove();
    let before = null;
    for (const thread of found.threads) {
      const line = this.#line(thread);
      if (before) before.after(line);
      else list.prepend(line);
      before = line;
    }
    empty.hidden = list.children.length > 0;
    if (isFirstPage) older.hidden = !found.more;
  }

  title(thread) {
    return find(thread)?.querySelector(".open").textContent;
  }

  async #more() {
    const last = list.lastElementChild.dataset.thread;
    const found = await this.#ask("GET", `?limit=${PAGE}&after=${encodeURIComponent(last)}`).catch(() => null);
    if (!found) return;
    const lines = found.threads.map((thread) => this.#line(thread));
    list.append(...lines);
    older.hidden = !found.more;
    lines[0]?.querySelector("a").focus();
  }

  /** Return the conversation's line, the one that is there if there is one, so that focus stays. */
  #line({ id, title }) {
    const line = find(id) ?? clone("thread");
    const [open, options] = line.querySelectorAll("a");
    line.dataset.thread = id;
    open.href = `?${new URLSearchParams({ thread: id })}`;
    options.href = `?${new URLSearchParams({ thread: id, options: 1 })}`;
    if (open.textContent !== title) open.textContent = title;
    options.ariaLabel = `Rename or delete: ${title}`;
    if (id === this.#current()) open.ariaCurrent = "page";
    else open.removeAttribute("aria-current");
    return line;
  }

  #click(event) {
    const link = event.target.closest("#threads .options, #options-link");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const thread = link.closest("li")?.dataset.thread ?? this.#current();
    const title = this.title(thread) ?? byId("title").textContent;
    for (const form of dialog.querySelectorAll("form")) form.elements.thread.value = thread;
    dialog.querySelector(".rename").elements.title.value = title;
    dialog.showModal();
  }

  async #rename(event) {
    event.preventDefault();
    const { thread, title } = event.target.elements;
    const found = await this.#told("PATCH", thread.value, { title: title.value.trim() });
    if (!found) return;
    this.#renamed(thread.value, title.value.trim());
    tell({ kind: "list", thread: thread.value });
    await this.refresh();
  }

  async #delete(event) {
    event.preventDefault();
    const thread = event.target.elements.thread.value;
    if (!(await this.#told("DELETE", thread))) return;
    tell({ kind: "deleted", thread });
    if (thread === this.#current()) {
      location.assign("?");
      return;
    }
    find(thread)?.remove();
    byId("new").focus();
    await this.refresh();
  }

  /** Do it, and close the dialog; say so where it could not be done. */
  async #told(method, thread, body) {
    try {
      await this.#ask(method, `/${encodeURIComponent(thread)}`, body);
      return true;
    } catch (error) {
      notice(error.message);
      return false;
    } finally {
      dialog.close();
    }
  }

  async #ask(method, rest, body) {
    let response;
    try {
      response = await fetch(this.#url + rest, {
        method,
        headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
        body: body && JSON.stringify(body),
      });
    } catch {
      throw new Error("The service cannot be reached.");
    }
    if (response.status === 401) noteSignedOut();
    if (response.status === 204) return {};
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(sentence(answer.error?.message));
    return answer;
  }
}

function find(thread) {
  return list.querySelector(`li[data-thread="${CSS.escape(thread)}"]`);
}
