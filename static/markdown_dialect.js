/**
 * The Markdown of answers, as a markdown-it: no HTML, tables and strikethrough, math left as it was
 * written, links that show where they lead, no remote images, headings from h3 on.
 * `streaming/web/_markdown.py` has the same rules; a test compares what both make.
 */

import MarkdownIt from "./vendor/markdown-it.js";

const SPACE = " \t\n";
const LANGUAGE = /^[A-Za-z0-9+#._-]{1,30}/;
const WEB = /^https?:\/\/([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(?=[/?#]|$)/i;
const MAIL = /^mailto:([^?]+@[^?]+)/i;
const DATA_IMAGE = /^data:image\/(?:gif|png|jpeg|webp);base64,[A-Za-z0-9+/=]+$/i;
/** Python's parser takes these from the ends of a paragraph too. */
const OUTER_SPACES = /^[^\S\ufeff]+|[^\S\ufeff]+$/g;
/** What looks for links takes its time over each of these. */
const MOST_BRACKETS = 1000;
/** Where a paragraph has no such closing mark any more, in the cache of its parser. */
const NONE_AFTER = { $: -1, "\\)": -2, "\\]": -3 };

/**
 * Return a parser; `env.open` says that the text goes on, and that `mend` may close what is open.
 *
 * @param {(text: string) => string} mend
 */
export function createParser(mend) {
  const parser = new MarkdownIt({ breaks: true });
  parser.block.ruler.before("fence", "math_block", mathBlock, {
    alt: ["paragraph", "reference", "blockquote", "list"],
  });
  parser.inline.ruler.before("escape", "math_inline", mathInline);
  parser.core.ruler.before("inline", "mend", (state) => {
    for (const token of state.tokens) {
      if (token.type === "inline") token.content = token.content.replace(OUTER_SPACES, "");
    }
    if (state.env.open) mendLast(state.tokens, mend);
    for (const token of state.tokens) if (token.type === "inline") leaveBrackets(token, state);
  });
  parser.core.ruler.push("dress", (state) => dress(state, parser));
  Object.assign(parser.renderer.rules, {
    math_block: (tokens, at) => `<div class="math">${escape(tokens[at].content)}</div>\n`,
    math_inline: (tokens, at) => `<span class="math">${escape(tokens[at].content)}</span>`,
    host: (tokens, at) => ` <span class="host">(${escape(tokens[at].content)})</span>`,
    fence: (tokens, at) => code(tokens[at].content, languageOf(parser.utils.unescapeAll(tokens[at].info))),
    code_block: (tokens, at) => code(tokens[at].content, ""),
    table_open: () => '<div class="table" tabindex="0" role="group" aria-label="Table"><table>\n',
    table_close: () => "</table></div>\n",
  });
  const { escapeHtml: escape } = parser.utils;
  return parser;

  function code(content, language) {
    const name = language ? ` class="language-${escape(language)}"` : "";
    const head = `<div class="code-head"><span class="language">${escape(language)}</span></div>`;
    return `<div class="code">${head}<pre tabindex="0"><code${name}>${escape(content)}</code></pre></div>\n`;
  }
}

/**
 * Return the language a fence names, or "".
 *
 * @param {string} info
 */
export function languageOf(info) {
  return LANGUAGE.exec(info.trim())?.[0] ?? "";
}

/** Math on lines of its own goes to its closing mark or to the next empty line, and is not looked at. */
function mathBlock(state, startLine, endLine, silent) {
  if (state.sCount[startLine] - state.blkIndent >= 4) return false;
  const text = (line) => state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]).trim();
  const first = text(startLine);
  const close = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\]" : "";
  if (!close) return false;
  const closesAt = first.indexOf(close, 2);
  if (closesAt >= 0 && closesAt !== first.length - 2) return false;
  if (silent) return true;
  let next = startLine + 1;
  while (closesAt < 0 && next < endLine && !state.isEmpty(next) && state.sCount[next] >= state.blkIndent) {
    next++;
    if (text(next - 1).endsWith(close)) break;
  }
  const token = state.push("math_block", "div", 0);
  token.content = state.getLines(startLine, next, state.blkIndent, false).trim();
  token.map = [startLine, next];
  state.line = next;
  return true;
}

function mathInline(state, silent) {
  const { src, pos } = state;
  const end = src[pos] === "$" ? afterDollars(state) : src[pos] === "\\" ? afterBracket(state) : -1;
  if (end < 0) return false;
  if (!silent) state.push("math_inline", "span", 0).content = src.slice(pos, end);
  state.pos = end;
  return true;
}

function afterBracket({ src, pos, posMax, cache }) {
  const close = { "(": "\\)", "[": "\\]" }[src[pos + 1]];
  if (!close || cache[NONE_AFTER[close]] <= pos) return -1;
  const at = src.indexOf(close, pos + 2);
  if (at < 0) cache[NONE_AFTER[close]] = pos;
  return at < 0 || at + 2 > posMax || at === pos + 2 ? -1 : at + 2;
}

/** As Pandoc: no space inside the dollars, no digit after them; nor a letter or digit before them. */
function afterDollars(state) {
  const { src, pos, posMax, cache } = state;
  if (isWordCharacter(src[pos - 1]) || cache[NONE_AFTER.$] <= pos) return -1;
  const mark = src[pos + 1] === "$" ? "$$" : "$";
  const start = pos + mark.length;
  if (start >= posMax || SPACE.includes(src[start])) return -1;
  for (let at = start; at < posMax; at++) {
    if (src[at] === "\\") at++;
    else if (src.startsWith(mark, at) && at > start) {
      const after = at + mark.length;
      const isClosing = !SPACE.includes(src[at - 1]) && !(src[after] >= "0" && src[after] <= "9");
      if (after <= posMax && isClosing) return after;
    }
  }
  // Many lone dollars must not each look through the rest of a long paragraph.
  if (posMax === src.length && mark === "$") cache[NONE_AFTER.$] = pos;
  return -1;
}

function isWordCharacter(character) {
  return character !== undefined && /[A-Za-z0-9]/.test(character);
}

/** A paragraph of nothing but brackets is shown as it is. */
function leaveBrackets(token, state) {
  if (token.content.split("[", MOST_BRACKETS + 2).length <= MOST_BRACKETS + 1) return;
  const text = new state.Token("text", "", 0);
  text.content = token.content;
  token.children = [text];
  token.content = "";
}

function mendLast(tokens, mend) {
  for (const token of tokens.toReversed()) {
    if (token.type === "inline" && token.content) {
      token.content = mend(token.content);
      return;
    }
    if (token.nesting === 0 && token.type !== "inline") return;
  }
}

/** Change tokens to what is shown. */
function dress(state, parser) {
  for (const token of state.tokens) {
    if (/^heading_/.test(token.type)) token.tag = `h${Math.min(6, Number(token.tag[1]) + 2)}`;
    // Tight or not shows only in the distance between items, which CSS sets: so a later empty line
    // does not change the items before it.
    if (/^paragraph_/.test(token.type)) token.hidden = false;
    if (/^t[hd]_open$/.test(token.type) && token.attrs) {
      token.attrs = [["class", `align-${token.attrGet("style").split(":")[1]}`]];
    }
    if (token.type === "inline") token.children = dressInline(token.children, parser, state);
  }
}

function dressInline(children, parser, state) {
  const shown = [];
  let link = null;
  for (const token of children) {
    if (token.type === "link_open") {
      link = { destination: destinationOf(token.attrGet("href")), text: "" };
      if (link.destination) shown.push(opening(token, link.destination));
    } else if (token.type === "link_close") {
      if (link.destination) shown.push(token, ...hostOf(link, state));
      link = null;
    } else if (token.type === "image") {
      const alt = parser.renderer.renderInlineAsText(token.children, parser.options, state.env);
      if (link) link.text += alt;
      shown.push(...image(token, alt, link !== null, state));
    } else {
      if (link) link.text += /break$/.test(token.type) ? " " : token.content;
      shown.push(token);
    }
  }
  return shown;
}

/** An image of another host would tell it who reads: there is a link in its place. */
function image(token, alt, isInLink, state) {
  const source = token.attrGet("src");
  if (DATA_IMAGE.test(source)) {
    token.attrs = [["src", source], ["alt", ""]];
    return [token];
  }
  const label = alt || "Image";
  const text = new state.Token("text", "", 0);
  text.content = label;
  const destination = isInLink ? null : destinationOf(source);
  if (!destination) return [text];
  const open = opening(new state.Token("link_open", "a", 1), destination);
  return [open, text, new state.Token("link_close", "a", -1), ...hostOf({ destination, text: label }, state)];
}

function opening(token, { href }) {
  const title = token.attrGet("title");
  token.attrs = [
    ["href", href],
    ["rel", "noopener noreferrer nofollow ugc"],
    ["target", "_blank"],
  ];
  if (title) token.attrs.push(["title", title]);
  return token;
}

/** Return where a link leads that may be one, or null: pages of the web, and addresses to write to. */
function destinationOf(href) {
  const web = WEB.exec(href);
  if (web) return { href, host: (web[1] + (web[2] ?? "")).toLowerCase() };
  const mail = MAIL.exec(href);
  return mail ? { href, host: mail[1].toLowerCase() } : null;
}

function hostOf({ destination, text }, state) {
  const said = text.trim().toLowerCase().replace(/^(?:https?:\/\/|mailto:)/, "");
  const { host } = destination;
  if (said.startsWith(host) && (said.length === host.length || "/?#".includes(said[host.length]))) return [];
  const token = new state.Token("host", "span", 0);
  token.content = host;
  return [token];
}
