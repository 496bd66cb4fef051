// The page: opens pictures, has them painted on, posts them and shows what comes back.

import { describeModel, repair } from "./api.js";
import { decode, openArtwork, readPixels } from "./artwork.js";
import { bindBrushKeys, bindKeys, bindSpace } from "./keys.js";
import { fail, find, repairsBlindly, say, showModel, showOutcome, showPicture } from "./panel.js";
import { encodeMask } from "./png.js";
import { Pointers } from "./pointer.js";
import { mse, ssim } from "./score.js";
import { View } from "./view.js";

const ZOOM_STEP = 1.25;
const SIZE_STEP = 4;
const view = new View(find("stage"), find("below"), find("above"));
const tools = { artwork: null, brush: { erase: false, size: 24 }, painting: false, panning: false };
const state = { model: null, request: null, key: "", damages: 0 };
const pointers = new Pointers(view, tools, changed);

const actions = {
  open: () => find("picture-file").click(),
  loadMask: () => tools.artwork && find("mask-file").click(),
  saveMask,
  brush: () => chooseTool(false),
  eraser: () => chooseTool(true),
  smaller: () => resizeBrush(-SIZE_STEP),
  larger: () => resizeBrush(SIZE_STEP),
  undo: () => travel("canUndo", "undo", "previous"),
  redo: () => travel("canRedo", "redo", "next"),
  clear: () => edit(() => tools.artwork.mask.apply({ clear: true })),
  zoomIn: () => tools.artwork && view.zoom(ZOOM_STEP),
  zoomOut: () => tools.artwork && view.zoom(1 / ZOOM_STEP),
  zoomFit: () => view.fit(),
  repair: () => mend({ blind: false }),
  blind: () => repairsBlindly(state.model) && mend({ blind: true }),
  cancel: () => state.request?.abort(),
  toggle: () => tools.artwork?.result && compare(tools.painting),
  download: () => tools.artwork?.result && save(tools.artwork.result.blob, "mended"),
  adopt: () => open(tools.artwork.result.blob, { name: tools.artwork.name }),
  help: () => find("shortcuts").showModal(),
};

/** Open a picture file; the one before comes back with undo. */
async function open(file, options) {
  try {
    say("Opening …");
    const opened = await openArtwork(file, options);
    state.request?.abort();
    if (tools.artwork) {
      opened.previous = tools.artwork;
      tools.artwork.previous = null; // one is kept, for pictures take memory
      tools.artwork.next = opened;
    }
    show(opened);
    say(opened.mask.empty ? "Paint over the damage, then press Repair." : "The transparent part is marked.");
  } catch (error) {
    fail(error);
  }
}

async function openSample(name) {
  try {
    const answer = await fetch(`web/samples/${name}`);
    await open(await answer.blob(), { name, clean: true });
  } catch {
    fail(new Error("The sample cannot be loaded; try again."));
  }
}

function show(artwork) {
  const sameSize = tools.artwork?.width === artwork.width && tools.artwork?.height === artwork.height;
  tools.artwork = artwork;
  find("empty").hidden = true;
  if (!sameSize) setBrush(Math.min(artwork.width, artwork.height) / 20);
  view.show(artwork);
  compare(false);
  if (artwork.result) showOutcome(artwork.result);
}

/** Undo or redo; past the end of one picture's changes, the picture itself. */
function travel(can, step, neighbour) {
  const { artwork } = tools;
  if (artwork?.mask[can]) return edit(() => artwork.mask[step]());
  const other = artwork?.[neighbour];
  if (!other) return;
  other[neighbour === "previous" ? "next" : "previous"] = artwork;
  show(other);
  say(`Back to ${other.name}.`);
}

/** Change the mask or the damage, and show that. */
function edit(change) {
  if (!tools.artwork) return;
  change();
  compare(false);
}

function changed() {
  const { artwork } = tools;
  find("undo").disabled = !(artwork?.mask.canUndo || artwork?.previous);
  find("redo").disabled = !(artwork?.mask.canRedo || artwork?.next);
  for (const id of ["clear", "save-mask"]) find(id).disabled = !artwork || artwork.mask.empty;
  if (artwork) showPicture(artwork);
}

function addDamage(kind) {
  if (!tools.artwork) return fail(new Error("Open a picture first, or choose a sample."));
  edit(() => tools.artwork.addDamage(kind, ++state.damages));
  say("The picture is damaged and the damage is marked. Press Repair.");
}

