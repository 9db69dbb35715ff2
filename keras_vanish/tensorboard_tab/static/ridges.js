/** The histograms of one variable over steps: one ridge a step, the newest in front. */

import { exponents, inks, power, sized, whole } from "./canvas.js";
import { css, viridis } from "./colors.js";

const LIFT = 40;

/**
 * How high a ridge is along the axis: a polygon through the middles of the bins, which are
 * [left, right, count] over log10 of the magnitude; zero where bins are missing.
 */
function outline(bins) {
  const total = bins.reduce((sum, bin) => sum + bin[2], 0);
  const points = [];
  let end = null;
  for (const [from, to, count] of bins) {
    if (!(total > 0 && to > from)) continue;
    if (end === null || from > end + 1e-6) {
      if (end !== null) points.push([end, 0]);
      points.push([from, 0]);
    }
    points.push([(from + to) / 2, count / total / (to - from)]);
    end = to;
  }
  if (end !== null) points.push([end, 0]);
  return points;
}

/** Draws `ridges`, {step, bins}; all share one scale. */
export function drawRidges(canvas, width, ridges) {
  const colors = inks();
  const gap = Math.max(7, Math.min(18, 210 / Math.max(1, ridges.length)));
  const top = LIFT + 8;
  const context = sized(canvas, width, top + gap * ridges.length + 36);
  const lines = ridges.map(({ bins }) => outline(bins));
  const points = lines.flat();
  if (!points.length) return;
  const reach = (pick, start, at) => points.reduce((most, point) => pick(most, point[at]), start);
  const low = Math.floor(reach(Math.min, Infinity, 0));
  const high = Math.max(low + 1, Math.ceil(reach(Math.max, -Infinity, 0)));
  const peak = reach(Math.max, 0, 1) || 1;
  const [left, right] = [52, width - 12];
  const x = (at) => left + ((at - low) / (high - low)) * (right - left);
  const bottom = top + gap * (ridges.length - 1);
  context.textAlign = "center";
  for (const exponent of exponents(low, high, (right - left) / 48)) {
    context.fillStyle = colors.rule;
    context.fillRect(Math.round(x(exponent)), top - LIFT, 1, bottom - top + LIFT + 5);
    context.fillStyle = colors.quiet;
    context.fillText(power(exponent), x(exponent), bottom + 15);
  }
  context.fillText("magnitude of the gradient’s entries", (left + right) / 2, bottom + 31);
  let free = -Infinity;
  lines.forEach((line, place) => {
    const base = top + gap * place;
    context.beginPath();
    context.moveTo(left, base);
    for (const [at, density] of line) context.lineTo(x(at), base - (LIFT * density) / peak);
    context.lineTo(right, base);
    context.fillStyle = css(viridis(0.1 + (0.75 * place) / Math.max(1, lines.length - 1)));
    context.globalAlpha = 0.85;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = colors.ground;
    context.stroke();
    if (base - free < 12) return;
    free = base;
    context.fillStyle = colors.quiet;
    context.textAlign = "right";
    context.fillText(whole(ridges[place].step), left - 8, base - 1);
  });
}

/** How many entries the histograms count: the larger variable tells more. */
export function weight(ridges) {
  return ridges.reduce((most, { bins }) => Math.max(most, bins.reduce((sum, b) => sum + b[2], 0)), 0);
}
