/**
 * A matrix as colours, rows by recorded steps. It is drawn once into an image of one pixel a cell
 * of the screen's width, and scrolling and zooming only copy from that.
 */

import { StepAxis, font, hatching, inks, sized } from "./canvas.js";
import { css, pixel } from "./colors.js";
import { clean, element, shortened } from "./elements.js";

/** A heatmap that is higher scrolls. */
export const MOST_HEIGHT = 460;
const RIGHT = 10;
const GROUP = 16;

export class Heatmap {
  /**
   * `listeners` are `over(cell, event)`, with null where the pointer leaves, and
   * `choose(cell, event)`; a cell is {row, column}, either -1 where it is none.
   */
  constructor({ label, upward, listeners }) {
    this.upward = upward;
    this.listeners = listeners;
    this.data = null;
    this.marks = { row: -1, lines: [] };
    this.hover = null;
    this.canvas = element("canvas", { tabindex: "0", role: "application", "aria-label": label });
    this.spacer = element("div", { class: "spacer" }, this.canvas);
    this.node = element("div", { class: "heatmap" }, this.spacer);
    this.node.addEventListener("scroll", () => this.later());
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.at(null));
    this.canvas.addEventListener("click", (event) => listeners.choose(this.#cell(event), event));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.canvas.addEventListener("blur", () => this.at(null));
  }

  /**
   * Takes a matrix. `labels` name its rows, the first at the bottom where `upward`, and `blocks`
   * are as in `blocksOf`; a row is `row` pixels high; `line` is the horizon by column.
   */
  show({ data, labels, blocks = [], range, gutter, row, line }) {
    const first = !this.data;
    Object.assign(this, { data, labels, blocks, range, gutter, row, line });
    this.width = this.node.clientWidth || 600;
    this.content = Math.max(1, Math.round(this.row * data.rows));
    this.height = Math.min(this.content, MOST_HEIGHT);
    this.node.style.height = `${this.height}px`;
    this.spacer.style.height = `${this.content}px`;
    this.axis = new StepAxis(data.steps, gutter, this.width - RIGHT);
    this.#paint();
    if (first && this.upward) this.node.scrollTop = this.content;
    this.draw();
  }

  /** Marks a row, and columns: `lines` are {step, color}. */
  mark(marks) {
    this.marks = marks;
    this.later();
  }

  /** Puts the crosshair on a cell, or takes it away. */
  at(cell) {
    this.hover = cell;
    this.listeners.over(cell, null);
    this.later();
  }

  later() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  #paint() {
    const { rows, columns, values } = this.data;
    const width = Math.max(1, Math.round((this.axis.right - this.axis.left) * (devicePixelRatio || 1)));
    const scale = (this.axis.right - this.axis.left) / width;
    const columnAt = Int32Array.from({ length: width }, (_, x) =>
      this.axis.column(this.axis.left + (x + 0.5) * scale),
    );
    this.image = this.image ?? document.createElement("canvas");
    this.image.width = width;
    this.image.height = Math.max(1, rows);
    const pen = this.image.getContext("2d");
    const picture = pen.createImageData(width, Math.max(1, rows));
    const pixels = new Uint32Array(picture.data.buffer);
    const colors = new Uint32Array(columns);
    const { low, high, logarithmic } = this.range;
    for (let row = 0; row < rows; row++) {
      for (let c = 0; c < columns; c++) {
        colors[c] = pixel(values[row * columns + c], low, high, logarithmic);
      }
      const start = (this.upward ? rows - 1 - row : row) * width;
      for (let x = 0; x < width; x++) pixels[start + x] = colors[columnAt[x]];
    }
    pen.putImageData(picture, 0, 0);
  }

