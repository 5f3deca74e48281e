// What all live explorers share: colours, boxes, assignments, packed numbers, and the frame around the pictures.
// No framework, nothing fetched. The same file serves JupyterLab (anywidget), the site, and `import`.

// ---------------------------------------------------------------- colours

export const COLOURS = ["#2678D1", "#E0660B", "#17915A", "#D42E72", "#8757E8", "#0B8F9C", "#A87A00", "#D3352B", "#95613A", "#5F8F1A", "#C753B0", "#64748B"];  // as in nanodetr.plots
export const INK = "#1F2430", LIT = "#E0660B", CELL = "#7CE0FF";

export const colourOf = i => COLOURS[i % COLOURS.length];

// a colour map from evenly spaced stops: 0..1 -> [red, green, blue] in 0..255
export function ramp(stops) {
  const colours = stops.map(s => [1, 3, 5].map(k => parseInt(s.slice(k, k + 2), 16)));
  return t => {
    const x = Math.min(Math.max(t, 0), 1) * (colours.length - 1), k = Math.min(Math.floor(x), colours.length - 2);
    return colours[k].map((c, i) => Math.round(c + (x - k) * (colours[k + 1][i] - c)));
  };
}
export const HEAT = ramp(["#0B1026", "#5B1E6B", "#C5384F", "#F58A2A", "#FFE68A"]);  // bright is large
export const COST = ramp(["#123A5E", "#2C7BA0", "#86BFCB", "#D6E7E8", "#F4F4EF"]);  // dark is cheap
export const rgb = hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16));
export const css = ([r, g, b], alpha = 1) => `rgba(${r},${g},${b},${alpha})`;

// relative luminance (WCAG) of [red, green, blue]
export function luminance(colour) {
  const [r, g, b] = colour.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
export const textOn = colour => luminance(colour) < 0.3 ? "#fff" : INK;  // white or ink, whichever reads better on it

// ---------------------------------------------------------------- boxes

export const corners = ([x, y, w, h]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2];  // cxcywh -> xyxy
export const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);

function overlap(a, b) {  // shared area, area of the union
  const shared = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return [shared, area(a) + area(b) - shared];
}

// intersection over union of two xyxy boxes
export function iou(a, b) {
  const [shared, union] = overlap(a, b);
  return union > 0 ? shared / union : 0;
}

// generalised IoU of two xyxy boxes
export function giou(a, b) {
  const [shared, union] = overlap(a, b);
  const hull = area([Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])]);
  return (union > 0 ? shared / union : 0) - (hull > 0 ? (hull - union) / hull : 0);
}

// ---------------------------------------------------------------- assignments

// The Hungarian algorithm with prices (potentials): objects are inserted one after the other, each along the cheapest chain
// of moves. cost: Q rows of N numbers, N <= Q -> for each object its query. About N^2 Q steps.
export function assign(cost) {
  const queries = cost.length, objects = queries ? cost[0].length : 0;
  const u = Array(objects + 1).fill(0), v = Array(queries + 1).fill(0), owner = Array(queries + 1).fill(0);
  for (let object = 1; object <= objects; object++) {
    const least = Array(queries + 1).fill(Infinity), from = Array(queries + 1).fill(0), done = Array(queries + 1).fill(false);
    let query = 0;
    owner[0] = object;
    do {  // Dijkstra over queries, on costs reduced by the prices
      done[query] = true;
      let step = Infinity, next = 0;
      for (let q = 1; q <= queries; q++) {
        if (done[q]) continue;
        const reduced = cost[q - 1][owner[query] - 1] - u[owner[query]] - v[q];
        if (reduced < least[q]) least[q] = reduced, from[q] = query;
        if (least[q] < step) step = least[q], next = q;
      }
      for (let q = 0; q <= queries; q++) {
        if (done[q]) u[owner[q]] += step, v[q] -= step;
        else least[q] -= step;
      }
      query = next;
    } while (owner[query]);
    for (; query; query = from[query]) owner[query] = owner[from[query]];  // everybody on the chain moves by one
  }
  const answer = Array(objects);
  owner.forEach((object, q) => { if (q && object) answer[object - 1] = q - 1; });
  return answer;
}

