/** One run: its verdict in words, its heatmap, its scores, and the details beside them. */

import * as api from "./api.js";
import { blocksOf } from "./blocks.js";
import { font, inks, shownAs, whole } from "./canvas.js";
import { VERDICTS } from "./colors.js";
import { clean, element, runName } from "./elements.js";
import { composed } from "./export.js";
import { Heatmap } from "./heatmap.js";
import { Layer } from "./layer.js";
import { Profile } from "./profile.js";
import { Scores } from "./scores.js";
import { ThroughTime } from "./through_time.js";

/** The quantity that every run has. */
const PLAIN = "gradient_rms";

export class Panel {
  /** `page` is what panels share: see `index.js`. */
  constructor(run, page) {
    this.run = run;
    this.page = page;
    this.revision = null;
    this.asked = 0;
    this.recurrent = 0;
    const tell = (lines, event) => this.#tell(lines, event);
    const choose = (step, event) => this.#chooseStep(step, event);
    this.heatmap = new Heatmap({
      label: "Layers by steps. Arrow keys move, Enter chooses the layer and the step.",
      upward: true,
      listeners: {
        over: (cell, event) => tell(this.#said(cell), event),
        choose: ({ row, column }, event) => {
          if (row >= 0) page.choose({ layer: this.data.names[row] });
          if (column >= 0) choose(this.data.steps[column], event);
        },
      },
    });
    this.scores = new Scores(page, { tell, choose });
    this.time = new ThroughTime({
      tell,
      choose,
      chooseLayer: (place) => {
        this.recurrent = place;
        void this.#safely(() => this.#loadTime(() => false));
      },
    });
    this.profile = new Profile(page);
    this.layerPart = new Layer();
    this.#build();
  }

  #build() {
    this.verdict = element("span", { class: "verdict" });
    this.sentence = element("p", { class: "sentence" });
    this.advice = element("ol");
    const summary = element("summary", {}, "What to try");
    this.advising = element("details", { hidden: true }, summary, this.advice);
    this.error = element("p", { class: "error", role: "alert", hidden: true });
    this.title = element("h3");
    this.readout = element("output", { class: "readout", "aria-live": "polite" });
    const headline = element("div", { class: "headline" }, element("h2", {}, runName(this.run)), this.verdict);
    this.node = element(
      "section", { class: "panel", "aria-label": runName(this.run) },
      element("header", {}, headline, this.sentence, this.advising, this.error),
      element(
        "div", { class: "halves" },
        element(
          "div", { class: "pictures" },
          element("div", { class: "part" }, this.title, this.heatmap.node, this.scores.node),
          this.time.node,
          this.readout,
        ),
        element("div", { class: "details" }, this.profile.node, this.layerPart.node),
      ),
    );
    this.node.dataset.run = this.run;
  }

  /** Asks for everything, and draws it; done when the heatmap is there. */
  load(revision) {
    const asked = ++this.asked;
    return this.#safely(() => this.#load(revision, () => asked !== this.asked));
  }

