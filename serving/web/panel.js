// What the page says: facts of picture and model, progress, errors, scores.

import { readTiming } from "./api.js";

export const find = (id) => document.getElementById(id);

/** Say what is happening, e.g. to a screen reader; an earlier error goes. */
export function say(text) {
  find("error").textContent = "";
  find("status").textContent = text;
}

/** Say what went wrong. */
export function fail(error) {
  find("status").textContent = "";
  find("error").textContent = error.message;
}

export function showPicture({ name, width, height, mask }) {
  const marked = mask.bits.reduce((sum, bit) => sum + bit, 0) / mask.bits.length;
  find("facts").textContent = `${name} · ${width} × ${height} pixels · ${percent(marked)} marked`;
}

/** The answer of GET /model, or null while the server does not give it. */
export function showModel(model) {
  if (!model) {
    find("model").textContent = "The server does not say what it serves.";
    find("blind").disabled = true;
    return;
  }
  find("model").textContent = [model.name, `version ${model.version}`].filter(Boolean).join(" · ");
  find("blind").disabled = !repairsBlindly(model);
  find("blind-note").textContent = repairsBlindly(model)
    ? "No mask needed; what it finds becomes the mask."
    : "This server has no model that finds damage. Paint over it, or load a mask.";
  fillList(find("model-facts"), modelFacts(model));
}

/** What came of a repair; `scores` is null where the original is not known. */
export function showOutcome({ headers, seconds, scores }) {
  const stages = readTiming(headers.get("Server-Timing")).map(([stage, ms]) => `${stage} ${ms.toFixed(0)} ms`);
  const change = (before, after, digits) =>
    before === null ? after.toFixed(digits) : `${before.toFixed(digits)} → ${after.toFixed(digits)}`;
  const rows = [
    ["Model", `version ${headers.get("X-Model-Version") ?? "unknown"}`],
    ["Time", `${seconds.toFixed(2)} s${stages.length ? ` (${stages.join(", ")})` : ""}`],
  ];
  if (scores) {
    rows.push(["SSIM, picture", change(scores.before?.ssim ?? null, scores.after.ssim, 4)]);
    rows.push(["MSE, hole", change(scores.before?.mse ?? null, scores.after.mse, 5)]);
  }
  fillList(find("figures"), rows);
}

/** Can the server repair without a mask? */
export function repairsBlindly(model) {
  return Boolean(model?.blind || model?.blind_model);
}

/** Replace a definition list by [term, text] rows. */
export function fillList(list, rows) {
  list.replaceChildren(
    ...rows.flatMap(([term, text]) => [element("dt", term), text instanceof Node ? element("dd", text) : element("dd", text)]),
  );
}

export function element(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

function modelFacts(model) {
  const { runtime, precision, threads } = model.engine ?? {};
  const rows = [
    ["Digest", model.digest?.slice(0, 12)],
    ["Run", model.run_id],
    ["Dataset", model.dataset?.slice?.(0, 12)],
    ["Engine", [runtime, precision, threads && `${threads} threads`].filter(Boolean).join(", ")],
    ["Since", model.served_since && new Date(model.served_since).toLocaleString()],
  ];
  for (const [name, value] of Object.entries(model.scores ?? {})) {
    if (typeof value === "number") rows.push([name.replaceAll("_", " "), value.toFixed(4)]);
  }
  return rows.filter(([, text]) => text);
}

function percent(share) {
  return `${(100 * share).toFixed(share && share < 0.1 ? 2 : 0)} %`;
}
