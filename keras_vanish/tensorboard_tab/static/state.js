/**
 * What the user has chosen. It stands in the address of TensorBoard's own page, in the form that
 * TensorBoard keeps for plugins, so that the address can be sent to somebody else.
 */

const PREFIX = "p.gradient_flow.";

const DEFAULTS = { runs: null, quantity: "gradient_rms", layer: null, steps: [], zoom: 0 };

const state = { ...DEFAULTS };
const listeners = [];

function page() {
  try {
    // Of another origin where somebody embeds TensorBoard: then the state is not kept.
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return window;
  }
}

function pieces() {
  return page().location.hash.replace(/^#/, "").split("&").filter(Boolean);
}

function read() {
  const found = {};
  for (const piece of pieces()) {
    const [name, value = ""] = piece.split("=");
    if (!name.startsWith(PREFIX)) continue;
    try {
      found[name.slice(PREFIX.length)] = JSON.parse(decodeURIComponent(value));
    } catch {
      // Not one of ours.
    }
  }
  const texts = (list) => Array.isArray(list) && list.every((entry) => typeof entry === "string");
  const numbers = (list) => Array.isArray(list) && list.every(Number.isFinite);
  return {
    runs: texts(found.runs) ? found.runs : DEFAULTS.runs,
    quantity: typeof found.quantity === "string" ? found.quantity : DEFAULTS.quantity,
    layer: typeof found.layer === "string" ? found.layer : DEFAULTS.layer,
    steps: numbers(found.steps) ? found.steps : DEFAULTS.steps,
    zoom: Number.isFinite(found.zoom) ? found.zoom : DEFAULTS.zoom,
  };
}

function write() {
  const others = pieces().filter((piece) => !piece.startsWith(PREFIX));
  const ours = Object.keys(DEFAULTS)
    .filter((name) => JSON.stringify(state[name]) !== JSON.stringify(DEFAULTS[name]))
    .map((name) => `${PREFIX}${name}=${encodeURIComponent(JSON.stringify(state[name]))}`);
  const hash = `#${[...others, ...ours].join("&")}`;
  // In place: every look at another layer would be a step for the button "back".
  page().history.replaceState(page().history.state, "", hash);
}

export function start() {
  Object.assign(state, read());
}

/** The state; only `choose` changes it. */
export const chosen = () => state;

export function choose(changes) {
  const changed = Object.keys(changes).filter(
    (name) => JSON.stringify(state[name]) !== JSON.stringify(changes[name]),
  );
  if (!changed.length) return;
  Object.assign(state, changes);
  write();
  for (const listener of listeners) listener(new Set(changed));
}

export function onChoice(listener) {
  listeners.push(listener);
}