  /** The top of a row in the canvas. */
  #top(row) {
    const place = this.upward ? this.data.rows - 1 - row : row;
    return place * this.row - this.node.scrollTop;
  }

  draw() {
    if (!this.data) return;
    const colors = inks();
    const context = sized(this.canvas, this.width, this.height);
    const { left, right } = this.axis;
    context.fillStyle = hatching(context, colors);
    context.fillRect(left, 0, right - left, this.height);
    context.imageSmoothingEnabled = false;
    const from = this.node.scrollTop / this.row;
    const rows = this.height / this.row;
    context.drawImage(
      this.image, 0, from, this.image.width, rows, left, 0, right - left, this.height,
    );
    if (this.row >= 13) {
      context.fillStyle = colors.ground;
      for (let row = 0; row < this.data.rows; row++) {
        context.fillRect(left, this.#top(row) - 0.5, right - left, 1);
      }
    }
    this.#label(context, colors);
    if (this.line) this.#horizon(context);
    this.#mark(context, colors);
  }

  #label(context, colors) {
    const stride = Math.max(1, Math.ceil(13 / this.row));
    const room = this.blocks.length ? this.gutter - GROUP - 8 : this.gutter - 8;
    context.textAlign = "right";
    const within = (y) => y > 5 && y < this.height - 5;
    const letters = Math.floor(room / 6);
    const grouped = this.blocks.length && stride > 1;
    for (let row = 0; row < this.data.rows && !grouped; row++) {
      const y = this.#top(row) + this.row / 2;
      const chosen = row === this.marks.row;
      if ((row % stride && !chosen) || !within(y)) continue;
      context.font = font(11, chosen ? 600 : 400);
      context.fillStyle = chosen ? colors.text : colors.quiet;
      context.fillText(shortened(clean(this.labels[row]), letters), this.gutter - 7, y, room);
    }
    let free = Infinity;
    for (const one of this.blocks) {
      const [top, bottom] = [this.#top(one.to) + 1, this.#top(one.from) + this.row - 1];
      if (bottom < 0 || top > this.height) continue;
      context.fillStyle = colors.rule;
      const edge = grouped ? this.gutter - 5 : GROUP - 3;
      context.fillRect(edge, top, 2, Math.max(1, bottom - top));
      const middle = (Math.max(0, top) + Math.min(this.height, bottom)) / 2;
      context.fillStyle = colors.quiet;
      context.font = font(11);
      if (grouped) {
        if (middle > free - 13 || !within(middle)) continue;
        free = middle;
        context.fillText(shortened(clean(one.name), Math.floor(this.gutter / 6.4)), this.gutter - 10, middle);
      } else if (bottom - top > 30) {
        context.save();
        context.translate(GROUP / 2 - 1, middle);
        context.rotate(-Math.PI / 2);
        context.textAlign = "center";
        const room = Math.min(this.height, bottom) - Math.max(0, top);
        context.fillText(shortened(clean(one.name), Math.max(3, Math.floor(room / 5.2))), 0, 0, room);
        context.restore();
      }
    }
  }

  #horizon(context) {
    const { steps } = this.data;
    for (const [color, width] of [["#000000", 4], ["#ffffff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.globalAlpha = color === "#000000" ? 0.55 : 1;
      context.beginPath();
      let open = false;
      steps.forEach((step, column) => {
        const value = this.line[column];
        if (value == null) {
          open = false;
          return;
        }
        const place = this.data.back.filter((back) => back <= value).length;
        const y = Math.min(this.height - 1, place * this.row);
        const next = column + 1 < steps.length ? steps[column + 1] : this.axis.end;
        context[open ? "lineTo" : "moveTo"](this.axis.x(step), y);
        context.lineTo(this.axis.x(next), y);
        open = true;
      });
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  #mark(context, colors) {
    const { left, right } = this.axis;
    for (const { step, color } of this.marks.lines) {
      const x = this.axis.x(step);
      if (x < left || x > right) continue;
      context.fillStyle = colors.ground;
      context.fillRect(x - 1.5, 0, 4, this.height);
      context.fillStyle = color;
      context.fillRect(x - 0.5, 0, 2, this.height);
    }
    const outline = (row, color) => {
      const top = this.#top(row);
      context.strokeStyle = color;
      context.lineWidth = 1.5;
      context.strokeRect(left - 0.75, top, right - left + 1.5, Math.max(this.row, 3));
    };
    if (this.marks.row >= 0) outline(this.marks.row, colors.text);
    if (this.hover && this.hover.row >= 0) outline(this.hover.row, css([255, 255, 255]));
    if (this.hover && this.hover.column >= 0) {
      context.fillStyle = "rgba(255, 255, 255, 0.75)";
      context.fillRect(this.axis.x(this.data.steps[this.hover.column]), 0, 1.5, this.height);
    }
  }

  #cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = Math.floor((event.clientY - box.top + this.node.scrollTop) / this.row);
    const inside = this.data && place >= 0 && place < this.data.rows;
    return {
      row: inside ? (this.upward ? this.data.rows - 1 - place : place) : -1,
      column: this.axis ? this.axis.column(event.clientX - box.left) : -1,
    };
  }

  #point(event) {
    this.hover = this.#cell(event);
    this.listeners.over(this.hover, event);
    this.later();
  }

  #key(event) {
    const { rows, columns } = this.data ?? { rows: 0, columns: 0 };
    const up = this.upward ? 1 : -1;
    const far = event.shiftKey ? 10 : 1;
    const moves = {
      ArrowUp: [up * far, 0],
      ArrowDown: [-up * far, 0],
      ArrowLeft: [0, -far],
      ArrowRight: [0, far],
    };
    if (event.key in moves && rows) {
      const here = this.hover ?? { row: Math.max(0, this.marks.row), column: columns - 1 };
      const bound = (value, most) => Math.max(0, Math.min(most - 1, value));
      const [y, x] = this.hover ? moves[event.key] : [0, 0];
      const cell = { row: bound(here.row + y, rows), column: bound(here.column + x, columns) };
      const top = this.#top(cell.row);
      if (top < 0) this.node.scrollTop += top;
      if (top + this.row > this.height) this.node.scrollTop += top + this.row - this.height;
      this.at(cell);
    } else if ((event.key === "Enter" || event.key === " ") && this.hover) {
      this.listeners.choose(this.hover, event);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
