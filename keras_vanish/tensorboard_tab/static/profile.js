/** One quantity over depth: a line for each chosen step. */

import { inks, shownAs, vertical, whole } from "./canvas.js";
import { LINES } from "./colors.js";
import { clean, element } from "./elements.js";
import { Plot } from "./plots.js";

const LEFT = 52;
const WITH_DOTS = 60;

export class Profile {
  constructor(page) {
    this.page = page;
    this.title = element("h3");
    this.chips = element("div", { class: "chips" });
    this.plot = new Plot({
      label: "One quantity over depth, a line for each chosen step",
      height: 216,
      listeners: { over: (x, event) => this.#over(x, event), choose: (x) => this.#choose(x) },
    });
    this.node = element("div", { class: "part" }, this.title, this.chips, this.plot.node);
  }

  /** Which columns are shown, with a colour each: those of the chosen steps. */
  columns(steps) {
    const { steps: chosen } = this.page.chosen();
    const last = steps.length - 1;
    const wanted = chosen.length
      ? chosen.map((step) => Math.max(0, steps.findLastIndex((one) => one <= step)))
      : [0, Math.floor(last / 2), last];
    const colors = LINES[inks().theme];
    return [...new Set(wanted)]
      .filter((column) => column >= 0)
      .sort((a, b) => a - b)
      .map((column, place) => ({ column, step: steps[column], color: colors[place % colors.length] }));
  }

  /** Shows the profiles of a heatmap; `row` is that of the chosen layer, or -1. */
  show(data, range, label, row) {
    Object.assign(this, { data, range, label });
    const { rows, columns, values, names, steps } = data;
    this.title.textContent = `${label} over depth`;
    this.picked = this.columns(steps);
    this.#legend();
    const [left, right] = [LEFT, this.plot.width - 12];
    const x = (at) => left + (at / Math.max(1, rows - 1)) * (right - left);
    this.depth = { left, right };
    this.plot.draw({
      left, right, x,
      ...vertical(range.low, range.high, 12, 168, range.logarithmic),
      xTicks: [{ at: 0, label: "input" }, { at: rows - 1, label: "output" }],
      lines: row >= 0 ? [{ x: row }] : [],
      series: this.picked.map(({ column, color }) => ({
        color,
        dots: rows <= WITH_DOTS,
        points: Array.from({ length: rows }, (_, at) => [at, values[at * columns + column]]),
      })),
      title: `${whole(names.length)} layers in the order in which data flows`,
    });
  }

  #legend() {
    const fixed = this.page.chosen().steps.length > 0;
    const chip = ({ step, color }) => {
      const parts = [element("i", { style: `background:${color}` }), `step ${whole(step)}`];
      const away = () => this.page.takeStep(step, this.data.steps);
      return fixed
        ? element("button", { class: "chip", title: "Take this step away", click: away }, ...parts)
        : element("span", { class: "chip" }, ...parts);
    };
    const hint = element("span", { class: "hint" }, "click a step in a picture to choose others");
    this.chips.replaceChildren(...this.picked.map(chip), ...(fixed ? [] : [hint]));
  }

  #row(x) {
    const { left, right } = this.depth;
    const most = this.data.rows - 1;
    return Math.max(0, Math.min(most, Math.round(((x - left) / (right - left)) * most)));
  }

  #over(x, event) {
    if (x === null || !this.data?.rows) {
      this.page.tip(null);
      return;
    }
    const row = this.#row(x);
    const { columns, values, names } = this.data;
    const lines = this.picked.map(
      ({ step, column }) =>
        `step ${whole(step)}: ${shownAs(values[row * columns + column], this.range.scale)}`,
    );
    this.page.tip([clean(names[row]), ...lines], event);
  }

  #choose(x) {
    if (this.data?.rows) this.page.choose({ layer: this.data.names[this.#row(x)] });
  }
}