// the cheapest cell, cross out its row and column, repeat: pairs [query, object] in the order in which they are taken
export function greedyPairs(cost) {
  const cells = cost.flatMap((row, q) => row.map((value, t) => [value, q, t])).sort((a, b) => a[0] - b[0]);
  const pairs = [], rows = new Set(), columns = new Set();
  for (const [, q, t] of cells) if (!rows.has(q) && !columns.has(t)) rows.add(q), columns.add(t), pairs.push([q, t]);
  return pairs;
}

// the same as `assign` gives it: for each object its query
export function greedy(cost) {
  const answer = Array(cost.length ? cost[0].length : 0).fill(-1);
  for (const [q, t] of greedyPairs(cost)) answer[t] = q;
  return answer;
}

export const total = (cost, answer) => answer.reduce((sum, q, t) => sum + cost[q][t], 0);

// the least total in which `query` must answer for `object`
export function forcedTotal(cost, query, object) {
  const rest = cost.filter((_, q) => q !== query).map(row => row.filter((_, t) => t !== object));
  return cost[query][object] + (rest.length && rest[0].length ? total(rest, assign(rest)) : 0);
}

// The three parts of the cost of every pair, without their weights: Q rows of N times [-p(class), L1, -GIoU].
// probs: Q rows of C+1 numbers; boxes, objects: cxcywh in 0..1; labels: one for each object.
export function costParts(probs, boxes, labels, objects) {
  return boxes.map((box, q) => objects.map((object, t) => [
    -probs[q][labels[t]],
    box.reduce((sum, x, k) => sum + Math.abs(x - object[k]), 0),
    -giou(corners(box), corners(object))]));
}

// ---------------------------------------------------------------- numbers and words

// What nanodetr.explorers.core.packed packs, a Float32Array: rows of `columns` numbers, each a share of its row's largest.
// whole: each row adds up to 1, as attention does (or is all 0), so that rounding does not add up.
export function unpacked({top, columns, letters, text}, whole = false) {
  const values = new Float32Array(text.length / letters), most = 64 ** letters - 1;
  const digit = c => c > 96 ? c - 71 : c > 64 ? c - 65 : c > 47 ? c + 4 : c === 43 ? 62 : 63;  // the letters of base64
  for (let i = 0, at = 0; i < values.length; i++) {
    let number = 0;
    for (let k = 0; k < letters; k++) number = 64 * number + digit(text.charCodeAt(at++));
    values[i] = number / most * top[Math.floor(i / columns)];
  }
  if (whole) for (let from = 0; from < values.length; from += columns) {
    const row = values.subarray(from, from + columns), sum = row.reduce((a, b) => a + b, 0);
    if (sum) for (let i = 0; i < columns; i++) row[i] /= sum;
  }
  return values;
}

