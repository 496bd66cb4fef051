// Damage for clean pictures, so that a repair can be held against the original.
//
// Lengths are for pictures of 256 pixels and grow with the picture. A seed decides everything but the font.

import { fillSegment } from "./mask.js";

const WORDS = ["kintsugi", "golden seam", "sample", "restored", "do not copy", "proof", "archive 1912"];
const SHAPES = { scratches, cracks, text, downscale };

/** Where a kind of damage lies in a picture of `width` by `height`: one byte a pixel, 1 for hole. */
export function shapeDamage(kind, seed, width, height) {
  const bits = new Uint8Array(width * height);
  SHAPES[kind]({ bits, width, height }, generator(seed), Math.min(width, height) / 256);
  return bits;
}

/** Paint damage onto RGBA ImageData, inside `bits` alone. */
export function paintDamage(image, kind, seed, bits) {
  const random = generator(seed + 1);
  if (kind === "downscale") return enlarge(image, bits);
  const pale = kind === "cracks" ? random() < 0.3 : random() < 0.6;
  const ground = pale ? 215 + 40 * random() : 40 * random();
  for (let pixel = 0; pixel < bits.length; pixel++) {
    if (!bits[pixel]) continue;
    const grain = kind === "text" ? 0 : 24 * (random() - 0.5);
    for (let channel = 0; channel < 3; channel++) image.data[4 * pixel + channel] = ground + grain;
  }
}

function scratches(mask, random, unit) {
  for (let count = 0; count < 14; count++) {
    const start = [mask.width * random(), mask.height * random()];
    const end = step(start, 2 * Math.PI * random(), 256 * unit * (0.3 + 0.7 * random()));
    fillSegment(mask, start, end, Math.max(0.75, unit * (random() < 0.7 ? 0.8 : 1.6)), 1);
  }
}

function cracks(mask, random, unit) {
  for (let count = 0; count < 5; count++) {
    const start = [mask.width * random(), mask.height * random()];
    const walks = [{ point: start, angle: 2 * Math.PI * random(), reach: 1.8 }];
    while (walks.length) {
      let { point, angle, reach } = walks.pop();
      for (let vertex = 6 + 18 * random(); vertex > 0; vertex--) {
        angle += random() - 0.5;
        const end = step(point, angle, 256 * unit * (0.02 + 0.04 * random()));
        fillSegment(mask, point, end, Math.max(0.75, reach * unit), 1);
        point = end;
        const turn = (0.5 + 0.7 * random()) * (random() < 0.5 ? -1 : 1);
        if (random() < 1 / 7 && reach > 0.8) walks.push({ point, angle: angle + turn, reach: reach - 0.5 });
      }
    }
  }
}

function text({ bits, width, height }, random, unit) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let line = 0; line < 5; line++) {
    context.resetTransform();
    context.translate(width * (0.4 * random() - 0.1), (height * (line + 0.4 + 0.5 * random())) / 5);
    context.rotate(random() < 0.3 ? random() - 0.5 : 0);
    context.font = `bold ${Math.round(unit * (16 + 20 * random()))}px sans-serif`;
    context.fillText(`${pick(WORDS, random)} ${pick(WORDS, random)}`, 0, 0);
  }
  const { data } = context.getImageData(0, 0, width, height);
  for (let pixel = 0; pixel < bits.length; pixel++) bits[pixel] = data[4 * pixel + 3] >= 128 ? 1 : 0;
}

/** One pixel in `scale` by `scale` is known. */
function downscale({ bits, width, height }, random) {
  const scale = 2 + Math.floor(2 * random());
  bits.fill(1);
  for (let y = 0; y < height; y += scale) {
    for (let x = 0; x < width; x += scale) bits[y * width + x] = 0;
  }
}

/** Every unknown pixel shows the known one before it, row and column: a small picture drawn large. */
function enlarge({ data, width, height }, bits) {
  const pixels = new Uint32Array(data.buffer);
  for (let y = 0; y < height; y++) {
    const known = bits.indexOf(0, y * width);
    const whole = known < 0 || known >= (y + 1) * width; // no pixel of this row is known
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (bits[at]) pixels[at] = pixels[whole ? at - width : at - 1];
    }
  }
}

function step([x, y], angle, length) {
  return [x + length * Math.cos(angle), y + length * Math.sin(angle)];
}

function pick(list, random) {
  return list[Math.floor(list.length * random())];
}

/** Random numbers in [0, 1) from a seed (mulberry32). */
function generator(seed) {
  let state = Math.imul(seed, 0x9e3779b9);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
