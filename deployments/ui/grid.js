// One cell per chunk on a canvas: 10,000 cells cost one element. Arrow keys, hover and tap choose a cell.
export class Grid {
  constructor(canvas, onChoose) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.onChoose = onChoose;
    this.chunks = [];
    this.chosen = 0;
    this.dirty = new Set();
    new ResizeObserver(() => canvas.clientWidth === this.width || this.draw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    const point = (event) => this.choose(this.at(event));
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.size);
    return Math.floor((event.clientY - box.top) / this.size) * this.columns + Math.min(column, this.columns - 1);
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, Home: -1e9, End: 1e9 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.chunks.length - 1, this.chosen + steps[event.key])));
  }

  choose(index) {
    if (!this.chunks[index]) return;
    this.changed(this.chosen);
    this.chosen = index;
    this.changed(index);
    this.onChoose(this.chunks[index]);
  }

  set(chunks) {
    this.chunks = chunks;
    this.draw();
  }

  changed(index) {
    this.dirty.add(index);
    this.soon();
  }

  draw() {
    this.whole = true;
    this.soon();
  }

  soon() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.paint();
    });
  }

  paint() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    if (this.whole) this.measure(width);
    const cells = this.whole ? this.chunks.keys() : this.dirty;
    for (const index of cells) this.cell(index);
    this.whole = false;
    this.dirty.clear();
  }

  measure(width) {
    this.width = width;
    const count = this.chunks.length;
    this.size = count <= 60 ? 22 : count <= 600 ? 14 : count <= 3000 ? 8 : 5;
    this.columns = Math.max(1, Math.floor(width / this.size));
    const height = Math.ceil(count / this.columns) * this.size;
    const scale = devicePixelRatio || 1;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    this.canvas.style.height = `${height}px`;
    this.pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    this.colors = { completed: color("--accent"), failed: color("--bad"), pending: color("--wait"), cross: color("--card"), chosen: color("--ink") };
  }

  cell(index) {
    const { pen, size, colors } = this;
    const chunk = this.chunks[index];
    if (!chunk) return;
    const x = (index % this.columns) * size;
    const y = Math.floor(index / this.columns) * size;
    const side = size - (size > 8 ? 3 : 1);
    pen.clearRect(x, y, size, size);
    pen.fillStyle = colors[chunk.state] || colors.pending;
    pen.fillRect(x, y, side, side);
    pen.lineWidth = 2;
    if (chunk.state === "failed" && side > 6) {
      pen.strokeStyle = colors.cross;
      pen.beginPath();
      pen.moveTo(x + 3, y + 3);
      pen.lineTo(x + side - 3, y + side - 3);
      pen.moveTo(x + side - 3, y + 3);
      pen.lineTo(x + 3, y + side - 3);
      pen.stroke();
    }
    if (index !== this.chosen) return;
    pen.strokeStyle = colors.chosen;
    pen.strokeRect(x + 1, y + 1, side - 2, side - 2);
  }
}
