// Keyboard: shortcuts, the help that lists them, and painting without a pointer.

import { element, fillList, find } from "./panel.js";

const STEP = 8; // CSS pixels an arrow key moves the brush; a quarter with Shift

/** Shortcuts: the keys as shown and as pressed, what they do, and the name of the action. */
const SHORTCUTS = [
  [["O"], "open a picture", "open"],
  [["B"], "brush", "brush"],
  [["E"], "eraser", "eraser"],
  [["["], "smaller brush", "smaller"],
  [["]"], "larger brush", "larger"],
  [["Ctrl+Z"], "undo", "undo"],
  [["Ctrl+Shift+Z", "Ctrl+Y"], "redo", "redo"],
  [["X"], "clear mask and damage", "clear"],
  [["+", "="], "zoom in", "zoomIn"],
  [["-"], "zoom out", "zoomOut"],
  [["0"], "fit the picture", "zoomFit"],
  [["R", "Ctrl+Enter"], "repair", "repair"],
  [["F"], "find the damage and repair", "blind"],
  [["Escape"], "cancel", "cancel"],
  [["C"], "compare or paint", "toggle"],
  [["D"], "download the repair", "download"],
  [["M"], "load a mask", "loadMask"],
  [["S"], "save the mask", "saveMask"],
  [["?"], "this help", "help"],
];

/** Have the keys call `actions` by name, and list them in the help. */
export function bindKeys(actions) {
  const pressed = new Map(SHORTCUTS.flatMap(([keys, , action]) => keys.map((key) => [key.toLowerCase(), action])));
  addEventListener("keydown", (event) => {
    if (event.altKey || event.defaultPrevented || document.querySelector("dialog[open]") || typing(event.target)) return;
    const action = pressed.get(chord(event));
    if (!action) return;
    event.preventDefault();
    actions[action]();
  });
  const rows = SHORTCUTS.map(([keys, meaning]) => [meaning, keyNames(keys)]);
  fillList(find("keys"), rows);
}

/** Hold the space bar on the stage to move the picture. */
export function bindSpace(stage, tools) {
  const set = (panning) => {
    tools.panning = panning;
    stage.classList.toggle("panning", panning);
  };
  addEventListener("keydown", (event) => {
    if (event.key !== " " || typing(event.target) || event.target.closest("button, summary, a")) return;
    event.preventDefault();
    set(true);
  });
  addEventListener("keyup", (event) => event.key === " " && set(false));
  addEventListener("blur", () => set(false));
}

/** Paint with the keyboard: arrows move the brush, Enter puts it down and lifts it. */
export function bindBrushKeys(view, tools, moveCursor, changed) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let [place, mask] = [null, null];
  const extend = () => view.drawMask(mask.extend(view.toPicture(...place)));
  const lift = () => {
    mask?.end();
    if (mask) changed();
    mask = null;
  };
  view.stage.addEventListener("keydown", (event) => {
    if (!tools.artwork || !tools.painting || event.target !== view.stage) return;
    const box = view.stage.getBoundingClientRect();
    place ??= [box.left + box.width / 2, box.top + box.height / 2];
    if (event.key in arrows) {
      const [x, y] = arrows[event.key];
      const step = event.shiftKey ? STEP / 4 : STEP;
      place = [place[0] + x * step, place[1] + y * step];
      if (mask) extend();
    } else if (event.key === "Enter" && !event.ctrlKey) {
      if (mask) return lift();
      mask = tools.artwork.mask;
      mask.begin(tools.brush);
      extend();
    } else {
      return;
    }
    event.preventDefault();
    moveCursor(...place);
  });
  view.stage.addEventListener("blur", lift);
  view.stage.addEventListener("pointerdown", lift, { capture: true });
}

function chord(event) {
  const key = event.key.toLowerCase();
  if (!event.ctrlKey && !event.metaKey) return key;
  return `ctrl+${event.shiftKey ? "shift+" : ""}${key}`;
}

function typing(target) {
  return target.matches?.("input:not([type='range']), select, textarea") ?? false;
}

function keyNames(keys) {
  const names = element("span");
  keys.forEach((key, number) => names.append(number ? " " : "", element("kbd", key)));
  return names;
}
