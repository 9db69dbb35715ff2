/** The tab "Gradient flow": which runs are shown, and how. TensorBoard calls `render`. */

import * as api from "./api.js";
import { clean, element } from "./elements.js";
import { exported } from "./export.js";
import { MOST_HEIGHT } from "./heatmap.js";
import { onReload, onTheme, runFilter } from "./host.js";
import { Panel } from "./panel.js";
import { chosen, choose, onChoice, start } from "./state.js";
import { Toolbar } from "./toolbar.js";

const NEWS_EVERY = 5_000;
const MOST_RUNS = 4;
const MOST_STEPS = 6;
const MOST_DECADES = 16;
/** Heights of a row; with 0 all rows are seen at once. */
const ZOOMS = [0, 2, 4, 8, 16, 24];
const [LOW_ROW, HIGH_ROW] = [22, 44];

let runs = [];
const panels = new Map();
const parts = {};

/** What panels share. */
const page = {
  chosen,
  choose,

  /** Adds a step to the chosen ones, or takes it away; `steps` are those that can be seen. */
  takeStep(step, steps) {
    const shown = (one) => steps.findLast((seen) => seen <= one) ?? steps[0];
    const others = chosen().steps.filter((one) => shown(one) !== step);
    const taken = others.length < chosen().steps.length;
    choose({ steps: taken ? others : [...others, step].slice(-MOST_STEPS) });
  },

  /** Shows lines of text at the pointer; takes them away where there are none. */
  tip(lines, event) {
    parts.tip.hidden = !lines;
    if (!lines) return;
    parts.tip.replaceChildren(...lines.map((line, i) => element(i ? "div" : "b", {}, line)));
    const { width, height } = parts.tip.getBoundingClientRect();
    const right = event.clientX + 14;
    const x = right + width > innerWidth ? event.clientX - width - 14 : right;
    const y = Math.min(event.clientY + 14, innerHeight - height - 6);
    parts.tip.style.transform = `translate(${Math.max(4, x)}px, ${y}px)`;
  },

  /** Shows lines of text below an element, until the next click. */
  note(lines, anchor) {
    const box = anchor.getBoundingClientRect();
    parts.note.replaceChildren(...lines.map((line) => element("p", {}, line)));
    parts.note.hidden = false;
    const { width } = parts.note.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, innerWidth - width - 16));
    parts.note.style.left = `${left + scrollX}px`;
    parts.note.style.top = `${box.bottom + 6 + scrollY}px`;
  },

  /** Called by a panel that has something new to draw. */
  loaded() {
    draw();
    showQuantities();
  },
};

/** The runs that are shown: those chosen, or the first two. */
function visible() {
  const names = runs.map(({ run }) => run);
  const picked = chosen().runs?.filter((run) => names.includes(run));
  if (picked?.length) return picked.slice(0, MOST_RUNS);
  const filter = runFilter();
  const matching = filter ? names.filter((name) => filter.test(name)) : names;
  return (matching.length ? matching : names).slice(0, 2);
}

function toggleRun(run) {
  const shown = visible();
  const next = shown.includes(run) ? shown.filter((one) => one !== run) : [...shown, run];
  if (next.length) choose({ runs: next.slice(-MOST_RUNS) });
}

/** One range of colours for all panels, or they could not be compared. */
function commonRange(shown) {
  const scale = shown[0]?.quantity.scale ?? "log";
  if (scale !== "log") return { low: 0, high: 1, logarithmic: false, scale };
  let [low, high] = [Infinity, -Infinity];
  for (const { data } of shown) {
    for (const value of data.values) {
      if (value < low && value > -Infinity) low = value;
      if (value > high && value < Infinity) high = value;
    }
  }
  if (low > high) [low, high] = [-1, 0];
  high = Math.ceil(high);
  low = Math.max(Math.floor(low), high - MOST_DECADES);
  return { low: Math.min(low, high - 1), high, logarithmic: true, scale };
}

function draw() {
  const shown = [...panels.values()].filter((panel) => panel.data);
  const range = commonRange(shown);
  const rows = shown.map(({ data }) => Math.max(1, data.rows));
  // Side by side, the heatmaps are as high as each other.
  const height = Math.min(MOST_HEIGHT, Math.max(0, ...rows) * LOW_ROW);
  shown.forEach((panel, place) => {
    const fitting = Math.max(1, Math.min(HIGH_ROW, height / rows[place]));
    panel.draw(range, chosen().zoom || fitting);
  });
  parts.bar.showRange(range);
}