export const number = (x, digits = 2) => (Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x).toFixed(digits).replace("-", "\u2212");
export const percent = x => `${Math.round(100 * x)}\u00a0%`;
export const letter = t => t < 26 ? String.fromCharCode(65 + t) : String(t);
export const list = words => words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}` : words.join("");
export const argmax = values => values.reduce((best, x, i) => x > values[best] ? i : best, 0);
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

// ---------------------------------------------------------------- drawing

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
export const font = (size, weight = 400) => `${weight} ${size}px ${FONT}`;

export function write(context, text, x, y, {size = 12, weight = 400, colour = INK, align = "left", base = "middle"} = {}) {
  context.font = font(size, weight), context.fillStyle = colour, context.textAlign = align, context.textBaseline = base;
  context.fillText(text, x, y);
}

export function roundBox(context, x, y, width, height, radius) {
  context.beginPath();
  if (context.roundRect) context.roundRect(x, y, width, height, Math.max(0, Math.min(radius, width / 2, height / 2)));
  else context.rect(x, y, width, height);
}

// an outline with a halo, so that it shows on any picture; box: xyxy in CSS pixels
export function outline(context, [x0, y0, x1, y1], colour, {width = 2, dash = [], halo = "rgba(255,255,255,.9)", alpha = 1} = {}) {
  context.save();
  context.globalAlpha = alpha, context.lineJoin = "round";
  if (halo) context.strokeStyle = halo, context.lineWidth = width + 2, context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeStyle = colour, context.lineWidth = width, context.setLineDash(dash);
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.restore();
}

// a line with a halo from the middle of one xyxy box to the middle of another
export function link(context, a, b, colour, alpha = 1) {
  const ends = [a, b].map(([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2]);
  context.save();
  context.globalAlpha = alpha;
  for (const [style, width] of [["rgba(255,255,255,.9)", 3.6], [colour, 1.8]]) {
    context.strokeStyle = context.fillStyle = style, context.lineWidth = width;
    context.beginPath(), context.moveTo(...ends[0]), context.lineTo(...ends[1]), context.stroke();
    context.beginPath(), context.arc(...ends[0], width + 1, 0, 7), context.fill();
  }
  context.restore();
}

// Small filled labels at the corners of their boxes, each where it covers least of the others and of the picture's rim.
// labels: [{text, box (xyxy), fill, ink}], the important ones first; one with `faint` is left out where there is no room.
// avoid: boxes that they should not cover. Where all corners are taken, labels stand in a pile.
export function labels(context, wanted, width, height, size = 11, avoid = []) {
  const placed = [...avoid], high = size + 5;
  context.font = font(size, 600);
  const shared = (a, b) => area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  for (const {text, box, fill, ink, faint} of wanted) {
    const [x0, y0, x1, y1] = box;
    const wide = context.measureText(text).width + 8;
    const above = [[x0, y0 - high], [x1 - wide, y0 - high]], below = [[x0, y1], [x1 - wide, y1]], inside = [[x0, y0], [x1 - wide, y0]];
    const roomy = x1 - x0 > 1.6 * wide && y1 - y0 > 3 * high;  // a large box can hold its own label
    const spots = [...above, ...(roomy ? [...inside, ...below] : [...below, ...inside]), [x1, y0], [x0 - wide, y0], [x1, y1 - high], [x0 - wide, y1 - high], [x0, y1 - high]], near = spots.length;
    for (let k = 1; k <= (faint ? 0 : Math.min(wanted.length, height / high)); k++) for (const x of [x0, x1 - wide]) spots.push([x, y0 - high - k * (high + 1)], [x, y1 + k * (high + 1)], [x, y1 - high - k * (high + 1)]);
    const badness = ([x, y]) => {
      const spill = Math.max(0, -x) + Math.max(0, -y) + Math.max(0, x + wide - width) + Math.max(0, y + high - height);
      return 40 * spill + placed.reduce((sum, p) => sum + shared([x, y, x + wide, y + high], p), 0);
    };
    const astray = ([x, y]) => wanted.reduce((sum, other) => sum + (other.box === box ? 0 : shared([x, y, x + wide, y + high], other.box)), 0);  // on what is not its own
    const bad = spots.map(badness), worse = spots.map((spot, k) => bad[k] + 0.1 * astray(spot) + (k < near ? 0 : 0.2 * wide * high + k)), best = worse.indexOf(Math.min(...worse));
    if (faint && bad[best] > 0) continue;
    const x = clamp(spots[best][0], 0, Math.max(0, width - wide)), y = clamp(spots[best][1], 0, Math.max(0, height - high));
    placed.push([x, y, x + wide, y + high]);
    context.fillStyle = fill, roundBox(context, x, y, wide, high, 3), context.fill();
    context.strokeStyle = "rgba(255,255,255,.85)", context.lineWidth = 1, context.stroke();
    write(context, text, x + wide / 2, y + high / 2 + 0.5, {size, weight: 600, colour: ink || textOn(rgb(fill)), align: "center"});
  }
}

export function loadImage(address) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image), image.onerror = () => fail(new Error("a picture of the explorer cannot be read")), image.src = address;
  });
}

// the picture, its pixels as they are
export function photo(context, image, x, y, width, height, dim = 0) {
  context.imageSmoothingEnabled = width < image.width;
  context.drawImage(image, x, y, width, height);
  if (dim) context.fillStyle = `rgba(8,10,20,${dim})`, context.fillRect(x, y, width, height);
}

// ---------------------------------------------------------------- attention maps

// weights (layers*heads, N, N) of one view, as one Float32Array; the row of one cell in one map
export const rowOf = (weights, cells, map, cell) => weights.subarray((map * cells + cell) * cells, (map * cells + cell + 1) * cells);

// Whether the middle of each cell lies in an xyxy box in pixels: rows*columns truths. The cell under the box's middle always counts.
// view: {rows, columns, height, width} of the canvas that the model saw.
export function cellsIn([x0, y0, x1, y1], view) {
  const row = clamp(Math.floor((y0 + y1) / 2 * view.rows / view.height), 0, view.rows - 1);
  const column = clamp(Math.floor((x0 + x1) / 2 * view.columns / view.width), 0, view.columns - 1);
  return Array.from({length: view.rows * view.columns}, (_, i) => {
    const x = (i % view.columns + 0.5) * view.width / view.columns, y = (Math.floor(i / view.columns) + 0.5) * view.height / view.rows;
    return i === row * view.columns + column || (x0 < x && x < x1 && y0 < y && y < y1);
  });
}

let small = null;  // one canvas for all maps, a pixel for each cell

// a map of weights over a dimmed picture; smooth: the cells blend into one another
export function drawMap(context, image, view, weights, x, y, width, {smooth = true, picture = null} = {}) {
  const height = width * view.height / view.width, most = Math.max(...weights, 1e-9);
  context.save();
  context.beginPath(), context.rect(x, y, width, height), context.clip();
  const [high, wide] = picture || [view.height, view.width];
  context.fillStyle = "#8b93a3", context.fillRect(x, y, width, height);
  photo(context, image, x, y, width * wide / view.width, height * high / view.height, 0.55);
  if (picture) context.fillStyle = "rgba(8,10,20,.25)", context.fillRect(x, y, width, height);
  const heat = new ImageData(view.columns, view.rows);
  weights.forEach((value, i) => {
    const bright = Math.sqrt(value / most);
    heat.data.set([...HEAT(bright), 255 * (0.06 + 0.88 * bright ** 1.1)], 4 * i);
  });
  small ||= document.createElement("canvas");
  if (small.width !== view.columns || small.height !== view.rows) small.width = view.columns, small.height = view.rows;
  small.getContext("2d", {willReadFrequently: true}).putImageData(heat, 0, 0);
  context.imageSmoothingEnabled = smooth, context.imageSmoothingQuality = "high";
  context.drawImage(small, x, y, width, height);
  context.restore();
  return [most, height];
}

// ---------------------------------------------------------------- the frame around the pictures

const STYLE = `
.ndx { --ink: var(--jp-ui-font-color1, var(--md-default-fg-color, var(--vscode-editor-foreground, var(--colab-primary-text-color, CanvasText))));
  --ground: var(--jp-layout-color1, var(--md-default-bg-color, var(--vscode-editor-background, var(--colab-primary-surface-color, Canvas))));
  --lit: #E0660B; --soft: color-mix(in srgb, var(--ink) 8%, transparent); --rule: color-mix(in srgb, var(--ink) 22%, transparent);
  --quiet: color-mix(in srgb, var(--ink) 70%, transparent);
  color: var(--ink); font: 13px/1.45 ${FONT}; max-width: 960px; padding: 4px 2px; box-sizing: border-box; text-align: left; }
