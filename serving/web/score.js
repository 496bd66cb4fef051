// How near a repair is to the original.

const WINDOW = 7;
const [C1, C2] = [(0.01 * 255) ** 2, (0.03 * 255) ** 2];
const SLICE_MS = 12;

/** Mean squared error of two RGBA ImageData, pixels in [0, 1], over RGB; only where `bits` is 1, if given. */
export function mse(first, second, bits = null) {
  let [sum, count] = [0, 0];
  for (let pixel = 0; pixel < first.width * first.height; pixel++) {
    if (bits && !bits[pixel]) continue;
    for (let at = 4 * pixel; at < 4 * pixel + 3; at++) sum += (first.data[at] - second.data[at]) ** 2;
    count += 3;
  }
  return sum / count / 255 ** 2;
}

/**
 * Structural similarity of two RGBA ImageData over RGB: Wang et al., "Image Quality Assessment: From Error
 * Visibility to Structural Similarity", 2004, with scikit-image's defaults: a uniform window of 7 by 7 pixels,
 * sample covariance, borders left out, mean over channels. NaN for pictures smaller than the window.
 * Gives the page time to breathe in between.
 */
export async function ssim(first, second) {
  const { width, height } = first;
  if (Math.min(width, height) < WINDOW) return NaN;
  let [total, started] = [0, performance.now()];
  for (let channel = 0; channel < 3; channel++) {
    const columns = Array.from({ length: 5 }, () => new Float64Array(width));
    for (let y = 0; y < height; y++) {
      addRow(columns, first, second, y, channel, 1);
      if (y >= WINDOW) addRow(columns, first, second, y - WINDOW, channel, -1);
      if (y >= WINDOW - 1) total += rowSimilarity(columns, width);
      if (performance.now() - started > SLICE_MS) {
        await new Promise((resume) => setTimeout(resume));
        started = performance.now();
      }
    }
  }
  return total / 3 / (width - WINDOW + 1) / (height - WINDOW + 1);
}

/** Add a row, or take it away, to the sums over a window's rows of x, y, xx, yy and xy. */
function addRow([x, y, xx, yy, xy], first, second, row, channel, sign) {
  const { width } = first;
  for (let column = 0, at = 4 * row * width + channel; column < width; column++, at += 4) {
    const [one, two] = [first.data[at], second.data[at]];
    x[column] += sign * one;
    y[column] += sign * two;
    xx[column] += sign * one * one;
    yy[column] += sign * two * two;
    xy[column] += sign * one * two;
  }
}

function rowSimilarity(columns, width) {
  const number = WINDOW * WINDOW;
  const sums = [0, 0, 0, 0, 0];
  let total = 0;
  for (let column = 0; column < width; column++) {
    for (let kind = 0; kind < 5; kind++) {
      sums[kind] += columns[kind][column] - (column >= WINDOW ? columns[kind][column - WINDOW] : 0);
    }
    if (column < WINDOW - 1) continue;
    const [ux, uy] = [sums[0] / number, sums[1] / number];
    const sample = 1 / (number - 1);
    const [vx, vy] = [sample * (sums[2] - number * ux * ux), sample * (sums[3] - number * uy * uy)];
    const covariance = sample * (sums[4] - number * ux * uy);
    total += ((2 * ux * uy + C1) * (2 * covariance + C2)) / ((ux * ux + uy * uy + C1) * (vx + vy + C2));
  }
  return total;
}