/** Makes the panels of the visible runs, and returns them. */
function show() {
  const wanted = visible();
  for (const run of panels.keys()) if (!wanted.includes(run)) panels.delete(run);
  for (const run of wanted) if (!panels.has(run)) panels.set(run, new Panel(run, page));
  const shown = wanted.map((run) => panels.get(run));
  const there = [...parts.panels.children];
  if (there.length !== shown.length || shown.some(({ node }, i) => node !== there[i])) {
    parts.panels.replaceChildren(...shown.map(({ node }) => node));
    // Another number of panels gives each another width.
    draw();
  }
  parts.panels.dataset.count = String(wanted.length);
  parts.empty.hidden = runs.length > 0;
  parts.bar.showRuns(runs.map(({ run }) => run), wanted);
  return shown;
}

async function load(all = false) {
  const revisions = new Map(runs.map(({ run, revision }) => [run, revision]));
  const old = show().filter((panel) => all || panel.revision !== revisions.get(panel.run));
  await Promise.all(old.map((panel) => panel.load(revisions.get(panel.run))));
}

function showQuantities() {
  const known = new Map();
  for (const { about } of panels.values()) {
    for (const one of about?.quantities ?? []) known.set(one.id, one);
  }
  const inOrder = [...known.values()].sort((one, other) => one.place - other.place);
  parts.bar.showQuantities(inOrder, chosen().quantity);
}

/** Asks whether there is something new. */
async function news() {
  try {
    runs = await api.runs();
    parts.offline.hidden = true;
  } catch (error) {
    parts.offline.textContent = clean(`TensorBoard does not answer: ${error.message}`);
    parts.offline.hidden = false;
    return;
  }
  await load();
}

const act = {
  choose,
  toggleRun,
  zoom(direction) {
    const place = ZOOMS.indexOf(chosen().zoom) + direction;
    choose({ zoom: ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, place))] });
  },
  async saveTable() {
    for (const { run, quantity } of panels.values()) {
      if (quantity) exported(await api.table(run, quantity.id), run, quantity.id, "csv");
    }
  },
  async savePicture() {
    for (const panel of panels.values()) {
      if (panel.data) exported(await panel.picture(), panel.run, panel.quantity.id, "png");
    }
  },
  forget() {
    parts.note.hidden = true;
    choose({ layer: null, steps: [] });
  },
};

function build() {
  const style = element("link", { rel: "stylesheet", href: new URL("./style.css", import.meta.url) });
  const styled = new Promise((resolve) => style.addEventListener("load", resolve));
  document.head.append(style);
  parts.bar = new Toolbar(act);
  parts.panels = element("main", { class: "panels" });
  parts.tip = element("div", { class: "tip", hidden: true });
  parts.note = element("div", { class: "note", role: "status", hidden: true });
  parts.offline = element("p", { class: "error", role: "alert", hidden: true });
  const empty =
    "No gradients yet. Train with callbacks=[keras_vanish.GradientMonitor(log_dir)]: " +
    "the run appears here with its first recorded step.";
  parts.empty = element("p", { class: "empty", hidden: true }, empty);
  document.body.append(
    parts.bar.node, parts.offline, parts.empty, parts.panels, parts.tip, parts.note, parts.bar.help,
  );
  return styled;
}

/** Draws the tab; TensorBoard calls it in an empty page of its own. */
export async function render() {
  start();
  await build();
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".note, .marker")) parts.note.hidden = true;
  });
  onChoice((changed) => {
    if (changed.has("quantity")) showQuantities();
    if (changed.has("runs") || changed.has("quantity")) void load(changed.has("quantity"));
    else if (changed.has("zoom")) draw();
    else for (const panel of panels.values()) void panel.follow();
  });
  onTheme((theme) => {
    document.documentElement.dataset.theme = theme;
    draw();
    for (const panel of panels.values()) panel.say();
  });
  addEventListener("resize", () => requestAnimationFrame(draw));
  onReload(() => void news());
  // Keys work at once: whoever opened the tab has just left TensorBoard's own page.
  window.focus();
  await news();
  const later = () =>
    setTimeout(async () => {
      if (!document.hidden) await news();
      later();
    }, NEWS_EVERY);
  later();
}
