/**
 * Shows Markdown that grows. Only the block that is still being written is parsed again; blocks
 * before it are never touched, so a reader's selection and focus in them stay. Of a long list, table
 * or fence only the last item, row or line is open.
 */

import { Code } from "./code.js";
import { keepingTheEnd } from "./keeping_end.js";
import { createParser } from "./markdown_dialect.js";
import { mend, withoutUndecided } from "./markdown_mend.js";
import { patch, patchAfter } from "./patch.js";
import { sanitised } from "./sanitised.js";

const HIDDEN_FRAME_MS = 500;
const RESUME_MS = 10;
const RESUME_CHARACTERS = 4_000;
const FRAME_MS = 16;
/** A block that is dear to parse is parsed again after so many times what that took. */
const SHARE = 8;
/** The most cells of a table whose rows are closed one by one: markdown-it counts what it fills up. */
const MOST_CELLS = 60_000;

const parser = createParser(mend);

/** Show all of `text` in `element`. */
export function renderInto(element, text) {
  withoutBlanks(element);
  patchAfter(element, null, nodesOf(shownAs(text), {}));
}

/** Take care of what the server rendered in `element` and is whole: its code is coloured, and can be copied. */
export function adopt(element) {
  withoutBlanks(element);
  Code.adoptIn(element);
}

export class MarkdownView {
  #element;
  #change;
  #text = "";
  /** What the page shows already and is still to be gone through. */
  #rendered = "";
  #waiting = [];
  #frame = 0;
  #timer = 0;
  #notBefore = 0;
  /** What is not closed yet, with its line ends made line feeds. */
  #tail = "";
  #endsInReturn = false;
  /** How much of the tail was looked at for what can be closed. */
  #looked = 0;
  #lastClosed = null;
  /** The list or table that the tail continues. */
  #container = null;
  /** The fence that the tail continues. */
  #fence = null;
  #references = {};
  #unresolved = new Map();

  /**
   * @param {HTMLElement} element
   * @param {(change: () => void) => void} [around] called with what changes the page; it keeps the
   *   reader's place in what they scroll
   */
  constructor(element, around = keepingTheEnd) {
    this.#element = element;
    this.#change = around;
  }

  /** The source so far, shown or not. */
  get text() {
    return this.#text + this.#rendered + this.#waiting.join("");
  }

  /**
   * Go on from what the server rendered in the element.
   *
   * A long text is gone through a little at a time; what is appended meanwhile comes after it.
   *
   * @param {string} text the source of that
   */
  resume(text) {
    adopt(this.#element);
    this.#rendered = text;
    this.#resumeSome();
  }

  /** @param {string} text shown with the next frame */
  append(text) {
    this.#waiting.push(text);
    if (!this.#timer && !this.#rendered) this.#schedule();
  }

  /** Show what was appended, now. */
  flush() {
    this.#show(false);
  }

  /** Show all as it is: nothing more comes. */
  finish() {
    this.#show(true);
    for (const box of this.#element.querySelectorAll("div.code")) Code.of(box).finish();
  }

  /** Forget everything, shown or not. */
  clear() {
    this.#unschedule();
    this.#waiting = [];
    this.#text = this.#rendered = this.#tail = "";
    this.#endsInReturn = false;
    this.#looked = 0;
    this.#lastClosed = this.#container = this.#fence = null;
    this.#references = {};
    this.#unresolved.clear();
    this.#element.replaceChildren();
  }

  #schedule() {
    const show = () => this.#show(false);
    const wait = this.#notBefore - performance.now();
    if (wait < FRAME_MS) this.#frame = requestAnimationFrame(show);
    // A hidden tab has no frames.
    this.#timer = setTimeout(show, wait < FRAME_MS ? HIDDEN_FRAME_MS : wait);
  }

  #unschedule() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #show(isWhole) {
    this.#unschedule();
    this.#waiting.unshift(this.#rendered);
    this.#rendered = "";
    const text = this.#waiting.join("");
    this.#waiting = [];
    const began = performance.now();
    this.#take(text);
    this.#change(() => {
      this.#closeAll();
      if (this.#fence) this.#showLastLine(isWhole);
      else this.#showTail(isWhole);
    });
    const now = performance.now();
    this.#notBefore = now + SHARE * (now - began);
  }

  #resumeSome() {
    const began = performance.now();
    while (this.#rendered && performance.now() - began < RESUME_MS) {
      const slice = this.#rendered.slice(0, RESUME_CHARACTERS);
      this.#rendered = this.#rendered.slice(RESUME_CHARACTERS);
      this.#take(slice);
      this.#closeAll();
    }
    if (this.#rendered) this.#timer = setTimeout(() => this.#resumeSome());
    else this.#show(false);
  }

