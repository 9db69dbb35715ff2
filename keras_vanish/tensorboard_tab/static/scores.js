/** The scores of a run over steps, its verdict at each, and marks where something was done. */

import { inks, whole } from "./canvas.js";
import { LINES, VERDICTS } from "./colors.js";
import { clean, element } from "./elements.js";
import { Plot } from "./plots.js";

const NEAR = 14;
const [TOP, BOTTOM] = [32, 114];

const tinted = (verdict, theme) => (VERDICTS[verdict] ?? VERDICTS.unknown)[theme];

export class Scores {
  /** `tell(lines, event)` says what is under the pointer; `choose(step, event)` chooses a step. */
  constructor(page, { tell, choose }) {
    this.page = page;
    this.tell = tell;
    this.plot = new Plot({
      label: "Vanishing and exploding score over steps",
      height: 150,
      listeners: {
        over: (x, event) => this.#over(x, event),
        choose: (x, event) => {
          const column = this.axis?.column(x) ?? -1;
          if (column >= 0) choose(this.axis.steps[column], event);
        },
      },
    });
    this.legend = element("div", { class: "chips overlay" });
    this.markers = element("div");
    this.plot.node.append(this.legend, this.markers);
    this.node = this.plot.node;
  }

  /** Draws the scores below a heatmap, whose axis of steps they share. */
  show(scored, interventions, axis) {
    Object.assign(this, { scored, axis });
    const { theme } = inks();
    const [vanishing, exploding] = LINES[theme];
    const { steps, verdicts, threshold } = scored;
    const line = (scores) => steps.map((step, place) => [step, scores[place]]);
    this.plot.draw({
      left: axis.left,
      right: axis.right,
      top: TOP,
      bottom: BOTTOM,
      x: (step) => axis.x(step),
      y: (score) => BOTTOM - score * (BOTTOM - TOP),
      xTicks: axis.ticks(),
      yTicks: [0, threshold, 1].map((at) => ({ at, label: String(at) })),
      lines: [{ y: threshold }],
      bands: steps.map((step, place) => ({
        from: axis.x(step),
        to: Math.min(axis.right, place + 1 < steps.length ? axis.x(steps[place + 1]) : axis.right),
        color: tinted(verdicts[place], theme),
      })),
      series: [
        { color: exploding, dash: [5, 3], points: line(scored.exploding) },
        { color: vanishing, points: line(scored.vanishing) },
      ],
      title: "step",
    });
    const chip = (color, text) =>
      element("span", { class: "chip" }, element("i", { style: `background:${color}` }), text);
    this.legend.style.left = `${axis.left}px`;
    this.legend.replaceChildren(
      chip(vanishing, "vanishing score"),
      chip(exploding, "exploding score"),
      element("span", { class: "hint" }, `flagged from ${threshold}`),
    );
    this.#mark(interventions);
  }

  #mark(interventions) {
    const groups = [];
    for (const one of interventions) {
      // What was done after the last reading stands at the end.
      const x = Math.min(this.axis.right, this.axis.x(one.step));
      if (x < this.axis.left) continue;
      const last = groups[groups.length - 1];
      if (last && x - last.x < NEAR) last.all.push(one);
      else groups.push({ x, all: [one] });
    }
    this.markers.replaceChildren(
      ...groups.map(({ x, all }) => {
        const says = all.map(({ sentence }) => clean(sentence));
        return element(
          "button",
          {
            class: all.every((one) => one.dry_run) ? "marker dry" : "marker",
            style: `left:${x}px`,
            "aria-label": all.length === 1 ? says[0] : `${all.length} interventions`,
            click: (event) => this.page.note(says, event.currentTarget),
          },
          all.length > 1 ? String(all.length) : "",
        );
      }),
    );
  }

  #over(x, event) {
    const at = x === null || !this.scored
      ? -1
      : this.scored.steps.findLastIndex((step) => this.axis.x(step) <= x);
    if (at < 0) {
      this.tell(null, null);
      return;
    }
    const { steps, vanishing, exploding, sentences, says } = this.scored;
    const score = (value) => (value == null ? "unknown" : value.toFixed(2));
    this.tell(
      [
        `step ${whole(steps[at])}`,
        `vanishing ${score(vanishing[at])}, exploding ${score(exploding[at])}`,
        clean(sentences[says[at]]),
      ],
      event,
    );
  }
}
