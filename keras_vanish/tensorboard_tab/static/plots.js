/** Lines over steps, or over depth. */

import { inks, sized } from "./canvas.js";
import { element } from "./elements.js";

export class Plot {
  /** `listeners` are `over(x, event)`, x in the canvas or null, and `choose(x, event)`. */
  constructor({ label, height, listeners = {} }) {
    this.height = height;
    this.canvas = element("canvas", { role: "img", "aria-label": label });
    this.node = element("div", { class: "plot" }, this.canvas);
    const x = (event) => event.clientX - this.canvas.getBoundingClientRect().left;
    this.canvas.addEventListener("pointermove", (event) => listeners.over?.(x(event), event));
    this.canvas.addEventListener("pointerleave", () => listeners.over?.(null, null));
    this.canvas.addEventListener("click", (event) => listeners.choose?.(x(event), event));
  }

  get width() {
    return this.node.clientWidth || 400;
  }

  /**
   * Draws. `x` and `y` map values to the canvas; `xTicks` and `yTicks` are {at, label};
   * `series` are {points: [[x, y], ...], color, dash, dots}, a null for y is a gap; `bands` are
   * {from, to, color}, strips at the top; `lines` are {x, color}, or {y} for a threshold.
   */
  draw({ left, right, top, bottom, x, y, xTicks, yTicks, series, bands = [], lines = [], title }) {
    const colors = inks();
    const context = sized(this.canvas, this.width, this.height);
    context.lineWidth = 1;
    context.textAlign = "right";
    for (const { at, label } of yTicks) {
      const place = Math.round(y(at)) + 0.5;
      if (place < top - 1 || place > bottom + 1) continue;
      context.strokeStyle = colors.rule;
      context.beginPath();
      context.moveTo(left, place);
      context.lineTo(right, place);
      context.stroke();
      context.fillStyle = colors.quiet;
      context.fillText(label, left - 7, place);
    }
    context.textAlign = "center";
    let free = -Infinity;
    for (const { at, label } of xTicks) {
      const place = x(at);
      const half = context.measureText(label).width / 2;
      const middle = Math.max(half, Math.min(this.width - half, place));
      if (place < left - 1 || place > right + 1 || middle - half < free) continue;
      free = middle + half + 8;
      context.strokeStyle = colors.quiet;
      context.beginPath();
      context.moveTo(Math.round(place) + 0.5, bottom);
      context.lineTo(Math.round(place) + 0.5, bottom + 4);
      context.stroke();
      context.fillStyle = colors.quiet;
      context.fillText(label, middle, bottom + 13);
    }
    if (title) {
      context.fillStyle = colors.quiet;
      context.fillText(title, (left + right) / 2, bottom + 29);
    }
    for (const { from, to, color } of bands) {
      context.fillStyle = color;
      if (from < right) context.fillRect(from, top - 10, Math.max(1, to - from), 5);
    }
    for (const line of lines) this.#line(context, colors, { left, right, top, bottom, x, y }, line);
    context.save();
    context.beginPath();
    context.rect(left - 4, top - 4, right - left + 8, bottom - top + 8);
    context.clip();
    for (const one of series) curve(context, one, x, y);
    context.restore();
  }

  #line(context, colors, { left, right, top, bottom, x, y }, line) {
    context.beginPath();
    context.lineWidth = line.width ?? 1;
    if ("x" in line) {
      context.strokeStyle = line.color ?? colors.quiet;
      context.moveTo(x(line.x), top);
      context.lineTo(x(line.x), bottom);
      context.stroke();
    } else {
      context.strokeStyle = colors.text;
      context.setLineDash([5, 4]);
      context.moveTo(left, y(line.y));
      context.lineTo(right, y(line.y));
      context.stroke();
      context.setLineDash([]);
    }
    context.lineWidth = 1;
  }
}

function curve(context, { points, color, dash, dots, width = 1.75 }, x, y) {
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = width;
  context.setLineDash(dash ?? []);
  context.beginPath();
  let open = false;
  points.forEach(([at, value], place) => {
    if (value == null || !Number.isFinite(value)) {
      open = false;
      return;
    }
    context[open ? "lineTo" : "moveTo"](x(at), y(value));
    const before = points[place - 1]?.[1];
    const after = points[place + 1]?.[1];
    // What stands alone between gaps would not be seen as a line.
    if (!Number.isFinite(before ?? NaN) && !Number.isFinite(after ?? NaN)) {
      context.lineTo(x(at) + 1.5, y(value));
    }
    open = true;
  });
  context.stroke();
  context.setLineDash([]);
  if (!dots) return;
  for (const [at, value] of points) {
    if (value == null || !Number.isFinite(value)) continue;
    context.beginPath();
    context.arc(x(at), y(value), 2.4, 0, 2 * Math.PI);
    context.fill();
  }
}
