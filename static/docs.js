/** The reference of the API: filter it, choose a language, copy. Without this it can be read all the same. */

const LANGUAGE = "sluice-docs-language";
const COPIED_MILLISECONDS = 1500;

const filter = document.querySelector("#filter");
const entries = [...document.querySelectorAll("article[data-words]")];

filter.closest("label").hidden = false;
filter.addEventListener("input", show);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea")) {
    event.preventDefault();
    filter.focus();
  }
});
addEventListener("hashchange", () => reveal());
document.querySelector("#operations").addEventListener("click", ({ target }) => {
  const list = document.querySelector("#sidebar");
  if (target.closest("a") && list.matches(":popover-open")) list.hidePopover();
});

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => copy(button));
}
document.addEventListener("change", ({ target }) => {
  if (target.matches(".languages input")) choose(target.value);
});
choose(remembered());
reveal();

/** Show the operations and schemas that have every word of the filter. */
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const entry of entries) {
    entry.hidden = !words.every((word) => entry.dataset.words.includes(word));
    count += !entry.hidden;
    const listed = entry.dataset.entry && document.querySelector(`li[data-entry="${entry.dataset.entry}"]`);
    if (listed) listed.hidden = entry.hidden;
  }
  for (const chapter of document.querySelectorAll(".chapter")) {
    const empty = !chapter.querySelector("article:not([hidden])");
    for (const each of document.querySelectorAll(`[data-chapter="${chapter.id}"]`)) each.hidden = empty;
  }
  document.querySelector("#nothing").hidden = count > 0;
  document.querySelector("#heard").textContent = words.length ? `${count} found` : "";
}

/** Mark what the address names in the list; if the filter hides it, the filter goes. */
function reveal() {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id ? document.getElementById(id) : null;
  if (target?.closest("[hidden]")) {
    filter.value = "";
    show();
    target.scrollIntoView();
  }
  for (const link of document.querySelectorAll("#operations a")) {
    if (link.hash === location.hash && id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Show every snippet in one language, and remember it. */
function choose(language) {
  for (const input of document.querySelectorAll(`.languages input[value="${CSS.escape(language)}"]`)) {
    input.checked = true;
  }
  try {
    localStorage.setItem(LANGUAGE, language);
  } catch {
    // This browser keeps nothing: it is chosen for this page only.
  }
}

function remembered() {
  try {
    return localStorage.getItem(LANGUAGE) ?? "curl";
  } catch {
    return "curl";
  }
}

async function copy(button) {
  const shown = [...button.closest(".snippets").querySelectorAll("pre")].find((each) => each.offsetParent);
  const label = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(shown.textContent);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not copied";
  }
  setTimeout(() => (label.textContent = "Copy"), COPIED_MILLISECONDS);
}
