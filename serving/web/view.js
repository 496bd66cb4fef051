// Draws the picture and the mask on two stacked canvases, zoomed and panned.

const GOLD = rgba(236, 178, 46, 205);
const EDGE = rgba(58, 34, 6, 235);
const [MIN_PIXELS, MAX_SCALE, PIXELATED_FROM] = [24, 32, 3];

export class View {
  #left = 0;
  #top = 0;
  #scale = 1;
  #fitted = true;
  #pending = false;
  #buffer = { hit: new Uint8Array() };

  /** `divider` is where the repaired picture begins, a share of the stage's width; null: no comparison. */
  constructor(stage, below, above) {
    this.stage = stage;
    this.below = below;
    this.above = above;
    this.artwork = null;
    this.divider = null;
    new ResizeObserver(() => this.#resize()).observe(stage);
  }

  /** CSS pixels per picture pixel. */
  get scale() {
    return this.#scale;
  }

  show(artwork) {
    this.artwork = artwork;
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    if (!this.artwork || !clientWidth) return;
    this.#scale = this.#fittingScale();
    this.#left = (clientWidth - this.artwork.width * this.#scale) / 2;
    this.#top = (clientHeight - this.artwork.height * this.#scale) / 2;
    this.#fitted = true;
    this.redraw();
  }

  /** Zoom by `factor` and keep the picture under a place of the window where it is; the stage's middle if none. */
  zoom(factor, clientX = null, clientY = null) {
    const box = this.stage.getBoundingClientRect();
    const [x, y] = clientX === null ? [box.width / 2, box.height / 2] : [clientX - box.left, clientY - box.top];
    const scale = Math.min(MAX_SCALE, Math.max(this.#fittingScale() / 4, this.#scale * factor));
    this.#left = x - ((x - this.#left) * scale) / this.#scale;
    this.#top = y - ((y - this.#top) * scale) / this.#scale;
    this.#scale = scale;
    this.pan(0, 0);
  }

  /** Move the picture by CSS pixels; some of it stays in sight. */
  pan(x, y) {
    if (!this.artwork) return;
    const { clientWidth, clientHeight } = this.stage;
    const keep = (at, size, room) => Math.min(room - MIN_PIXELS, Math.max(MIN_PIXELS - size, at));
    this.#left = keep(this.#left + x, this.artwork.width * this.#scale, clientWidth);
    this.#top = keep(this.#top + y, this.artwork.height * this.#scale, clientHeight);
    this.#fitted = false;
    this.redraw();
  }

  /** A place in the window as picture coordinates. */
  toPicture(clientX, clientY) {
    const box = this.stage.getBoundingClientRect();
    return [(clientX - box.left - this.#left) / this.#scale, (clientY - box.top - this.#top) / this.#scale];
  }

  /** Draw all with the next frame. */
  redraw() {
    Object.assign(this.stage.dataset, { scale: this.#scale, left: this.#left, top: this.#top });
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      if (!this.artwork) return;
      this.#drawPictures();
      this.drawMask();
    });
  }

  /** Draw the mask now, all of it or a box [left, top, right, bottom] in picture coordinates. */
  drawMask(box = [0, 0, this.artwork.width, this.artwork.height]) {
    const context = this.above.getContext("2d");
    const { width, height } = this.above;
    if (this.divider !== null || !this.artwork) return context.clearRect(0, 0, width, height);
    const [scale, left, top] = this.#deviceTransform();
    const [x0, y0] = [Math.floor(box[0] * scale + left) - 1, Math.floor(box[1] * scale + top) - 1];
    const [x1, y1] = [Math.ceil(box[2] * scale + left) + 1, Math.ceil(box[3] * scale + top) + 1];
    const area = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
    if (arguments.length === 0) context.clearRect(0, 0, width, height);
    if (area[0] < area[2] && area[1] < area[3]) context.putImageData(this.#tint(area), area[0], area[1]);
  }

  #fittingScale() {
    const { clientWidth, clientHeight } = this.stage;
    const { width, height } = this.artwork;
    return Math.min(clientWidth / width, clientHeight / height, MAX_SCALE / 4);
  }

  #deviceTransform() {
    const ratio = this.above.width / this.stage.clientWidth;
    return [this.#scale * ratio, this.#left * ratio, this.#top * ratio];
  }

  /** Canvases of whole pixels; stretched over a fraction of one they would be blurred. */
  #resize() {
    const { clientWidth, clientHeight } = this.stage;
    for (const canvas of [this.below, this.above]) {
      canvas.width = Math.round(clientWidth * devicePixelRatio);
      canvas.height = Math.round(clientHeight * devicePixelRatio);
      Object.assign(canvas.style, { width: `${clientWidth}px`, height: `${clientHeight}px` });
    }
    if (this.#fitted) this.fit();
    else this.redraw();
  }

  #drawPictures() {
    const context = this.below.getContext("2d");
    const [scale, left, top] = this.#deviceTransform();
    const draw = (picture) => {
      context.setTransform(scale, 0, 0, scale, left, top);
      context.imageSmoothingEnabled = scale < PIXELATED_FROM;
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, 0, 0);
    };
    context.resetTransform();
    context.clearRect(0, 0, this.below.width, this.below.height);
    if (this.divider === null || !this.artwork.result) return draw(this.artwork.picture);
    const { before, after } = this.artwork.result;
    draw(before);
    context.save();
    context.resetTransform();
    context.beginPath();
    context.rect(this.divider * this.below.width, 0, this.below.width, this.below.height);
    context.clip();
    context.clearRect(0, 0, this.below.width, this.below.height);
    draw(after);
    context.restore();
  }

  /** The mask as golden ImageData with a dark rim. A device pixel is hole if any picture pixel under it is. */
  #tint([x0, y0, x1, y1]) {
    const [scale, left, top] = this.#deviceTransform();
    const { bits, width, height } = this.artwork.mask;
    const columns = spans(x0 - 1, x1 + 1, left, scale, width);
    const rows = spans(y0 - 1, y1 + 1, top, scale, height);
    const stride = columns.length;
    if (this.#buffer.hit.length < stride * rows.length) this.#buffer.hit = new Uint8Array(stride * rows.length);
    const { hit } = this.#buffer;
    rows.forEach(([upper, lower], row) => {
      for (let column = 0; column < stride; column++) {
        hit[row * stride + column] = anyHole(bits, width, columns[column], upper, lower);
      }
    });
    const image = new ImageData(x1 - x0, y1 - y0);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = 0; y < y1 - y0; y++) {
      for (let x = 0; x < x1 - x0; x++) {
        const at = (y + 1) * stride + x + 1;
        const beside = hit[at - 1] | hit[at + 1] | hit[at - stride] | hit[at + stride];
        if (hit[at] | beside) pixels[y * (x1 - x0) + x] = hit[at] ? GOLD : EDGE;
      }
    }
    return image;
  }
}

/** For device pixels `from` to `to`: the picture pixels [first, end) under each, none outside the picture. */
function spans(from, to, offset, scale, size) {
  return Array.from({ length: to - from }, (_, index) => {
    const first = Math.floor((from + index - offset) / scale);
    const middle = Math.floor((from + index + 0.5 - offset) / scale);
    if (scale >= 1) return middle >= 0 && middle < size ? [middle, middle + 1] : [0, 0];
    return [Math.max(0, first), Math.min(size, Math.floor((from + index + 1 - offset) / scale))];
  });
}

function anyHole(bits, width, [left, right], upper, lower) {
  for (let y = upper; y < lower; y++) {
    for (let at = y * width + left; at < y * width + right; at++) if (bits[at]) return 1;
  }
  return 0;
}

function rgba(red, green, blue, alpha) {
  return new Uint32Array(new Uint8Array([red, green, blue, alpha]).buffer)[0];
}
