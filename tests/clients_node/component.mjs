// A component of the docs in jsdom, by a real person's means: node component.mjs '{"kind", "module", "steps"}'.
// Steps: {"ask"}, {"click"}, {"see": [selector, text]}, {"unmount"}, {"wait_for_path"}. Prints what the page says.
import { existsSync } from "node:fs";
import { JSDOM } from "jsdom";

const { kind, module, steps } = JSON.parse(process.argv[2]);
const { window } = new JSDOM(`<main></main>`, { url: "http://127.0.0.1/", pretendToBeVisual: true });
// `fetch`, `EventTarget` and timers stay Node's: a page of jsdom has no streams.
const names = ["document", "navigator", "FormData", "HTMLElement", "Element", "SVGElement", "MathMLElement", "Node"];
for (const name of names) Object.defineProperty(globalThis, name, { value: window[name], configurable: true });
globalThis.window = window;

const main = document.querySelector("main");
const { default: component } = await import(module);
const mount = { react: mountReact, vue: mountVue }[kind];
const unmount = await mount();

for (const step of steps) {
  if (step.ask) {
    (await found("input")).value = step.ask;
    const form = main.querySelector("form");
    form.dispatchEvent(new window.Event("submit", { bubbles: true, cancelable: true }));
  }
  if (step.click) (await found("button", step.click)).click();
  if (step.see) await found(...step.see);
  if (step.wait_for_path) await until(() => existsSync(step.wait_for_path), step.wait_for_path);
  if (step.say) process.stderr.write(`${step.say}\n`);
  if (step.unmount) unmount();
}
const [answer, status] = [...main.querySelectorAll("p")].map((element) => element.textContent);
process.stdout.write(`${JSON.stringify({ answer, status })}\n`);
window.close();

async function mountReact() {
  const { createElement, StrictMode } = await import("react");
  const { createRoot } = await import("react-dom/client");
  const root = createRoot(main);
  root.render(createElement(StrictMode, null, createElement(component)));
  await found("input");
  return () => root.unmount();
}

async function mountVue() {
  const { createApp } = await import("vue");
  const app = createApp(component);
  app.mount(main);
  return () => app.unmount();
}

function found(selector, text = "") {
  const find = () => [...main.querySelectorAll(selector)].find((element) => element.textContent.includes(text));
  return until(find, `${selector} with ${text}`);
}

async function until(condition, what) {
  for (const deadline = Date.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    const result = condition();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`no ${what}; there is: ${main.innerHTML}`);
  }
}
