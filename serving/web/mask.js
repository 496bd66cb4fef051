// The hole being painted: operations that can be undone, and the pixels they make.
//
// Strokes are kept in image coordinates. Their pixels are worked out here and not by a canvas, whose edges differ
// between browsers: a pixel is hole if its centre lies within half the brush size of the stroke.

/**
 * An operation is one of
 * - {stroke: {erase, size, points}}: a brush stroke; size in image pixels, points are [x, y]
 * - {replace: bits}: a loaded or found mask takes the place of what was there
 * - {damage: {kind, seed}, bits}: damage was done to the picture, and is hole
 * - {clear: true}: no hole, no damage
 */
export class Mask {
  #done = [];
  #undone = [];
  #current = null;

  /** An empty mask of `width` by `height` pixels; `bits` holds 1 for hole, row by row. */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.bits = new Uint8Array(width * height);
  }

  get empty() {
    return !this.bits.includes(1);
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Damage done and not cleared or undone, oldest first. */
  get damages() {
    const cleared = this.#done.findLastIndex((operation) => operation.clear);
    return this.#done.slice(cleared + 1).filter((operation) => operation.damage);
  }

  /** Do something that is no stroke. */
  apply(operation) {
    this.#done.push(operation);
    this.#undone = [];
    this.#draw(operation);
  }

  begin(stroke) {
    this.#current = { stroke: { ...stroke, points: [] } };
  }

  /** Add a point to the stroke being drawn; returns the box [left, top, right, bottom] that it may have changed. */
  extend(point) {
    const { stroke } = this.#current;
    stroke.points.push(point);
    const last = stroke.points.slice(-2);
    this.#fill(last[0], last.at(-1), stroke);
    const reach = radius(stroke.size) + 1;
    const xs = last.map(([x]) => x);
    const ys = last.map(([, y]) => y);
    return [Math.min(...xs) - reach, Math.min(...ys) - reach, Math.max(...xs) + reach, Math.max(...ys) + reach];
  }

  /** Finish the stroke being drawn. */
  end() {
    this.#done.push(this.#current);
    this.#undone = [];
    this.#current = null;
  }

  /** Drop the stroke being drawn, as if it had never begun. */
  abandon() {
    this.#current = null;
    this.#replay();
  }

  undo() {
    this.#undone.push(this.#done.pop());
    this.#replay();
  }

  redo() {
    this.#done.push(this.#undone.pop());
    this.#draw(this.#done.at(-1));
  }

  #replay() {
    const from = this.#done.findLastIndex((operation) => operation.clear || operation.replace);
    this.bits.fill(0);
    for (const operation of this.#done.slice(Math.max(from, 0))) this.#draw(operation);
    if (this.#current) this.#draw(this.#current);
  }

  #draw({ stroke, replace, bits, clear }) {
    if (clear) this.bits.fill(0);
    if (replace) this.bits.set(replace);
    if (bits) for (let at = 0; at < bits.length; at++) this.bits[at] |= bits[at];
    stroke?.points.forEach((point, number) => this.#fill(stroke.points[Math.max(0, number - 1)], point, stroke));
  }

  #fill(from, to, { size, erase }) {
    fillSegment(this, from, to, radius(size), erase ? 0 : 1);
  }
}

/** Set every pixel whose centre is at most `reach` from the segment between two points. */
export function fillSegment({ bits, width, height }, [ax, ay], [bx, by], reach, value) {
  const top = Math.max(0, Math.ceil(Math.min(ay, by) - reach - 0.5));
  const bottom = Math.min(height - 1, Math.floor(Math.max(ay, by) + reach - 0.5));
  for (let row = top; row <= bottom; row++) {
    const y = row + 0.5;
    const spans = [discSpan(ax, ay, reach, y), discSpan(bx, by, reach, y), bodySpan(ax, ay, bx, by, reach, y)];
    const low = Math.min(...spans.map((span) => span[0]));
    const high = Math.max(...spans.map((span) => span[1]));
    const left = Math.max(0, Math.ceil(low - 0.5));
    const right = Math.min(width - 1, Math.floor(high - 0.5));
    if (left <= right) bits.fill(value, row * width + left, row * width + right + 1);
  }
}

const NOTHING = [Infinity, -Infinity];

/** The smallest brush still marks the pixel under the pointer. */
function radius(size) {
  return Math.max(size / 2, Math.SQRT1_2);
}

function discSpan(x, y, reach, row) {
  const squared = reach * reach - (row - y) * (row - y);
  return squared < 0 ? NOTHING : [x - Math.sqrt(squared), x + Math.sqrt(squared)];
}

/** Where the rectangle between two discs meets a row: beside the segment, no farther than `reach`. */
function bodySpan(ax, ay, bx, by, reach, row) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = Math.hypot(dx, dy);
  if (length === 0) return NOTHING;
  const along = solve(dx, (row - ay) * dy - ax * dx, 0, length * length);
  const across = solve(dy, -(row - ay) * dx - ax * dy, -reach * length, reach * length);
  const span = [Math.max(along[0], across[0]), Math.min(along[1], across[1])];
  return span[0] <= span[1] ? span : NOTHING;
}

/** The x with low <= slope x + offset <= high, as [from, to]. */
function solve(slope, offset, low, high) {
  if (slope === 0) return low <= offset && offset <= high ? [-Infinity, Infinity] : NOTHING;
  const ends = [(low - offset) / slope, (high - offset) / slope];
  return slope > 0 ? ends : ends.reverse();
}
