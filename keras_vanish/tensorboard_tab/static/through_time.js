/** How far back in time the gradient reaches in a recurrent layer: time steps by recorded steps. */

import { power, shownAs, whole } from "./canvas.js";
import { clean, element } from "./elements.js";
import { Heatmap } from "./heatmap.js";

const LOWEST = -8;

export class ThroughTime {
  /** As `Scores`; `chooseLayer(place)` asks for another recurrent layer. */
  constructor({ tell, choose, chooseLayer }) {
    this.chooseLayer = chooseLayer;
    this.map = new Heatmap({
      label: "Time steps by training steps. Arrow keys move, Enter chooses the step.",
      upward: false,
      listeners: {
        over: (cell, event) => tell(this.#said(cell), event),
        choose: ({ column }, event) => choose(this.data.steps[column], event),
      },
    });
    this.title = element("h3");
    this.node = element("div", { class: "part", hidden: true }, this.title, this.map.node);
  }

  show(data, layers, place, gutter) {
    this.data = data;
    const last = data.horizons.findLast((value) => value != null);
    const most = data.back.at(-1) ?? 0;
    const told =
      last == null
        ? "no gradient through time"
        : `white line: the horizon, now ${whole(last)} of ${whole(most)} steps back. Colours: share ` +
          `of the last time step’s gradient, ${power(LOWEST)} to 1`;
    this.title.replaceChildren(
      "Through time",
      ...layers.map((name, at) =>
        element(
          "button",
          {
            class: "chip",
            "aria-pressed": String(at === place),
            click: () => this.chooseLayer(at),
          },
          clean(name),
        ),
      ),
      element("span", { class: "hint" }, told),
    );
    this.map.show({
      data,
      labels: data.back.map((back) => (back === 0 ? "last" : `−${back}`)),
      range: { low: LOWEST, high: 0, logarithmic: true, scale: "log" },
      gutter,
      row: Math.max(1, Math.min(12, 160 / Math.max(1, data.rows))),
      line: data.horizons,
    });
  }

  #said(cell) {
    if (!cell || cell.row < 0 || cell.column < 0) return null;
    const { back, steps, values, columns, horizons } = this.data;
    const horizon = horizons[cell.column];
    const share = shownAs(values[cell.row * columns + cell.column], "log");
    return [
      back[cell.row] ? `${back[cell.row]} time steps back` : "the last time step",
      `${share} of the last one’s gradient, step ${whole(steps[cell.column])}`,
      horizon == null ? "no horizon" : `horizon ${whole(horizon)} steps back`,
    ];
  }
}
