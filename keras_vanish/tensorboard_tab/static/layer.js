/** One layer over steps: its curves, and the histograms of its variables. */

import { StepAxis, inks, vertical } from "./canvas.js";
import { LINES } from "./colors.js";
import { clean, element } from "./elements.js";
import { Plot } from "./plots.js";
import { drawRidges, weight } from "./ridges.js";

const LEFT = 52;

export class Layer {
  constructor() {
    this.variable = null;
    this.title = element("h3");
    this.legend = element("div", { class: "chips" });
    this.curves = new Plot({ label: "Curves of the layer over steps", height: 170 });
    this.shares = new Plot({ label: "Shares of the layer over steps", height: 96 });
    this.variables = element("div", { class: "chips" });
    this.canvas = element("canvas", { role: "img", "aria-label": "Histograms over steps" });
    this.ridge = element("div", { class: "plot" }, this.canvas);
    this.node = element(
      "div", { class: "part" },
      this.title, this.legend, this.curves.node, this.shares.node, this.variables, this.ridge,
    );
  }

  /** Shows a layer; `answer` is null while it is asked for. */
  show(name, answer) {
    this.node.hidden = name === null;
    if (name === null) return;
    this.title.replaceChildren("Layer ", element("b", {}, clean(name)));
    if (!answer) return;
    this.answer = answer;
    const colors = LINES[inks().theme];
    // Where there is none of a thing, a line at zero would only take room.
    const told = answer.curves.filter(({ scale, values }) => scale === "log" || values.some(Boolean));
    const curves = told.map((curve, place) => ({
      ...curve,
      color: colors[place % colors.length],
      points: answer.steps.map((step, at) => [step, curve.values[at]]),
    }));
    this.legend.replaceChildren(
      ...curves.map(({ label, color }) =>
        element("span", { class: "chip" }, element("i", { style: `background:${color}` }), label),
      ),
    );
    const logs = curves.filter(({ scale }) => scale === "log");
    const known = logs.flatMap(({ values }) => values).filter(Number.isFinite);
    const low = Math.floor(known.reduce((a, b) => Math.min(a, b), Infinity));
    const high = Math.ceil(known.reduce((a, b) => Math.max(a, b), -Infinity));
    this.#draw(this.curves, known.length ? logs : [], () =>
      vertical(low, Math.max(high, low + 1), 12, 142, true),
    );
    const shares = curves.filter(({ scale }) => scale !== "log");
    this.#draw(this.shares, shares, () => vertical(0, 1, 12, 68, false));
    this.#showRidges();
  }

  #draw(plot, series, range) {
    plot.node.hidden = !series.length;
    if (!series.length) return;
    const axis = new StepAxis(this.answer.steps, LEFT, plot.width - 12);
    plot.draw({
      left: axis.left,
      right: axis.right,
      x: (step) => axis.x(step),
      xTicks: axis.ticks(),
      ...range(),
      series,
    });
  }

  #showRidges() {
    const { histograms } = this.answer;
    this.ridge.hidden = this.variables.hidden = !histograms.length;
    if (!histograms.length) return;
    const largest = histograms.reduce((a, b) => (weight(b.ridges) > weight(a.ridges) ? b : a));
    const shown = histograms.find(({ variable }) => variable === this.variable) ?? largest;
    this.variables.replaceChildren(
      element("span", { class: "hint" }, "histograms of"),
      ...histograms.map((one) =>
        element(
          "button",
          {
            class: "chip",
            "aria-pressed": String(one === shown),
            click: () => {
              this.variable = one.variable;
              this.#showRidges();
            },
          },
          clean(one.variable),
        ),
      ),
    );
    drawRidges(this.canvas, this.ridge.clientWidth || 400, shown.ridges);
  }

  /** The canvases that an exported picture holds, each with a title. */
  pictures() {
    if (this.node.hidden) return [];
    return [
      [this.title.textContent, this.curves.canvas, this.curves.node],
      ["Shares", this.shares.canvas, this.shares.node],
      ["Histograms", this.canvas, this.ridge],
    ].filter(([, , node]) => !node.hidden);
  }
}
