/** Drawing: canvases as sharp as the screen, ticks, and numbers as people write them. */

/** Sizes a canvas in CSS pixels and returns its context, scaled to the screen's pixels. */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = font(11);
  context.textBaseline = "middle";
  context.lineJoin = "round";
  return context;
}

export const font = (size, weight = 400) =>
  `${weight} ${size}px Roboto, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif`;

/** The colours of the page, which the style sheet sets by theme. */
export function inks() {
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: ink("text"),
    quiet: ink("quiet"),
    rule: ink("rule"),
    ground: ink("ground"),
    hatch: ink("hatch"),
    hatched: ink("hatched"),
    theme: document.documentElement.dataset.theme || "light",
  };
}

/** A pattern of thin diagonal lines: what is missing. */
export function hatching(context, colors) {
  const tile = document.createElement("canvas");
  const ratio = window.devicePixelRatio || 1;
  tile.width = tile.height = Math.round(6 * ratio);
  const pen = tile.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = colors.hatched;
  pen.fillRect(0, 0, 6, 6);
  pen.strokeStyle = colors.hatch;
  pen.lineWidth = 1;
  pen.beginPath();
  for (const shift of [-6, 0, 6]) {
    pen.moveTo(shift - 1, 7);
    pen.lineTo(shift + 7, -1);
  }
  pen.stroke();
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern;
}

/** Round numbers from `low` to `high`, about `count` of them. */
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    found.push(i * step + 0);
  }
  return found;
}

/** Whole exponents from `low` to `high`, at most about `count`. */
export function exponents(low, high, count) {
  const stride = Math.max(1, Math.ceil((high - low) / Math.max(1, count)));
  const found = [];
  for (let e = Math.ceil(low / stride) * stride + 0; e <= high + 1e-9; e += stride) found.push(e);
  return found;
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** 10 to a whole power. */
export const power = (exponent) => "10" + [...String(exponent)].map((c) => RAISED[c]).join("");

/** A number of which the logarithm is known. */
export function fromLog(log) {
  if (log == null || log !== log) return "missing";
  if (log === Infinity) return "NaN or Inf";
  if (log === -Infinity) return "0";
  if (log > -3.0005 && log < 4) return String(Number((10 ** log).toPrecision(3)));
  let exponent = Math.floor(log);
  let mantissa = (10 ** (log - exponent)).toFixed(1);
  if (mantissa === "10.0") [mantissa, exponent] = ["1.0", exponent + 1];
  return `${mantissa} × ${power(exponent)}`;
}

/** A share of one. */
export function percent(share) {
  if (share == null || share !== share) return "missing";
  if (share > 0 && share < 0.005) return "< 1 %";
  return `${Math.round(100 * share)} %`;
}

export const shownAs = (value, scale) => (scale === "log" ? fromLog(value) : percent(value));

export const whole = (number) => Math.round(number).toLocaleString("en");

const SHARES = [0, 0.5, 1].map((at) => ({ at, label: percent(at) }));

/** What a plot needs for a vertical axis from `low` to `high`. */
export function vertical(low, high, top, bottom, logarithmic) {
  const y = (value) => bottom - ((value - low) / Math.max(1e-9, high - low)) * (bottom - top);
  const marks = () => exponents(low, high, (bottom - top) / 26);
  const yTicks = logarithmic ? marks().map((at) => ({ at, label: power(at) })) : SHARES;
  return { y, yTicks, top, bottom };
}

/** The axis of steps that the pictures of one run share. A reading lasts until the next one. */
export class StepAxis {
  constructor(steps, left, right) {
    this.steps = steps;
    this.left = left;
    this.right = right;
    this.first = steps.length ? steps[0] : 0;
    this.last = steps.length ? steps[steps.length - 1] : 1;
    this.end = this.last + Math.max(1, (this.last - this.first) / Math.max(1, steps.length - 1));
  }

  x(step) {
    return this.left + ((step - this.first) / (this.end - this.first)) * (this.right - this.left);
  }

  /** Which reading is drawn at `x`; -1 outside. */
  column(x) {
    if (x < this.left || x > this.right || !this.steps.length) return -1;
    const step = this.first + ((x - this.left) / (this.right - this.left)) * (this.end - this.first);
    let [low, high] = [0, this.steps.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.steps[middle] <= step) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  ticks() {
    const count = Math.max(2, (this.right - this.left) / 90);
    return ticks(this.first, this.last, count).map((at) => ({ at, label: whole(at) }));
  }
}
