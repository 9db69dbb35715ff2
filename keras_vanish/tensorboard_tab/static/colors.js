/**
 * Colours. The map is viridis (S. van der Walt and N. Smith, 2015; CC0): its lightness grows
 * evenly, and it reads the same with any kind of colour blindness. The colours of lines and
 * verdicts are those of M. Okabe and K. Ito, "Color Universal Design", 2008.
 */

const STOPS = (
  "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e " +
  "297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 " +
  "84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
)
  .split(" ")
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** The colour at a fraction from 0 to 1, as [red, green, blue]. */
export function viridis(fraction) {
  const place = Math.min(1, Math.max(0, fraction)) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(place));
  const share = place - below;
  return STOPS[below].map((low, i) => Math.round(low + share * (STOPS[below + 1][i] - low)));
}

/** Exactly zero, and NaN or infinite: neither is a colour of the map. */
export const ZERO = [148, 150, 154];
export const NONFINITE = [213, 58, 24];

const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

const LEVELS = 512;
const TABLE = Uint32Array.from({ length: LEVELS }, (_, i) => packed(viridis(i / (LEVELS - 1))));
const PACKED_ZERO = packed(ZERO);
const PACKED_NONFINITE = packed(NONFINITE);

/** The colour of a value as a pixel of an ImageData; 0, transparent, where it is missing. */
export function pixel(value, low, high, logarithmic) {
  if (value !== value) return 0;
  if (value === Infinity) return PACKED_NONFINITE;
  if (value === -Infinity) return PACKED_ZERO;
  if (!logarithmic && value === 0) return TABLE[0];
  const level = ((value - low) / (high - low)) * (LEVELS - 1);
  return TABLE[level < 0 ? 0 : level >= LEVELS ? LEVELS - 1 : Math.round(level)];
}

export const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;

/** Lines of one plot, told apart by their lightness, too. */
export const LINES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#7a4fa3", "#b8860b", "#5a5f66"],
  dark: ["#5ab4ec", "#ff9a4d", "#3fd0a4", "#c99af0", "#e8c24a", "#aab0b8"],
};

/** By verdict, a mark that does not need its colour. */
export const VERDICTS = {
  healthy: { mark: "●", light: "#00795a", dark: "#3fd0a4" },
  vanishing: { mark: "▼", light: "#0067a3", dark: "#5ab4ec" },
  exploding: { mark: "▲", light: "#b84e00", dark: "#ff9a4d" },
  nonfinite: { mark: "✕", light: "#bd2a0f", dark: "#ff7a61" },
  unknown: { mark: "?", light: "#6b7078", dark: "#9aa0a8" },
};