async function loadMask(file) {
  const { artwork } = tools;
  try {
    const bits = await artwork.readMask(file);
    edit(() => artwork.mask.apply({ replace: bits }));
    say("The mask is loaded.");
  } catch (error) {
    fail(error);
  }
}

async function saveMask() {
  if (tools.artwork && !tools.artwork.mask.empty) save(await encodeMask(tools.artwork.mask), "mask");
}

function save(blob, suffix) {
  const link = document.createElement("a");
  const [stem, type] = [tools.artwork.name.replace(/\.\w+$/, "") || "picture", blob.type.split("/")[1]];
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}-${suffix}.${type === "jpeg" ? "jpg" : type}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Post the picture and show the repair. Whatever happens, the mask stays. */
async function mend({ blind }) {
  const { artwork } = tools;
  const problem = obstacle(artwork, blind);
  if (problem) return fail(new Error(problem));
  if (state.request) return;
  const request = (state.request = new AbortController());
  busy(true);
  try {
    say("Repairing …");
    const asked = { before: artwork.picture, hole: artwork.mask.bits.slice(), damaged: artwork.damaged };
    const mask = blind ? null : await encodeMask(artwork.mask);
    const [picture, { signal }] = [await artwork.content(), request];
    const waiting = (left) => say(`The server is busy; trying again in ${left} s.`);
    const answer = await repair({ picture, name: artwork.name, mask, options: options(), key: state.key, signal, waiting });
    await finish(artwork, asked, answer);
  } catch (error) {
    refused(error);
  } finally {
    state.request = null;
    busy(false);
  }
}

/** Why the picture cannot be posted yet, or null. */
function obstacle(artwork, blind) {
  if (!artwork) return "Open a picture first, or choose a sample.";
  if (!blind && artwork.mask.empty) return "Mark the damage first: paint over it, load a mask, or press a damage button.";
  const limit = state.model?.limits?.max_pixels;
  if (limit && artwork.width * artwork.height > limit) {
    return `The picture has ${(artwork.width * artwork.height / 1e6).toFixed(1)} megapixels; the server takes ${limit / 1e6}. Scale it down.`;
  }
  const wrong = [...document.querySelectorAll("details input")].find((input) => !input.checkValidity());
  return wrong ? `${wrong.labels[0].textContent.trim()}: a number between ${wrong.min} and ${wrong.max}.` : null;
}

/** Form fields that differ from the server's defaults. */
function options() {
  const fields = ["grow_mask", "feather", "format"].map((id) => [id, find(id).value]);
  if (find("format").value === "jpeg") fields.push(["quality", find("quality").value]);
  return Object.fromEntries(fields.filter(([, value]) => value !== "0" && value !== "png"));
}

async function finish(artwork, { before, hole, damaged }, { picture, mask, headers, seconds }) {
  const after = await decode(picture);
  if (after.width !== artwork.width || after.height !== artwork.height) {
    throw new Error("The server sent a picture of another size; ask whoever runs it.");
  }
  artwork.result = { before, after, blob: picture, headers, seconds, scores: null };
  if (mask) artwork.mask.apply({ replace: await artwork.readMask(mask) });
  const { result } = artwork;
  showOutcome(result);
  if (!pointers.painting) compare(true);
  say(`Repaired in ${seconds.toFixed(2)} s.`);
  if (String(state.model?.version) !== headers.get("X-Model-Version")) askModel();
  const original = artwork.original;
  if (!original) return;
  const bits = hole.includes(1) ? hole : artwork.mask.bits;
  const score = async (pixels) => ({ ssim: await ssim(original, pixels), mse: mse(original, pixels, bits) });
  result.scores = { before: damaged ? await score(readPixels(before)) : null, after: await score(readPixels(after)) };
  if (tools.artwork?.result === result) showOutcome(result);
}

function refused(error) {
  if (error.name === "AbortError") return say("Cancelled; your mask is kept.");
  find("access").hidden = error.status !== 401;
  fail(error);
  if (error.status === 401) find("key").focus();
}

function busy(yes) {
  document.body.classList.toggle("busy", yes);
  find("repair").disabled = yes;
  find("blind").disabled = yes || !repairsBlindly(state.model);
  find("cancel").hidden = !yes;
}

/** Show the comparison, or the picture to paint on. */
function compare(comparing) {
  const result = tools.artwork?.result ?? null;
  comparing &&= result !== null;
  tools.painting = tools.artwork !== null && !comparing;
  view.stage.classList.toggle("painting", tools.painting);
  find("compare").hidden = !comparing;
  find("cursor").hidden = true;
  find("outcome").hidden = result === null;
  find("toggle").setAttribute("aria-pressed", String(comparing));
  if (comparing) slide();
  else view.divider = null;
  view.redraw();
  changed();
}

