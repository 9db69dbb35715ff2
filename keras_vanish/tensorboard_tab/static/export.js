/** Files for the user: a run's pictures as one PNG. */

import { font, inks } from "./canvas.js";
import { download, runName, shortened } from "./elements.js";

const MARGIN = 24;
const HEAD = 64;
const TITLE = 26;

/** Saves a file that is named for the run and the quantity in it. */
export function exported(blob, run, quantity, ending) {
  const safe = runName(run).replace(/[^\p{L}\p{N}.-]+/gu, "_").slice(0, 80);
  download(blob, `${safe || "run"}_${quantity}.${ending}`);
}

/** One picture of columns of [title, canvas], below a headline and a sentence. */
export function composed(headline, sentence, columns) {
  const ratio = window.devicePixelRatio || 1;
  const width = (canvas) => canvas.width / ratio;
  const height = (canvas) => canvas.height / ratio;
  const widths = columns.map((column) => Math.max(...column.map(([, c]) => width(c)), 0));
  const heights = columns.map((column) => column.reduce((sum, [, c]) => sum + TITLE + height(c), 0));
  const sheet = document.createElement("canvas");
  sheet.width = (MARGIN + widths.reduce((sum, one) => sum + one + MARGIN, 0)) * ratio;
  sheet.height = (HEAD + Math.max(...heights) + 2 * MARGIN) * ratio;
  const context = sheet.getContext("2d");
  const colors = inks();
  context.scale(ratio, ratio);
  context.fillStyle = colors.ground;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.fillStyle = colors.text;
  context.font = font(18, 600);
  context.fillText(shortened(headline, 90), MARGIN, MARGIN + 14);
  context.font = font(13);
  context.fillText(shortened(sentence, 160), MARGIN, MARGIN + 38);
  let left = MARGIN;
  columns.forEach((column, place) => {
    let top = MARGIN + HEAD;
    for (const [title, canvas] of column) {
      context.font = font(12, 600);
      context.fillText(shortened(title, 80), left, top + 12);
      context.drawImage(canvas, left, top + TITLE, width(canvas), height(canvas));
      top += TITLE + height(canvas);
    }
    left += widths[place] + MARGIN;
  });
  return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
}
