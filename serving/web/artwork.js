// A picture being mended: its file, what it looks like, its damage and its mask.

import { paintDamage, shapeDamage } from "./damage.js";
import { Mask } from "./mask.js";

const POSTED_AS_THEY_ARE = ["image/png", "image/jpeg", "image/webp"];
const HALF = 128;

export class Artwork {
  #file;
  #bitmap;
  #damaged = { key: "", canvas: null };

  /** `clean`: the picture is known to be undamaged, so that a repair can be scored. Use `openArtwork`. */
  constructor(file, bitmap, name, clean) {
    this.#file = file;
    this.#bitmap = bitmap;
    this.#damaged.canvas = bitmap;
    this.name = name;
    this.clean = clean;
    this.mask = new Mask(bitmap.width, bitmap.height);
    [this.width, this.height] = [bitmap.width, bitmap.height];
    this.result = null;
  }

  /** The picture as it is to be mended, something to draw. */
  get picture() {
    const { damages } = this.mask;
    const key = damages.map(({ damage }) => `${damage.kind} ${damage.seed}`).join();
    if (key !== this.#damaged.key) this.#damaged = { key, canvas: damages.length ? this.#damage(damages) : this.#bitmap };
    return this.#damaged.canvas;
  }

  get damaged() {
    return this.mask.damages.length > 0;
  }

  /** ImageData of the undamaged picture, or null where nobody knows it. */
  get original() {
    return this.clean || this.damaged ? readPixels(this.#bitmap) : null;
  }

  /** Damage the picture and mark the damage. */
  addDamage(kind, seed) {
    this.mask.apply({ damage: { kind, seed }, bits: shapeDamage(kind, seed, this.width, this.height) });
  }

  /** What to post: the file as it came, so that nothing is lost; a PNG where we damaged it or the format is not read. */
  async content() {
    if (!this.damaged && POSTED_AS_THEY_ARE.includes(await sniff(this.#file))) return this.#file;
    return toCanvas(this.picture).convertToBlob({ type: "image/png" });
  }

  /** The mask in a file, as one byte a pixel. Throws an Error that says what to do if the sizes differ. */
  async readMask(file) {
    const bitmap = await decode(file);
    if (bitmap.width !== this.width || bitmap.height !== this.height) {
      const [its, ours] = [`${bitmap.width}×${bitmap.height}`, `${this.width}×${this.height}`];
      throw new Error(`The mask is ${its} pixels but the picture is ${ours}; load a mask of the picture's size.`);
    }
    const { data } = readPixels(bitmap);
    return toBits(data, (at) => 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2] >= HALF);
  }

  #damage(damages) {
    const image = readPixels(this.#bitmap);
    for (const { damage, bits } of damages) paintDamage(image, damage.kind, damage.seed, bits);
    const canvas = new OffscreenCanvas(this.width, this.height);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}

/** Open a picture, upright; its transparent part, if it has one, is the first mask. Throws an Error if it is none. */
export async function openArtwork(file, { name = file.name, clean = false } = {}) {
  const opened = new Artwork(file, await decode(file), name, clean);
  if ((await sniff(file)) !== "image/jpeg") {
    const { data } = readPixels(opened.picture);
    const clear = toBits(data, (at) => data[at + 3] < HALF);
    if (clear.includes(1)) opened.mask.apply({ replace: clear });
  }
  return opened;
}

/** Decode a picture file; createImageBitmap turns it upright. Throws an Error that says what to do. */
export async function decode(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error("This is no picture that the browser can read; choose a PNG, JPEG or WebP file.");
  }
}

/** RGBA ImageData of anything that can be drawn. */
export function readPixels(picture) {
  return toCanvas(picture).getContext("2d").getImageData(0, 0, picture.width, picture.height);
}

function toCanvas(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  return canvas;
}

function toBits(data, isHole) {
  const bits = new Uint8Array(data.length / 4);
  for (let pixel = 0; pixel < bits.length; pixel++) bits[pixel] = isHole(4 * pixel) ? 1 : 0;
  return bits;
}

/** The media type by content; files may be called anything. */
async function sniff(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 12).arrayBuffer()));
  if (head.startsWith("\x89PNG")) return "image/png";
  if (head.startsWith("\xff\xd8")) return "image/jpeg";
  return head.startsWith("RIFF") && head.endsWith("WEBP") ? "image/webp" : "";
}