function slide() {
  const [slider, { clientWidth }] = [find("slider"), view.stage];
  const thumb = 40;
  view.divider = (thumb / 2 + (slider.value / 100) * (clientWidth - thumb)) / clientWidth;
  view.redraw();
}

function chooseTool(erase) {
  tools.brush.erase = erase;
  find("brush").setAttribute("aria-checked", String(!erase));
  find("eraser").setAttribute("aria-checked", String(erase));
  if (tools.artwork) compare(false);
}

/** Sizes grow by a power along the slider, from 1 pixel to half of the picture's shorter side. */
function largestBrush() {
  return tools.artwork ? Math.max(32, Math.min(tools.artwork.width, tools.artwork.height) / 2) : 256;
}

function setBrush(size) {
  find("size").value = (100 * Math.log(Math.max(1, size))) / Math.log(largestBrush());
  resizeBrush(0);
}

function resizeBrush(step) {
  const slider = find("size");
  slider.value = Number(slider.value) + step;
  tools.brush.size = Math.round(largestBrush() ** (slider.value / 100));
  find("size-text").textContent = `${tools.brush.size} px`;
}

function moveCursor(clientX, clientY) {
  const [cursor, box] = [find("cursor"), view.stage.getBoundingClientRect()];
  const diameter = Math.max(4, tools.brush.size * view.scale);
  cursor.hidden = !tools.painting || tools.panning;
  cursor.classList.toggle("erase", tools.brush.erase);
  cursor.style.width = cursor.style.height = `${diameter}px`;
  const [x, y] = [clientX - box.left - diameter / 2, clientY - box.top - diameter / 2];
  cursor.style.transform = `translate(${x}px, ${y}px)`;
}

async function askModel() {
  state.model = await describeModel().catch(() => null);
  showModel(state.model);
  if (state.request) busy(true);
}

function bindButtons() {
  const ids = {
    brush: "brush", eraser: "eraser", undo: "undo", redo: "redo", clear: "clear", "zoom-in": "zoomIn",
    "zoom-out": "zoomOut", "zoom-fit": "zoomFit", repair: "repair", blind: "blind", cancel: "cancel",
    toggle: "toggle", download: "download", adopt: "adopt", "save-mask": "saveMask", help: "help",
  };
  for (const [id, action] of Object.entries(ids)) find(id).addEventListener("click", () => actions[action]());
  const each = (selector, act) => {
    for (const button of document.querySelectorAll(selector)) button.addEventListener("click", () => act(button.dataset));
  };
  each("[data-action=open]", actions.open);
  each("[data-action=load-mask]", () => (tools.artwork ? actions.loadMask() : fail(new Error("Open a picture first."))));
  each("[data-sample]", ({ sample }) => openSample(sample));
  each("[data-damage]", ({ damage }) => addDamage(damage));
  find("size").addEventListener("input", () => resizeBrush(0));
  find("slider").addEventListener("input", slide);
  find("access").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = find("key").value;
    find("access").hidden = true;
    actions.repair();
  });
}

/** Files come from the two pickers, the clipboard, or by drag and drop. */
function bindFiles() {
  const take = (files) => {
    const file = [...(files ?? [])].find(({ type }) => type.startsWith("image/")) ?? files?.[0];
    if (file) open(file);
  };
  for (const [id, use] of [["picture-file", open], ["mask-file", loadMask]]) {
    find(id).addEventListener("change", ({ target }) => {
      if (target.files[0]) use(target.files[0]);
      target.value = "";
    });
  }
  addEventListener("paste", (event) => take(event.clipboardData.files));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => (find("drop").hidden = event.relatedTarget === null || find("drop").hidden));
  addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").hidden = true;
    take(event.dataTransfer.files);
  });
  addEventListener("beforeunload", (event) => tools.artwork?.mask.canUndo && event.preventDefault());
}

view.stage.addEventListener("pointermove", ({ clientX, clientY }) => moveCursor(clientX, clientY));
view.stage.addEventListener("pointerleave", () => (find("cursor").hidden = true));
new ResizeObserver(() => view.divider !== null && slide()).observe(view.stage);
bindButtons();
bindFiles();
bindKeys(actions);
bindSpace(view.stage, tools);
bindBrushKeys(view, tools, moveCursor, changed);
changed();
askModel();
