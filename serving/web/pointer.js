// Mouse, touch and pen on the stage: one pointer paints, two fingers or a held space bar move and zoom.

const BUTTONS = { paint: 0, pan: 1, eraser: 5 }; // of PointerEvent.button; 5 is the far end of a pen
const TAP = { pixels: 12, ms: 250 };
const WHEEL_STEP = 1.0015;

export class Pointers {
  #down = new Map();
  #mode = null;
  #started = null;
  #mask = null;

  /**
   * `tools` says what a pointer does: {artwork, brush: {erase, size}, painting, panning}; `changed` is called after
   * every stroke.
   */
  constructor(view, tools, changed) {
    this.view = view;
    this.tools = tools;
    this.changed = changed;
    const { stage } = view;
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => this.#lift(event));
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Is a stroke being drawn? */
  get painting() {
    return this.#mode === "paint";
  }

  #press(event) {
    if (!this.tools.artwork || !Object.values(BUTTONS).includes(event.button)) return;
    this.#down.set(event.pointerId, event);
    if (this.#down.size === 2) return this.#pinch();
    if (this.#down.size > 2) return;
    const pan = event.button === BUTTONS.pan || this.tools.panning;
    if (!pan && !this.tools.painting) return;
    event.preventDefault();
    this.view.stage.setPointerCapture(event.pointerId);
    this.view.stage.focus({ preventScroll: true });
    this.#mode = pan ? "pan" : "paint";
    this.#started = event;
    if (pan) return;
    const { brush, artwork } = this.tools;
    this.#mask = artwork.mask;
    this.#mask.begin({ size: brush.size, erase: brush.erase || event.button === BUTTONS.eraser });
    this.#paint(event);
  }

  #move(event) {
    if (!this.#down.has(event.pointerId)) return;
    if (this.#mode === "paint") {
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const place of passed.length ? passed : [event]) this.#paint(place);
    } else if (this.#mode) {
      this.#drag(event);
    }
    this.#down.set(event.pointerId, event);
  }

  #lift(event) {
    if (!this.#down.delete(event.pointerId)) return;
    if (this.#mode === "paint") this.#endStroke();
    if (this.#mode !== "pinch" || this.#down.size === 0) this.#mode = null;
  }

  #paint({ clientX, clientY }) {
    this.view.drawMask(this.#mask.extend(this.view.toPicture(clientX, clientY)));
  }

  #endStroke() {
    this.#mask.end();
    this.changed();
  }

  /** A second finger came: what the first has painted stays if it was a stroke, and goes if it began the pinch. */
  #pinch() {
    if (this.#mode === "paint") {
      const [first] = this.#down.values();
      const moved = Math.hypot(first.clientX - this.#started.clientX, first.clientY - this.#started.clientY);
      if (moved > TAP.pixels || first.timeStamp - this.#started.timeStamp > TAP.ms) {
        this.#endStroke();
      } else {
        this.#mask.abandon();
        this.view.redraw();
      }
    }
    this.#mode = "pinch";
  }

  #drag(event) {
    const before = this.#down.get(event.pointerId);
    const others = [...this.#down.values()].filter(({ pointerId }) => pointerId !== event.pointerId);
    const share = this.#mode === "pinch" ? 0.5 : 1; // each of two fingers moves their middle by half
    this.view.pan(share * (event.clientX - before.clientX), share * (event.clientY - before.clientY));
    if (this.#mode !== "pinch" || others.length === 0) return;
    const [{ clientX, clientY }] = others;
    const apart = (place) => Math.max(1, Math.hypot(place.clientX - clientX, place.clientY - clientY));
    const middle = [(event.clientX + clientX) / 2, (event.clientY + clientY) / 2];
    this.view.zoom(apart(event) / apart(before), ...middle);
  }

  #wheel(event) {
    if (!this.tools.artwork) return;
    event.preventDefault();
    if (event.shiftKey) return this.view.pan(-event.deltaX - event.deltaY, 0);
    this.view.zoom(WHEEL_STEP ** -event.deltaY, event.clientX, event.clientY);
  }
}
