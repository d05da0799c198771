/**
 * What an answer looks like while its last words are on their way: what is begun is shown as if it
 * were finished (emphasis, code, math), and what cannot be told yet is held back, so that nothing
 * on the page jumps when the rest comes.
 */

const ITEM = "(?:(?:[-*+]|\\d{1,9}[.)])[ \\t]+)*";
const UNDECIDED_LINE = new RegExp(`^[ \\t>]*${ITEM}(?:[-*_=#+~\`|:$\\\\ \\t]*|\\d{1,9}[.)]?|\\[[ xX]?)$`);
const FENCE_LINE = new RegExp(`^[ \\t>]*${ITEM}(?:\`{3,}[^\`]*|~{3,}.*)$`);
const HEADER_LINE = /^ {0,3}\|/;

/**
 * Return `source` without the end of which nobody can tell yet what block it is.
 *
 * @param {string} source
 * @param {boolean} isInTable whether it continues a table
 */
export function withoutUndecided(source, isInTable) {
  const start = source.lastIndexOf("\n") + 1;
  const line = source.slice(start);
  const isHeld = UNDECIDED_LINE.test(line) || FENCE_LINE.test(line);
  const decided = isHeld ? source.slice(0, start) : source;
  if (isInTable || (isHeld && line === "" && source.endsWith("\n\n"))) return decided;
  return withoutHeader(decided);
}

/** The first line of a table is a paragraph until its second line is whole. */
function withoutHeader(source) {
  const end = source.endsWith("\n") ? source.length - 1 : source.length;
  const start = source.lastIndexOf("\n", end - 1) + 1;
  if (!HEADER_LINE.test(source.slice(start, end))) return source;
  const before = source.lastIndexOf("\n", start - 2) + 1;
  const isFirst = start === 0 || !HEADER_LINE.test(source.slice(before, start));
  return isFirst ? source.slice(0, start) : source;
}

/** A number or a box to tick: most often no link. */
const NO_LABEL = /^[\d\s,xX^]*$/;
const TEXT_OF_LINK = /^\[(?:[ xX])?\]?$/;
const WHOLE_DESTINATION = /^\(\s*(?:<[^<>\n]*>|(?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*)(?:\s+(?:"[^"]*"|'[^']*'|\([^)]*\)))?\s*\)/;
const ENTITY_BEGUN = /&(?:#?[a-z0-9]{0,31})?$/i;
const SPACES = /\s/;
const PUNCTUATION = /[\p{P}\p{S}]/u;

/**
 * Return the text of the last paragraph with what is open in it closed.
 *
 * @param {string} text
 */
export function mend(text) {
  const open = [];
  let at = 0;
  while (at < text.length) {
    const character = text[at];
    if (character === "\\") {
      const close = { "(": "\\)", "[": "\\]" }[text[at + 1]];
      if (!close) {
        at += 2;
        continue;
      }
      const end = text.indexOf(close, at + 2);
      if (end < 0) return text.length > at + 2 ? text + close : text.slice(0, at);
      at = end + 2;
    } else if (character === "`") {
      const run = runAt(text, at);
      const end = endOfCode(text, at + run, run);
      if (end < 0) return closed(codeClosed(text, at, run), open);
      at = end;
    } else if (character === "[") {
      open.push({ at: text[at - 1] === "!" ? at - 1 : at, mark: "[", label: at + 1 });
      at++;
    } else if (character === "]") {
      const bracket = takeBracket(open);
      at++;
      if (!bracket) continue;
      const rest = text.slice(at);
      const whole = rest[0] === "(" ? WHOLE_DESTINATION.exec(rest) : /^\[[^\]]*\]/.exec(rest);
      if (whole) at += whole[0].length;
      else if (rest === "" ? !NO_LABEL.test(text.slice(bracket.label, at - 1)) : /^[([][^\n)]*$/.test(rest)) {
        return closed(text.slice(0, bracket.at) + text.slice(bracket.label, at - 1), open);
      }
    } else if (character === "*" || character === "_" || character === "~") {
      const run = runAt(text, at);
      noteMarks(text, at, run, open);
      at += run;
    } else at++;
  }
  return closed(text, open);
}

function runAt(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return end - at;
}

function endOfCode(text, from, run) {
  for (let at = text.indexOf("`", from); at >= 0; at = text.indexOf("`", at)) {
    const found = runAt(text, at);
    at += found;
    if (found === run) return at;
  }
  return -1;
}

function codeClosed(text, at, run) {
  const content = text.slice(at + run);
  if (!content.trim()) return text.slice(0, at);
  // Part of the closing marks may be there.
  return content.replace(/`+$/, "").trim() ? text.replace(/`+$/, "") + "`".repeat(run) : text.slice(0, at);
}

function takeBracket(open) {
  const at = open.findLastIndex(({ mark }) => mark === "[");
  if (at < 0) return null;
  const [bracket] = open.splice(at);
  return bracket;
}

function noteMarks(text, at, run, open) {
  const mark = text[at];
  const before = text[at - 1] ?? " ";
  const after = text[at + run] ?? "";
  const leftFlanking = after !== "" && !SPACES.test(after) && (!PUNCTUATION.test(after) || SPACES.test(before) || PUNCTUATION.test(before));
  const rightFlanking = !SPACES.test(before) && (!PUNCTUATION.test(before) || after === "" || SPACES.test(after) || PUNCTUATION.test(after));
  if (mark === "~" && run < 2) return;
  if (after === "") {
    open.isWhole = closesAll(open, mark, run);
    return;
  }
  let left = run;
  if (rightFlanking && (mark !== "_" || !leftFlanking || PUNCTUATION.test(after))) {
    while (left > 0) {
      const found = open.findLastIndex((other) => other.mark === mark);
      if (found < 0) break;
      const used = Math.min(left, open[found].run);
      left -= used;
      open[found].run -= used;
      if (open[found].run > 0) break;
      open.splice(found);
    }
  }
  if (left > 0 && leftFlanking && (mark !== "_" || !rightFlanking || PUNCTUATION.test(before))) {
    open.push({ at, mark, run: left });
  }
}

/** Whether marks at the end close what they can; those that are only begun close nothing yet. */
function closesAll(open, mark, run) {
  let left = run;
  let keep = open.length;
  while (left > 0) {
    const found = open.slice(0, keep).findLastIndex((other) => other.mark === mark);
    if (found < 0 || open[found].run > left) return false;
    left -= open[found].run;
    keep = found;
  }
  open.splice(keep);
  return true;
}

/** Close what is open, innermost first; marks at the very end that are only begun are left out. */
function closed(text, open) {
  let shown = text.replace(/(?:[*_~]+|!|\\)$/, (marks) => (open.isWhole ? marks : ""));
  shown = shown.replace(ENTITY_BEGUN, "").trimEnd();
  let removed = 0;
  let closing = "";
  for (const { at, mark, run, label } of open) {
    if (mark === "[") {
      if (TEXT_OF_LINK.test(text.slice(at))) continue;
      shown = shown.slice(0, at - removed) + shown.slice(label - removed);
      removed += label - at;
    } else if (at - removed + run < shown.length) closing = mark.repeat(run) + closing;
    else shown = shown.slice(0, at - removed).trimEnd();
  }
  return shown + closing;
}