  async #load(revision, stale) {
    const { quantity } = this.page.chosen();
    const data = await this.#heatmap(quantity);
    if (stale() || !data) return;
    const { label, scale } = data;
    Object.assign(this, { data, revision, quantity: { id: quantity, label, scale } });
    this.error.hidden = true;
    // First what is there at once: the rest needs what the probe saw, and takes longer.
    this.page.loaded();
    this.about = await api.about(this.run);
    if (stale()) return;
    this.page.loaded();
    void this.#safely(() => this.#loadRest(stale));
  }

  /** What takes longer; the page does not wait for it to ask for news. */
  async #loadRest(stale) {
    await Promise.all([
      this.#loadScores(stale),
      this.#loadTime(stale),
      this.page.chosen().layer === null ? null : this.#loadLayer(stale),
    ]);
    if (!stale()) this.node.dataset.ready = this.revision;
  }

  /** The matrix of a quantity: all missing where this run has nothing of the kind. */
  async #heatmap(quantity) {
    const data = await api.heatmap(this.run, quantity, this.#columns()).catch((error) => {
      // An address may name a quantity that this version does not have.
      if (quantity === PLAIN) throw error;
      this.page.choose({ quantity: PLAIN });
    });
    if (!data || data.rows) return data;
    if (quantity === PLAIN) throw new Error("its event files hold nothing that this version can read");
    const { names, rows, columns, values } = await api.heatmap(this.run, PLAIN, this.#columns());
    return { ...data, names, rows, columns, values: new Float32Array(values.length).fill(NaN) };
  }

  async #safely(act) {
    try {
      await act();
    } catch (error) {
      this.error.textContent = clean(`Cannot show this run: ${error.message}`);
      this.error.hidden = false;
      this.node.dataset.failed = "";
    }
  }

  #columns() {
    const width = (this.heatmap.node.clientWidth - 100) * (window.devicePixelRatio || 1);
    return Math.round(Math.max(200, Math.min(4000, width)));
  }

  async #loadScores(stale) {
    for (;;) {
      const scored = await api.scores(this.run, this.#columns());
      if (stale()) return;
      this.scored = scored;
      this.say();
      this.#drawScores();
      if (this.page.chosen().layer === null) await this.#loadLayer(stale);
      if (scored.complete || stale()) return;
    }
  }

  async #loadTime(stale) {
    const layers = this.about.recurrent;
    this.time.node.hidden = !layers.length;
    if (!layers.length) return;
    this.recurrent %= layers.length;
    const data = await api.time(this.run, layers[this.recurrent], this.#columns());
    if (stale()) return;
    this.timeData = data;
    this.#drawTime();
  }

  /** The layer that the details show: the chosen one, or the first that is to blame. */
  get layer() {
    const { layer } = this.page.chosen();
    const names = this.data?.names ?? [];
    if (layer !== null) return layer;
    return this.scored?.blame.find((name) => names.includes(name)) ?? names[0] ?? null;
  }

  /** Follows the user's choice of a layer and of steps. */
  follow() {
    return this.#safely(() => this.#loadLayer(() => false));
  }

  async #loadLayer(stale) {
    const { layer, revision } = this;
    this.#mark();
    if (layer === this.shownLayer?.name && revision === this.shownLayer.revision) return;
    this.layerPart.show(layer, null);
    if (layer === null) return;
    const answer = await api.layer(this.run, layer, this.#columns());
    if (stale() || layer !== this.layer) return;
    this.shownLayer = { name: layer, revision, answer };
    this.layerPart.show(layer, answer);
    this.node.dataset.layer = layer;
  }

  /** Draws all again: with another range of colours, another theme, another width. */
  draw(range, row) {
    this.range = range;
    const { blocks, short } = blocksOf(this.data.names);
    this.gutter = this.#gutter(short, blocks);
    this.title.textContent = `${this.quantity.label} by layer and step`;
    const { data, gutter } = this;
    this.heatmap.show({ data, labels: short, blocks, range, gutter, row });
    this.#mark();
    this.#drawScores();
    this.#drawTime();
    if (this.shownLayer) this.layerPart.show(this.shownLayer.name, this.shownLayer.answer);
    this.node.dataset.drawn = this.revision;
  }

  #gutter(names, blocks) {
    const context = document.createElement("canvas").getContext("2d");
    context.font = font(11, 600);
    const room = blocks.length ? 30 : 14;
    const all = [...names, ...blocks.map(({ name }) => name.slice(0, 16))].slice(0, 2000);
    const texts = all.map((name) => clean(name.slice(0, 60)));
    const widest = texts.reduce((most, text) => Math.max(most, context.measureText(text).width), 0);
    const most = Math.min(170, 0.3 * (this.heatmap.node.clientWidth || 600));
    return Math.round(Math.max(64, Math.min(most, widest + room)));
  }

  /** The verdict in words. */
  say() {
    if (!this.scored) return;
    const { verdict, sentence, advice } = this.scored;
    const { mark, [inks().theme]: color } = VERDICTS[verdict] ?? VERDICTS.unknown;
    this.verdict.textContent = `${mark} ${verdict[0].toUpperCase()}${verdict.slice(1)}`;
    this.verdict.style.setProperty("--verdict", color);
    this.sentence.textContent = clean(sentence);
    this.sentence.title = this.sentence.textContent;
    this.advice.replaceChildren(...advice.map((line) => element("li", {}, line)));
    this.advising.hidden = !advice.length;
    this.node.dataset.verdict = verdict;
  }

  #mark() {
    if (!this.data || !this.heatmap.axis) return;
    const row = this.data.names.indexOf(this.layer);
    const lines = this.page.chosen().steps.length ? this.profile.columns(this.data.steps) : [];
    this.heatmap.mark({ row, lines });
    this.time.map.mark({ row: -1, lines });
    this.profile.show(this.data, this.range, this.quantity.label, row);
  }

  #drawScores() {
    if (!this.scored || !this.heatmap.axis) return;
    this.scores.show(this.scored, this.about?.interventions ?? [], this.heatmap.axis);
  }

  #drawTime() {
    if (!this.timeData || !this.gutter || this.time.node.hidden) return;
    this.time.show(this.timeData, this.about.recurrent, this.recurrent, this.gutter);
  }

  #chooseStep(step, event) {
    if (step === undefined) return;
    if (event.shiftKey || event.key === " ") this.page.takeStep(step, this.data.steps);
    else this.page.choose({ steps: [step] });
  }

  #said(cell) {
    if (!cell || !this.data || (cell.row < 0 && cell.column < 0)) return null;
    const { names, steps, values, columns } = this.data;
    const at = cell.column < 0 ? "" : `step ${whole(steps[cell.column])}`;
    if (cell.row < 0) return [at];
    if (!at) return [clean(names[cell.row])];
    const value = shownAs(values[cell.row * columns + cell.column], this.range.scale);
    return [clean(names[cell.row]), `${this.quantity.label} ${value}, ${at}`];
  }

  #tell(lines, event) {
    this.readout.textContent = lines ? lines.join(" · ") : "";
    this.page.tip(event ? lines : null, event);
  }

  /** The pictures as one PNG. */
  picture() {
    const left = [[this.title.textContent, this.heatmap.canvas], ["Scores", this.scores.plot.canvas]];
    if (!this.time.node.hidden) left.push(["Through time", this.time.map.canvas]);
    const right = [[this.profile.title.textContent, this.profile.plot.canvas]];
    const headline = `${runName(this.run)}   ${this.verdict.textContent}`;
    return composed(headline, this.sentence.textContent, [
      left, [...right, ...this.layerPart.pictures()],
    ]);
  }
}
