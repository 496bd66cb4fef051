// What the page asks of the server.

const RETRIES = 5;
const [RETRY_STATUSES, DEFAULT_WAIT] = [[429, 503], 2];

/** The server refused; the message is its own sentence. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** GET model: version, scores, limits, whether it repairs without a mask. */
export async function describeModel() {
  const answer = await send("model", {});
  return answer.json();
}

/**
 * POST inpaint. `mask` null: the server finds the damage. Where the server is busy, waits as long as it asks and tries
 * again; `waiting` is told the seconds. Returns {picture, mask, headers, seconds}: Blobs, mask null if not sent.
 */
export async function repair({ picture, name, mask, options, key, signal, waiting }) {
  const form = new FormData();
  form.append("image", picture, name);
  if (mask) form.append("mask", mask, "mask.png");
  for (const [field, value] of Object.entries(options)) form.append(field, value);
  const headers = { Accept: mask ? "image/*" : "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const request = { method: "POST", body: form, headers, signal };
  for (let tries = 0; ; tries++) {
    const started = performance.now();
    try {
      return await read(await send("inpaint", request), (performance.now() - started) / 1000);
    } catch (error) {
      if (!RETRY_STATUSES.includes(error.status) || tries === RETRIES) throw error;
      for (let left = error.wait; left > 0; left--) {
        waiting(left);
        await pause(1000, signal);
      }
    }
  }
}

/** The stages of a Server-Timing header in milliseconds, as [name, ms] pairs. */
export function readTiming(header) {
  const stages = (header ?? "").matchAll(/([\w-]+)[^,]*?;\s*dur=([\d.]+)/g);
  return [...stages].map(([, stage, duration]) => [stage, Number(duration)]);
}

async function send(path, request) {
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Check that it runs, and try again; your mask is kept.", 0);
  }
  if (answer.ok) return answer;
  const refusal = new Refusal(await sentence(answer), answer.status);
  refusal.wait = waitFor(answer.headers.get("Retry-After"));
  throw refusal;
}

async function sentence(answer) {
  const problem = answer.headers.get("Content-Type")?.includes("json") ? await answer.json().catch(() => ({})) : {};
  return problem.detail ?? problem.title ?? `The server answered ${answer.status} ${answer.statusText}; try again.`;
}

/** Retry-After in seconds; it may also be a date. */
function waitFor(header) {
  const seconds = Number(header ?? DEFAULT_WAIT);
  const asked = Number.isNaN(seconds) ? (Date.parse(header) - Date.now()) / 1000 : seconds;
  return Math.min(60, Math.max(1, Math.ceil(asked || DEFAULT_WAIT)));
}

async function read(answer, seconds) {
  const { headers } = answer;
  if (!headers.get("Content-Type").includes("json")) {
    return { picture: await answer.blob(), mask: null, headers, seconds };
  }
  const { image, mask, format } = await answer.json();
  return { picture: fromBase64(image, `image/${format}`), mask: mask && fromBase64(mask, "image/png"), headers, seconds };
}

function fromBase64(text, type) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