.ndx *, .ndx *::before { box-sizing: border-box; }
.ndx-row { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; margin: 0 0 10px; }
.ndx-control { display: flex; align-items: center; gap: 8px; border: 0; padding: 0; margin: 0; min-width: 0; max-width: 100%; }
.ndx-name { color: var(--quiet); white-space: nowrap; }
.ndx-pills { display: inline-flex; flex-wrap: wrap; background: var(--soft); border-radius: 7px; padding: 2px; gap: 1px; }
.ndx-pills label { position: relative; cursor: pointer; }
.ndx-pills input { position: absolute; opacity: 0; inset: 0; margin: 0; cursor: pointer; width: 100%; height: 100%; }
.ndx-pills span { display: block; padding: 3px 9px; border-radius: 5px; white-space: nowrap; min-height: 26px; }
.ndx-pills img { display: block; width: 34px; height: 34px; object-fit: cover; border-radius: 4px; opacity: .65; image-rendering: pixelated; }
.ndx-pills .ndx-thumb { padding: 2px; }
.ndx-pills input:checked + span { background: var(--ground); box-shadow: 0 1px 3px rgba(0,0,0,.28); font-weight: 600; }
.ndx-pills input:checked + .ndx-thumb { background: var(--lit); }
.ndx-pills input:checked + .ndx-thumb img { opacity: 1; }
.ndx-pills input:focus-visible + span { outline: 2px solid var(--lit); outline-offset: 1px; }
.ndx input[type=range] { width: 118px; min-width: 70px; accent-color: var(--lit); margin: 0; height: 26px; cursor: pointer; touch-action: pan-y; }
.ndx-control.ndx-wide { flex: 1 1 230px; } .ndx-control.ndx-wide input[type=range] { flex: 1; }
.ndx output { min-width: 2.4em; font-variant-numeric: tabular-nums; font-weight: 600; }
.ndx input[type=checkbox] { accent-color: var(--lit); width: 16px; height: 16px; margin: 0; }
.ndx button { font: inherit; color: inherit; background: var(--soft); border: 0; border-radius: 7px; padding: 4px 11px; min-height: 30px; cursor: pointer; }
.ndx button:hover { background: var(--rule); }
.ndx button[aria-pressed=true] { background: var(--lit); color: #fff; }
.ndx :focus-visible { outline: 2px solid var(--lit); outline-offset: 2px; }
.ndx-main { display: grid; gap: 16px; align-items: start; }
.ndx-cell { min-width: 0; }
.ndx-head { font-weight: 650; margin: 0 0 5px; display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; }
.ndx-head small { font-weight: 400; font-size: 11.5px; color: var(--quiet); flex: 1 0 100%; min-height: 1.45em; opacity: 1; }
.ndx canvas { display: block; width: 100%; border-radius: 5px; max-width: none; }
.ndx canvas[tabindex] { cursor: crosshair; touch-action: pan-y; }
.ndx-said { margin: 10px 0 0; min-height: 4.4em; line-height: 1.45; } .ndx-said b { font-weight: 650; }
.ndx-hint { margin: 4px 0 0; min-height: 1.45em; font-size: 12px; color: var(--quiet); font-variant-numeric: tabular-nums; }
.ndx-wait { padding: 2em; color: var(--quiet); text-align: center; }
.ndx.ndx-narrow .ndx-main { grid-template-columns: minmax(0, 1fr) !important; }
.ndx.ndx-narrow .ndx-said { min-height: 7.4em; } .ndx.ndx-narrow .ndx-hint { min-height: 2.9em; }
.ndx.ndx-narrow .ndx-control { flex: 1 1 auto; } .ndx.ndx-narrow input[type=range] { flex: 1; }
`;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  // Lumino, under JupyterLab, takes letters and arrows for shortcuts (x cuts a cell), unless what has the focus says no
  if (["input", "button", "canvas"].includes(tag)) made.setAttribute("data-lm-suppress-shortcuts", "true");
  made.append(...children);
  return made;
}

const ARROWS = {ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0]};
let made = 0;

// An explorer's frame: state, controls, canvases, a sentence. It redraws when something changes, at most once a frame.
//   name: its class and data-explorer; state: {key: value}; changed: told {key: value} whenever a hand moved something
// Afterwards: .state, .hover, .set(patch), .redraw(), .root; the state stands in data-attributes of the root as well.
export class Frame {
  constructor(place, name, state, changed = () => {}) {
    this.state = {...state}, this.changed = changed, this.hover = null, this.syncs = [], this.surfaces = [];
    this.draw = () => {}, this.clean = state => state;
    this.root = element("div", {className: `ndx ndx-${name}`, "data-explorer": name});
    this.row = element("div", {className: "ndx-row"});
    this.main = element("div", {className: "ndx-main"});
    this.said = element("p", {className: "ndx-said", "data-name": "sentence", "aria-live": "polite"});
    this.hint = element("p", {className: "ndx-hint", "data-name": "hint"});
    this.root.append(element("style", {textContent: STYLE}), this.row, this.main, this.hint, this.said);
    place.append(this.root);
    this.id = `ndx${++made}`;
  }

  // everything is in its place: draw, and follow what happens around
  start(draw, clean = state => state) {
    this.draw = draw, this.clean = clean;
    this.state = clean({...this.state});
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(this.root);
    const again = () => this.later();
    this.themes = new MutationObserver(again);
    for (const node of [document.documentElement, document.body]) this.themes.observe(node, {attributes: true});
    this.media = matchMedia("(prefers-color-scheme: dark)");
    this.media.addEventListener("change", again);
    this.redraw();
    this.root.dataset.ready = "true";
    this.root.explorer = this;
    return this;
  }

  destroy() {
    this.resized?.disconnect(), this.themes?.disconnect();
    cancelAnimationFrame(this.waiting);
    this.root.remove();
  }

  set(patch, told = true) {
    const next = this.clean({...this.state, ...patch}), news = {};
    for (const key of Object.keys(next)) if (next[key] !== this.state[key]) news[key] = next[key];
    this.state = next;
    if (!Object.keys(news).length) return;
    this.later();
    if (told) this.changed(news);
  }

  over(target) {  // what the pointer is on; null: nothing
    if (JSON.stringify(target) === JSON.stringify(this.hover)) return;
    this.hover = target;
    this.later();
  }

  later() {
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => this.redraw());
  }

  redraw() {
    const width = this.root.clientWidth;
    if (!width) return;  // not on the page yet
    this.root.classList.toggle("ndx-narrow", width < 600);
    const ink = getComputedStyle(this.root).color.match(/[\d.]+/g).map(Number);
    const scale = getComputedStyle(this.root).color.startsWith("color(") ? 255 : 1;  // color(srgb 0.1 0.2 0.3)
    const solid = ink.slice(0, 3).map(c => c * scale);
    this.dark = luminance(solid) > 0.4;
    const say = alpha => css(solid.map(Math.round), alpha);
    this.ink = this.dark ? "#E8EAF0" : INK, this.quiet = this.dark ? "#A6ADBB" : "#5D6779", this.rule = say(0.18), this.soft = say(0.07);
    for (const sync of this.syncs) sync(this.state);
    for (const [key, value] of Object.entries(this.state)) this.root.dataset[key.replace(/_(\w)/g, (_, c) => c.toUpperCase()).replace(/_/g, "")] = value;
    this.root.dataset.hover = this.hover === null ? "" : JSON.stringify(this.hover);
    this.draw(this.state, this.hover);
  }

  say(text) { if (this.said.textContent !== text) this.said.textContent = text; }
  tell(text) { if (this.hint.textContent !== text) this.hint.textContent = text; }

  control(label, part, wide = false) {
    const control = element("div", {className: `ndx-control${wide ? " ndx-wide" : ""}`}, element("span", {className: "ndx-name", textContent: label}), ...part);
    this.row.append(control);
    return control;
  }

  // one of a few; options: [text or image address, value] pairs; pictures: they are thumbnails, and `texts` names them
  pills(key, label, options, {pictures = false, texts = []} = {}) {
    const group = element("div", {className: "ndx-pills", role: "radiogroup", "aria-label": label});
    const inputs = options.map(([text, value], k) => {
      const input = element("input", {type: "radio", name: `${this.id}-${key}`, value: String(value), "aria-label": pictures ? texts[k] : text, "data-key": key});
      const face = element("span", {className: pictures ? "ndx-thumb" : ""}, pictures ? element("img", {src: text, alt: ""}) : text);
      group.append(element("label", {title: pictures ? texts[k] : ""}, input, face));
      input.addEventListener("change", () => this.set({[key]: value}));
      return [input, value];
    });
    this.syncs.push(state => { for (const [input, value] of inputs) input.checked = state[key] === value; });
    return this.control(label, [group]);
  }

  // a slider; names: what its places are called (then it runs over their numbers); values: what its places stand for
  range(key, label, low, high, step = 1, {names = null, wide = false, show = String, values = null} = {}) {
    const input = element("input", {type: "range", min: low, max: high, step, "aria-label": label, "data-key": key});
    const output = element("output", {}), text = value => names ? names[value] : show(value);
    if (names) output.style.minWidth = `${Math.max(...names.map(name => name.length)) * 0.55 + 0.5}em`;
    input.addEventListener("input", () => this.set({[key]: values ? values[input.value] : Number(input.value)}));
    this.syncs.push(state => {
      const at = values ? values.indexOf(state[key]) : state[key];
      if (input.value !== String(at)) input.value = at;
      output.textContent = text(state[key]), input.setAttribute("aria-valuetext", text(state[key]));
    });
    const control = this.control(label, [input, output], wide);
    control.input = input;
    return control;
  }

  check(key, label) {
    const input = element("input", {type: "checkbox", "data-key": key});
    const control = element("label", {className: "ndx-control", style: "cursor:pointer"}, input, element("span", {textContent: label}));
    input.addEventListener("change", () => this.set({[key]: input.checked}));
    this.syncs.push(state => { input.checked = state[key]; });
    this.row.append(control);
    return control;
  }

  button(text, press) {
    const button = element("button", {type: "button", textContent: text});
    button.addEventListener("click", () => press(button));
    this.row.append(button);
    return button;
  }

  // a panel with a heading: .canvas, .begin(height) -> [context, width, height], .title(text, note)
  panel(name, parent = this.main) {
    const head = element("div", {className: "ndx-head"}), canvas = element("canvas", {"data-name": name, role: "img"});
    const cell = element("div", {className: "ndx-cell"}, head, canvas);
    parent.append(cell);
    const panel = {cell, canvas, head};
    panel.title = (text, note = "") => {
      if (head.dataset.text === text + note) return;
      head.dataset.text = text + note;
      head.replaceChildren(element("span", {textContent: text}), element("small", {textContent: note}));
    };
    panel.begin = height => {
      const width = cell.clientWidth || 200, tall = typeof height === "function" ? height(width) : height, ratio = window.devicePixelRatio || 1;
      const pixels = [Math.round(width * ratio), Math.round(tall * ratio)];
      if (canvas.style.height !== `${tall}px`) canvas.style.height = `${tall}px`;
      if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
      const context = canvas.getContext("2d");
      context.setTransform(pixels[0] / width, 0, 0, pixels[1] / tall, 0, 0);
      context.clearRect(0, 0, width, tall);
      return [context, width, tall];
    };
    return panel;
  }

  // Makes a panel something to point at: `at(x, y)` says what is there in CSS pixels (null: nothing), `choose(target, event)`
  // takes it, `move(dx, dy)` follows the arrow keys, `clear()` the Escape key. Mouse, finger, pen and keys do the same.
  touchable(panel, {label, at, choose, move, clear = () => {}, drag = false}) {
    const {canvas} = panel;
    canvas.tabIndex = 0, canvas.setAttribute("role", "application"), canvas.setAttribute("aria-roledescription", "picture to point at");
    canvas.setAttribute("aria-label", label);
    const where = event => {
      const box = canvas.getBoundingClientRect();
      return at(event.clientX - box.left, event.clientY - box.top);
    };
    canvas.addEventListener("pointermove", event => {
      if (event.pointerType === "mouse") this.over(where(event));
      if (drag && event.buttons & 1 && where(event)) choose(where(event), event);
    });
    canvas.addEventListener("pointerleave", () => this.over(null));
    canvas.addEventListener("click", event => {
      const target = where(event);
      if (target) choose(target, event);
      else clear();
    });
    canvas.addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (ARROWS[event.key]) move(...ARROWS[event.key]);
      else if (event.key === "Escape") clear();
      else return;
      event.preventDefault(), event.stopPropagation();
      this.over(null);
    });
  }

  describe(panel, text) { if (panel.canvas.getAttribute("aria-label") !== text) panel.canvas.setAttribute("aria-label", text); }
}

// What anywidget asks of a module, from `mount(place, data, state, changed)`, which returns a Frame or a promise of one.
export function forNotebook(mount) {
  async function render({model, el}) {
    const keys = model.get("movable"), state = Object.fromEntries(keys.map(key => [key, model.get(key)]));
    const frame = await mount(el, model.get("data"), state, news => {
      for (const [key, value] of Object.entries(news)) if (keys.includes(key)) model.set(key, value);
      model.save_changes();
    });
    const follow = () => frame.set(Object.fromEntries(keys.map(key => [key, model.get(key)])), false);
    for (const key of keys) model.on(`change:${key}`, follow);
    return () => {
      for (const key of keys) model.off(`change:${key}`, follow);
      frame.destroy();
    };
  }
  return {render};
}
