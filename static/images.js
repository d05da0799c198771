/** Images to send: chosen, pasted or dropped, made small enough, shown, taken away again. */

import { clone } from "./templates.js";

const MAX_PIXELS = 1568;
const MOST_IMAGES = 8;
const MAX_CHARACTERS = 12_000_000;
const SMALL_BYTES = 400_000;
const QUALITY = 0.86;

/** Fires `change`, and `refused` with the words for the reader as its detail. */
export class Images extends EventTarget {
  #list;
  /** @type {{url: string, line: HTMLElement}[]} */
  #kept = [];

  /** @param {HTMLElement} list where previews are shown */
  constructor(list) {
    super();
    this.#list = list;
  }

  /** @returns {string[]} data URLs, in order */
  get urls() {
    return this.#kept.map(({ url }) => url);
  }

  /**
   * Add files that are images; others are refused by name.
   *
   * @param {Iterable<File>} files
   */
  async add(files) {
    for (const file of files) {
      if (this.#kept.length >= MOST_IMAGES) {
        this.#refuse(`At most ${MOST_IMAGES} images go with a question.`);
        return;
      }
      try {
        this.#keep(await smallURL(file), file.name);
      } catch {
        this.#refuse(`${file.name || "This file"} is not an image this browser can read.`);
      }
    }
  }

  /** Show these instead. @param {string[]} urls data URLs */
  replace(urls) {
    this.clear();
    for (const url of urls) this.#keep(url, "");
  }

  clear() {
    this.#kept = [];
    this.#list.replaceChildren();
    this.#told();
  }

  #keep(url, name) {
    const total = this.urls.reduce((sum, each) => sum + each.length, url.length);
    if (total > MAX_CHARACTERS) {
      this.#refuse("These images are too large together.");
      return;
    }
    const line = clone("image");
    const kept = { url, line };
    const image = line.querySelector("img");
    image.src = url;
    image.alt = name || "An image";
    const button = line.querySelector("button");
    button.querySelector(".sr").textContent = `Remove ${image.alt}`;
    button.addEventListener("click", () => this.#remove(kept));
    this.#kept.push(kept);
    this.#list.append(line);
    this.#told();
  }

  #remove(kept) {
    const place = this.#kept.indexOf(kept);
    this.#kept.splice(place, 1);
    kept.line.remove();
    // The focus goes to the next image, or back to the question.
    const next = this.#kept[Math.min(place, this.#kept.length - 1)];
    (next?.line.querySelector("button") ?? document.getElementById("prompt")).focus();
    this.#told();
  }

  #told() {
    this.#list.hidden = this.#kept.length === 0;
    this.dispatchEvent(new Event("change"));
  }

  #refuse(words) {
    this.dispatchEvent(new CustomEvent("refused", { detail: words }));
  }
}

/** Return the image as a data URL, scaled down to what models look at. Rejects what is no image. */
async function smallURL(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MAX_PIXELS / Math.max(bitmap.width, bitmap.height));
  const isKept = scale === 1 && file.size <= SMALL_BYTES && /^image\/(png|jpeg|webp|gif)$/.test(file.type);
  if (isKept) {
    bitmap.close();
    return read(file);
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  // JPEG has no transparency: what is clear would turn black.
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", QUALITY);
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
