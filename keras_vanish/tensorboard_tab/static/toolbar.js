/** The bar above the panels: runs, quantities, the legend of colours, tools and keys. */

import { exponents, inks, percent, power, sized } from "./canvas.js";
import { css, viridis } from "./colors.js";
import { clean, element, runName } from "./elements.js";

const KEYS = [
  ["← → ↑ ↓", "move in a heatmap; with Shift by ten"],
  ["Enter", "choose the layer and the step under the crosshair"],
  ["Space", "add the step to the profile, or take it away"],
  ["1 … 9", "show or hide a run"],
  ["q", "next quantity"],
  ["+  −", "taller or lower rows"],
  ["c  p", "save as CSV, as PNG"],
  ["Esc", "forget the chosen layer and steps"],
];

export class Toolbar {
  /** `act` holds what the tools and keys do: toggleRun, choose, zoom, saveTable, savePicture, forget. */
  constructor(act) {
    this.act = act;
    this.runs = element("div", { class: "chips runs", role: "group", "aria-label": "Runs" });
    this.quantities = element("div", { class: "segments", role: "radiogroup", "aria-label": "Quantity" });
    this.legend = element("canvas", { role: "img", "aria-label": "Legend of colours" });
    this.help = element(
      "dialog", { class: "help" },
      element("h2", {}, "Keys"),
      element("dl", {}, ...KEYS.flatMap(([k, does]) => [element("dt", {}, k), element("dd", {}, does)])),
      element("form", { method: "dialog" }, element("button", { class: "tool" }, "Close")),
    );
    const tool = (label, title, click) => element("button", { class: "tool", title, click }, label);
    const swatch = (kind, text) => element("span", { class: "swatch" }, element("i", { class: kind }), text);
    this.node = element(
      "nav", { class: "bar" },
      this.runs,
      this.quantities,
      element(
        "div", { class: "keys" },
        this.legend, swatch("zero", "zero"), swatch("missing", "missing"), swatch("nonfinite", "NaN or Inf"),
      ),
      element(
        "div", { class: "tools" },
        tool("−", "Lower rows (key −)", () => act.zoom(-1)),
        tool("+", "Taller rows (key +)", () => act.zoom(1)),
        tool("CSV", "Save the heatmaps as CSV (key c)", act.saveTable),
        tool("PNG", "Save the pictures as PNG (key p)", act.savePicture),
        tool("?", "Keys", () => this.help.showModal()),
      ),
    );
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  showRuns(runs, visible) {
    this.names = runs;
    this.runs.replaceChildren(
      ...runs.map((run, place) =>
        element(
          "button",
          {
            class: "chip run",
            "aria-pressed": String(visible.includes(run)),
            title: place < 9 ? `${clean(run)} (key ${place + 1})` : clean(run),
            click: () => this.act.toggleRun(run),
          },
          runName(run),
        ),
      ),
    );
  }

  /** `quantities` are {id, label}. */
  showQuantities(quantities, chosen) {
    this.quantities.replaceChildren(
      ...quantities.map(({ id, label }) =>
        element(
          "button",
          {
            role: "radio",
            "aria-checked": String(id === chosen),
            click: () => this.act.choose({ quantity: id }),
          },
          label,
        ),
      ),
    );
  }

  /** Draws the legend of the colours of all heatmaps. */
  showRange(range) {
    const width = 236;
    const context = sized(this.legend, width, 34);
    const [left, right] = [16, width - 16];
    for (let x = left; x < right; x++) {
      context.fillStyle = css(viridis((x - left) / (right - left - 1)));
      context.fillRect(x, 3, 1.2, 12);
    }
    const at = (value) => left + ((value - range.low) / (range.high - range.low)) * (right - left);
    const marks = range.logarithmic
      ? exponents(range.low, range.high, 5).map((value) => [value, power(value)])
      : [0, 0.25, 0.5, 0.75, 1].map((value) => [value, percent(value)]);
    context.textAlign = "center";
    context.fillStyle = inks().quiet;
    for (const [value, text] of marks) {
      context.fillRect(at(value) - 0.5, 15, 1, 3);
      context.fillText(text, at(value), 26);
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const radios = [...this.quantities.children];
    const next = radios.findIndex((one) => one.getAttribute("aria-checked") === "true") + 1;
    const acts = {
      q: () => radios[next % radios.length]?.click(),
      "+": () => this.act.zoom(1),
      "=": () => this.act.zoom(1),
      "-": () => this.act.zoom(-1),
      c: this.act.saveTable,
      p: this.act.savePicture,
      "?": () => this.help.showModal(),
      Escape: this.act.forget,
    };
    if (/^[1-9]$/.test(event.key)) {
      const run = this.names?.[Number(event.key) - 1];
      if (run !== undefined) this.act.toggleRun(run);
    } else if (Object.hasOwn(acts, event.key)) acts[event.key]();
  }
}