  #closeAll() {
    while (this.#fence ? this.#closeFence() : this.#closeBlocks());
  }

  #take(text) {
    if (!text) return;
    this.#text += text;
    const rest = this.#endsInReturn && text[0] === "\n" ? text.slice(1) : text;
    this.#tail += shownAs(rest);
    this.#endsInReturn = text.endsWith("\r");
  }

  // Closing

  /** Close what whole lines say is closed; return whether to look again. */
  #closeBlocks() {
    const end = this.#tail.lastIndexOf("\n") + 1;
    if (end <= this.#looked) return false;
    this.#looked = end;
    const source = this.#prefix + this.#tail.slice(0, end);
    const tokens = [];
    parser.block.parse(source, parser, { references: {} }, tokens);
    const starts = lineStarts(source);
    const blocks = tokens.filter(isBlock);
    if (blocks.length > 1) {
      // Not where the last begins: a definition before it may have a title that is still to come.
      this.#close(source.slice(0, starts[blocks.at(-2).map[1]]));
      return true;
    }
    const [block] = blocks;
    if (block?.type === "fence") return this.#openFence(source, starts, block);
    const children = tokens.filter((token) => isChild(token, block));
    if (children.length > 1) this.#closeChildren(source, starts, block, children);
    return false;
  }

  /** Close the blocks in `source`, with which the tail begins. */
  #close(source) {
    const placed = this.#settle(source);
    this.#container = null;
    this.#lastClosed = placed.nodes.at(-1) ?? this.#lastClosed;
    this.#remember(placed);
    this.#looked = 0;
  }

  /** Close all items or rows but the last, which the tail goes on with. */
  #closeChildren(source, starts, block, children) {
    const isTable = block.type === "table_open";
    const closed = (this.#container?.closed ?? 0) + children.length - 1;
    if (isTable && closed * columnsOf(source.slice(starts[block.map[0]])) > MOST_CELLS) return;
    const text = source.slice(0, starts[children.at(-1).map[0]]);
    const prefix = isTable ? source.slice(starts[block.map[0]], starts[block.map[0] + 2]) : "";
    const { nodes, children: continued } = this.#settle(text);
    const box = nodes[0];
    const holder = holderOf(box);
    const settled = continued ?? [...holder.childNodes].slice(0, children.length - 1);
    const head = isTable && !this.#container ? box.querySelector("thead") : null;
    this.#container = { box, holder, prefix, closed, last: settled.at(-1) };
    this.#remember({ text, nodes: [], children: settled, head });
    this.#looked = this.#tail.lastIndexOf("\n") + 1;
  }

  /** Put what `source` shows where it stays, and take it from the tail. */
  #settle(source) {
    const placed = this.#place(nodesOf(source, { references: this.#references }), true);
    this.#tail = this.#tail.slice(source.length - this.#prefix.length);
    return { text: source, ...placed };
  }

  get #prefix() {
    return this.#container?.prefix ?? "";
  }

  /** Put nodes after what is closed. */
  #place(nodes, keepsRest) {
    const container = this.#container;
    if (!container) return { nodes: patchAfter(this.#element, this.#lastClosed, nodes, keepsRest), children: null };
    const [first, ...others] = nodes;
    const fresh = first ? [...(holderOf(first)?.childNodes ?? [])] : [];
    const children = patchAfter(container.holder, container.last, fresh, keepsRest && others.length === 0);
    return { nodes: [container.box, ...patchAfter(this.#element, container.box, others, keepsRest)], children };
  }

  // Code

  /** Go on with a fence that is not closed line by line; return whether to look again. */
  #openFence(source, starts, { map }) {
    const opening = /^(`{3,}|~{3,})/.exec(source.slice(starts[map[0]], starts[map[0] + 1]));
    // An indented one is parsed again with each line, as any other block.
    // Nor one whose other lines the page shows already, and of which only the first were gone through.
    if (!opening || this.#rendered) return false;
    const closing = new RegExp(`(?:^|\\n) {0,3}${opening[1]}${opening[1][0]}*[ \\t]*\\n`);
    if (closing.test(source.slice(starts[map[0] + 1] - 1))) return false;
    const { nodes } = this.#settle(source);
    this.#lastClosed = nodes.at(-1);
    this.#resolve();
    const held = new RegExp(`^ {0,3}${opening[1][0]}*[ \\t]*$`);
    this.#fence = { code: Code.of(this.#lastClosed), closing, held, shown: 0 };
    return true;
  }

  /** Show the whole lines of the fence; return whether it is closed. */
  #closeFence() {
    const { code, closing, shown } = this.#fence;
    const end = this.#tail.lastIndexOf("\n") + 1;
    if (!end) return false;
    const lines = this.#tail.slice(0, end);
    const mark = closing.exec(lines);
    const until = mark ? mark.index + (mark[0].startsWith("\n") ? 1 : 0) : end;
    code.grow(lines.slice(shown, until));
    this.#fence.shown = 0;
    if (!mark) {
      this.#tail = this.#tail.slice(end);
      return false;
    }
    code.finish();
    this.#tail = this.#tail.slice(mark.index + mark[0].length);
    this.#fence = null;
    this.#looked = 0;
    return true;
  }

  #showLastLine(isWhole) {
    patchAfter(this.#element, this.#lastClosed, []);
    const { code, closing, held, shown } = this.#fence;
    const line = this.#tail;
    // At the end of a text markdown-it does not see a last line of spaces.
    if (isWhole ? closing.test(`${line}\n`) || /^[ \t]*$/.test(line) : held.test(line)) return;
    code.grow(line.slice(shown));
    this.#fence.shown = line.length;
  }

  // What is open

  #showTail(isWhole) {
    const tail = isWhole ? this.#tail : withoutUndecided(this.#tail, this.#prefix !== "");
    const references = Object.create(this.#references);
    const env = { references, open: !isWhole && !/\n[ \t]*\n$/.test(tail) };
    this.#place(nodesOf(this.#prefix + tail, env), false);
    if (!isWhole) return;
    Object.assign(this.#references, references);
    this.#resolve();
  }

  // Definitions

  /** Note which labels in closed text mean nothing yet: a definition may come. */
  #remember(placed) {
    for (const [, label] of placed.text.matchAll(LABEL)) {
      const name = parser.utils.normalizeReference(label);
      if (this.#references[name]) continue;
      const places = this.#unresolved.get(name) ?? new Set();
      this.#unresolved.set(name, places.add(placed));
    }
    this.#resolve();
  }

  /** Make links of what definitions have come for; nothing else in those blocks changes. */
  #resolve() {
    if (!this.#unresolved.size) return;
    const changed = new Set();
    for (const name of Object.keys(this.#references)) {
      for (const placed of this.#unresolved.get(name) ?? []) changed.add(placed);
      this.#unresolved.delete(name);
    }
    for (const { text, nodes, children, head } of changed) {
      const fresh = nodesOf(text, { references: Object.create(this.#references) });
      if (head) patch(head, fresh[0].querySelector("thead"));
      if (children) {
        const items = [...holderOf(fresh.shift()).childNodes];
        children.forEach((child, at) => patch(child, items[at]));
      }
      nodes.slice(nodes.length - fresh.length).forEach((node, at) => patch(node, fresh[at]));
    }
  }
}

const CONTROLS = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x85]/g;
const LABEL = /\[((?:\\.|[^[\]\\]){1,999})\]/gs;
const BLANK_IN = "ul, ol, li, blockquote, table, thead, tbody, tr, .table";

/** Characters nobody sees, which the parsers here and on the server take differently, are marked. */
function shownAs(text) {
  return text.replace(/\r\n?/g, "\n").replace(CONTROLS, "\uFFFD");
}

function nodesOf(text, env) {
  const html = parser.renderer.render(parser.parse(text, env), parser.options, env);
  const box = sanitised(html);
  withoutBlanks(box);
  return [...box.childNodes];
}

/** Remove the line ends between blocks. */
function withoutBlanks(root) {
  for (const parent of [root, ...root.querySelectorAll(BLANK_IN)]) {
    for (const node of [...parent.childNodes]) {
      if (node.nodeType === Node.TEXT_NODE && !node.data.trim()) node.remove();
    }
  }
}

function isBlock({ type, level, nesting, map }) {
  return level === 0 && nesting >= 0 && map && type !== "reference_definition";
}

/** Whether `token` is an item or a row of the list or table `block`. */
function isChild({ type, level, map }, block) {
  if (block?.type === "table_open") return type === "tr_open" && level === 2 && map[0] > block.map[0];
  return type === "list_item_open" && level === 1 && /_list_open$/.test(block?.type);
}

function holderOf(box) {
  return box.matches("ul, ol") ? box : box.querySelector("tbody");
}

function columnsOf(table) {
  return table.slice(0, table.indexOf("\n")).split("|").length;
}

function lineStarts(source) {
  const starts = [0];
  for (let at = source.indexOf("\n"); at >= 0; at = source.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}
