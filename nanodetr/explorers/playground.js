// The playground: a scene of shapes that a hand moves about, and a real DETR that answers.
// One module for the site (the model runs in a worker, by onnxruntime-web) and for notebooks (the kernel runs it).
import {COST, Frame, HEAT, area, argmax, assign, clamp, colourOf, corners, costParts, css, element, giou, greedy, iou, labels, letter,
  list, luminance, number, outline, percent, total} from "./core.js";

// ---------------------------------------------------------------- a scene and its pixels, as nanodetr/datasets/shapes.py draws them

export const SIZE = 64, WIDE = 96, MOST = 8, KINDS = ["rectangle", "ellipse", "triangle", "cross"];
const POINTS = 4;  // POINTS x POINTS points in each pixel
const INSIDE = {  // is the point (u, v), each in -1..1, inside the shape?
  rectangle: (u, v) => Math.abs(u) <= 1 && Math.abs(v) <= 1,
  ellipse: (u, v) => u * u + v * v <= 1,
  triangle: (u, v) => v <= 1 && 2 * Math.abs(u) <= v + 1,
  cross: (u, v) => (Math.abs(u) <= 0.36 && Math.abs(v) <= 1) || (Math.abs(v) <= 0.36 && Math.abs(u) <= 1),
};
const TURNS = [[1, 0], [0, 1], [-1, 0], [0, -1]];  // (cos, sin) of the quarter turns

// half the width and half the height of the frame around a thing
export const halves = ({a, b, turn}) => turn % 2 ? [b, a] : [a, b];
export const frameOf = thing => {
  const [x, y] = halves(thing);
  return [thing.cx - x, thing.cy - y, thing.cx + x, thing.cy + y];
};

// how many points of each pixel a thing covers, in a patch of its own, and its tight xyxy box in pixels
export function coverage({kind, cx, cy, a, b, turn}) {
  const [ex, ey] = halves({a, b, turn}), [c, s] = TURNS[turn], inside = INSIDE[kind];
  const x0 = Math.max(Math.trunc(cx - ex), 0), x1 = Math.min(Math.trunc(cx + ex) + 1, SIZE), y0 = Math.max(Math.trunc(cy - ey), 0), y1 = Math.min(Math.trunc(cy + ey) + 1, SIZE);
  const w = x1 - x0, h = y1 - y0, count = new Uint8Array(w * h), ends = [Infinity, Infinity, -1, -1];
  for (let j = 0; j < h * POINTS; j++) for (let i = 0; i < w * POINTS; i++) {
    const x = x0 + (i + 0.5) / POINTS - cx, y = y0 + (j + 0.5) / POINTS - cy;
    if (!(s === 0 ? inside(x * c / a, y * c / b) : inside(y * s / a, -x * s / b))) continue;
    count[Math.floor(j / POINTS) * w + Math.floor(i / POINTS)]++;
    if (i < ends[0]) ends[0] = i;
    if (j < ends[1]) ends[1] = j;
    if (i >= ends[2]) ends[2] = i + 1;
    if (j >= ends[3]) ends[3] = j + 1;
  }
  return {count, x0, y0, w, h, box: ends.map((end, k) => end / POINTS + (k % 2 ? y0 : x0))};
}

// random numbers in 0..1 from a seed (mulberry32)
export function stream(seed) {
  return () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// the smooth background, planes of red, green and blue in 0..1; corners: four colours
function background(colours) {
  const [a, b, c, d] = colours, planes = new Float32Array(3 * SIZE * SIZE);
  for (let k = 0, at = 0; k < 3; k++) for (let y = 0; y < SIZE; y++) for (let x = 0; x < SIZE; x++) {
    const t = (x + 0.5) / SIZE, top = a[k] + (b[k] - a[k]) * t, bottom = c[k] + (d[k] - c[k]) * t;
    planes[at++] = top + (bottom - top) * ((y + 0.5) / SIZE);
  }
  return planes;
}

const shade = (thing, x, y) => 1 + thing.shade[0] * (x - 0.5) + thing.shade[1] * (y - 0.5);  // x, y in 0..1 of its frame

// {pixels: planes (3, 64, width) in 0..1, boxes: the tight xyxy box of every thing, in pixels}; right of the picture, zeros
export function paint(scene, width = SIZE) {
  const planes = background(scene.corners), boxes = [], plane = SIZE * SIZE;
  for (const thing of scene.things) {
    const {count, x0, y0, w, h, box} = coverage(thing);
    boxes.push(box);
    for (let j = 0; j < h; j++) for (let i = 0; i < w; i++) {
      const alpha = count[j * w + i] / POINTS ** 2, light = alpha && shade(thing, i / w, j / h);
      if (alpha) for (let k = 0, at = (y0 + j) * SIZE + x0 + i; k < 3; k++, at += plane) planes[at] += alpha * (thing.colour[k] * light - planes[at]);
    }
  }
  const random = stream(scene.seed), pixels = new Float32Array(3 * SIZE * width);
  for (let k = 0, at = 0; k < 3; k++) for (let y = 0; y < SIZE; y++) for (let x = 0; x < SIZE; x++, at++) {
    const noise = scene.noise && (Math.floor(256 * random()) + Math.floor(256 * random()) - 255) / 255;
    pixels[(k * SIZE + y) * width + x] = Math.floor(clamp(planes[at] + scene.noise * noise, 0, 1) * 255 + 0.5) / 255;
  }
  return {pixels, boxes};
}

// bright colours, as the training scenes have them
export const PAINTS = {red: [0.92, 0.28, 0.24], orange: [0.95, 0.6, 0.2], yellow: [0.93, 0.86, 0.25], green: [0.35, 0.85, 0.35], blue: [0.3, 0.5, 0.95], violet: [0.78, 0.4, 0.95]};
const nameOf = colour => Object.keys(PAINTS).reduce((best, name) => apart(PAINTS[name], colour) < apart(PAINTS[best], colour) ? name : best);
const apart = (a, b) => Math.hypot(...a.map((x, k) => x - b[k]));

const thingOf = (kind, cx, cy, a, b, paintName, turn = 0, light = [0.1, -0.1]) => ({kind, cx, cy, a, b, turn, colour: PAINTS[paintName], shade: light});

export function firstScene() {
  return {corners: [[0.1, 0.13, 0.3], [0.22, 0.1, 0.28], [0.08, 0.2, 0.26], [0.16, 0.12, 0.2]], noise: 0.04, seed: 1, things: [
    thingOf("ellipse", 20, 19, 13, 8.5, "yellow"), thingOf("triangle", 47, 18, 9, 9, "red"), thingOf("cross", 44, 46, 10.5, 10.5, "green"), thingOf("rectangle", 16, 48, 8, 10, "blue")]};
}

const covered = (a, b) => {  // the share of the smaller of two boxes that the other covers
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return w > 0 && h > 0 ? w * h / Math.min(area(a), area(b)) : 0;
};

// a thing at random that overlaps the others little, or null
export function randomThing(random, things, kind = null) {
  const between = (low, high) => low + (high - low) * random(), names = Object.keys(PAINTS);
  for (let k = 0; k < 60; k++) {
    const long = between(0.2, 0.42) * SIZE, short = Math.max(long * between(0.5, 1), 0.16 * SIZE), turn = Math.floor(4 * random());
    const [a, b] = random() < 0.5 ? [long / 2, short / 2] : [short / 2, long / 2], [ex, ey] = halves({a, b, turn});
    const near = names[Math.floor(names.length * random())], thing = {kind: kind || KINDS[Math.floor(4 * random())], a, b, turn,
      cx: between(ex, SIZE - ex), cy: between(ey, SIZE - ey), colour: PAINTS[near], shade: [between(-0.16, 0.16), between(-0.16, 0.16)]};
    const crowded = things.some(other => covered(frameOf(other), frameOf(thing)) > (k < 40 ? 0.05 : 0.33));
    if (!crowded && (k > 20 || things.every(other => nameOf(other.colour) !== near))) return thing;
  }
  return null;
}

export function randomScene(seed) {
  const random = stream(seed), colour = () => [0, 1, 2].map(() => 0.04 + 0.28 * random()), things = [];
  const scene = {corners: [colour(), colour(), colour(), colour()], noise: 0.02 + 0.05 * random(), seed, things};
  for (let k = 3 + Math.floor(3 * random()); k; k--) {
    const thing = randomThing(random, things);
    if (thing) things.push(thing);
  }
  return scene;
}

// ---------------------------------------------------------------- what the model says, and what it costs

const softmax = row => {
  const most = Math.max(...row), e = row.map(x => Math.exp(x - most)), sum = e.reduce((a, b) => a + b, 0);
  return e.map(x => x / sum);
};
const rows = (flat, count, width, from = 0) => Array.from({length: count}, (_, q) => Array.from(flat.subarray(from + q * width, from + (q + 1) * width)));

// {name: Float32Array} of a graph -> {layers: [{logits, probs, boxes}], cross: [(Q rows of cells)] for each layer, mean over heads}
export function digest(outputs, {queries, classes, layers, heads}, width) {
  const C = classes.length + 1, found = [];
  for (let l = 0; l < layers; l++) {
    const last = l === layers - 1, from = l * queries;
    const logits = last ? rows(outputs.logits, queries, C) : rows(outputs.earlier_logits, queries, C, from * C);
    const boxes = last ? rows(outputs.boxes, queries, 4) : rows(outputs.earlier_boxes, queries, 4, from * 4);
    const stretch = width / SIZE;  // a box is given in parts of the whole canvas
    found.push({logits, probs: logits.map(softmax), boxes: boxes.map(([x, y, w, h]) => [x * stretch, y, w * stretch, h])});
  }
  const cells = outputs.cross_attention.length / (layers * heads * queries), cross = found.map((_, l) => Array.from({length: queries}, (_, q) => {
    const mean = new Float32Array(cells);
    for (let h = 0; h < heads; h++) {
      const from = ((l * heads + h) * queries + q) * cells;
      for (let i = 0; i < cells; i++) mean[i] += outputs.cross_attention[from + i] / heads;
    }
    return mean;
  }));
  return {layers: found, cross, rows: SIZE / 8, columns: cells / (SIZE / 8)};
}

// The loss of one decoder layer as nanodetr.loss has it: {class, l1, giou}. labels and boxes (cxcywh in 0..1) of the objects;
// queries: those that take part; weights: of the matching cost
export function layerLoss({logits, probs, boxes}, labels, objects, queries, weights, noObject = 0.1) {
  const raw = costParts(queries.map(q => probs[q]), queries.map(q => boxes[q]), labels, objects);
  const cost = raw.map(row => row.map(parts => parts.reduce((sum, x, k) => sum + weights[k] * x, 0)));
  const best = objects.length ? assign(cost) : [], none = probs[0].length - 1, wanted = Array(queries.length).fill(none);
  best.forEach((q, t) => { wanted[q] = labels[t]; });
  let entropy = 0, weight = 0;
  queries.forEach((q, k) => {
    const share = wanted[k] === none ? noObject : 1;
    const most = Math.max(...logits[q]), log = most + Math.log(logits[q].reduce((sum, x) => sum + Math.exp(x - most), 0));
    entropy += share * (log - logits[q][wanted[k]]), weight += share;
  });
  const count = Math.max(objects.length, 1), sum = k => best.reduce((s, q, t) => s + raw[q][t][k], 0);
  return {raw, cost, best, greedy: objects.length ? greedy(cost) : [], loss: {class: entropy / weight, l1: sum(1) / count, giou: (sum(2) + objects.length) / count}};
}

const LOSS = {class: 1, l1: 5, giou: 2};
const summed = loss => LOSS.class * loss.class + LOSS.l1 * loss.l1 + LOSS.giou * loss.giou;

// ---------------------------------------------------------------- who runs the model

// half precision to single
function widened(bytes) {
  const half = new Uint16Array(bytes), out = new Float32Array(half.length);
  for (let i = 0; i < half.length; i++) {
    const sign = half[i] & 0x8000 ? -1 : 1, power = (half[i] >> 10) & 31, rest = half[i] & 1023;
    out[i] = sign * (power ? (1 + rest / 1024) * 2 ** (power - 15) : rest * 2 ** -24);
  }
  return out;
}

const WANTED = ["logits", "boxes", "earlier_logits", "earlier_boxes", "cross_attention"];

// Inside a worker: one session for each set of weights. Messages: {id, base, stage: {file, half}, feeds} -> {id, outputs, ms}
function serve(scope) {
  const sessions = new Map();
  let runtime = null, graph = null;
  const bytes = async address => {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${response.status} for ${address}`);
    return response.arrayBuffer();
  };
  async function open(base, {file, half}) {
    if (!runtime) {
      runtime = await import(`${base}ort.wasm.min.mjs`);
      runtime.env.wasm.numThreads = 1, runtime.env.wasm.wasmPaths = base, runtime.env.logLevel = "error";
      graph = new Uint8Array(await bytes(`${base}model.onnx`));
    }
    const read = await bytes(base + file), data = new Uint8Array(half ? widened(read).buffer : read);
    return runtime.InferenceSession.create(graph.slice(), {executionProviders: ["wasm"], externalData: [{path: "weights", data}]});
  }
  let turn = Promise.resolve();
  scope.onmessage = ({data: {id, base, stage, feeds}}) => {
    turn = turn.then(async () => {
      if (!sessions.has(stage.file)) sessions.set(stage.file, await open(base, stage));
      const {Tensor} = runtime, {image, width, mirror, talk, silent} = feeds, start = performance.now();
      const given = {images: new Tensor("float32", image, [1, 3, SIZE, width]), mirror: new Tensor("float32", [mirror], []),
        talk: new Tensor("float32", [talk], []), silent: new Tensor("bool", silent, [1, silent.length])};
      const found = await sessions.get(stage.file).run(given, WANTED), outputs = {};
      for (const name of WANTED) outputs[name] = found[name].data;
      scope.postMessage({id, outputs, ms: performance.now() - start});
    }).catch(error => scope.postMessage({id, error: String(error.message || error)}));
  };
}

// run(stage, feeds) -> {outputs, ms}, by a worker that holds onnxruntime-web; base: where its files lie
export function wasmEngine(base) {
  const worker = new Worker(import.meta.url, {type: "module", name: "nanodetr"}), waiting = new Map();
  let count = 0;
  worker.onmessage = ({data}) => {
    const {done, fail} = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) fail(new Error(data.error));
    else done(data);
  };
  worker.onerror = event => { for (const {fail} of waiting.values()) fail(new Error(event.message || "the worker does not start")); };
  const run = (stage, feeds) => new Promise((done, fail) => {
    waiting.set(++count, {done, fail});
    worker.postMessage({id: count, base, stage, feeds});
  });
  return {run, close: () => worker.terminate()};
}

// the same by the kernel of a notebook: floats as buffers of messages
export function kernelEngine(model) {
  const waiting = new Map();
  let count = 0;
  const answer = (content, buffers) => {
    if (!waiting.has(content.id)) return;
    const {done, fail, start} = waiting.get(content.id);
    waiting.delete(content.id);
    if (content.error) return fail(new Error(content.error));
    const floats = view => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    done({outputs: Object.fromEntries(content.names.map((name, k) => [name, floats(buffers[k])])), ms: performance.now() - start});
  };
  model.on("msg:custom", answer);
  const run = (stage, {image, ...feeds}) => new Promise((done, fail) => {
    waiting.set(++count, {done, fail, start: performance.now()});
    model.send({id: count, stage: stage.file, ...feeds, silent: Array.from(feeds.silent)}, undefined, [image.buffer]);
  });
  return {run, close: () => model.off("msg:custom", answer)};
}

if (typeof document === "undefined" && typeof self !== "undefined" && typeof self.postMessage === "function") serve(self);

// ---------------------------------------------------------------- drawing

const PATHS = {
  rectangle: p => p.rect(-1, -1, 2, 2),
  ellipse: p => p.ellipse(0, 0, 1, 1, 0, 0, 7),
  triangle: p => (p.moveTo(0, -1), p.lineTo(1, 1), p.lineTo(-1, 1), p.closePath()),
  cross: p => [[-0.36, -1], [0.36, -1], [0.36, -0.36], [1, -0.36], [1, 0.36], [0.36, 0.36], [0.36, 1], [-0.36, 1], [-0.36, 0.36], [-1, 0.36], [-1, -0.36], [-0.36, -0.36]]
    .forEach(([x, y], k) => k ? p.lineTo(x, y) : p.moveTo(x, y)),
};
const ICONS = {
  rectangle: '<rect x="3" y="5" width="18" height="14"/>', ellipse: '<ellipse cx="12" cy="12" rx="10" ry="7.5"/>', triangle: '<path d="M12 3 22 21H2z"/>',
  cross: '<path d="M8.6 3h6.8v5.6H21v6.8h-5.6V21H8.6v-5.6H3V8.6h5.6z"/>',
};
const icon = kind => `<svg viewBox="0 0 24 24" width="18" height="18" fill="currentColor" aria-hidden="true">${ICONS[kind]}</svg>`;

// planes (3, height, width) in 0..1 as a canvas of as many pixels
function pixelCanvas(planes, width) {
  const canvas = document.createElement("canvas"), plane = planes.length / 3, data = new ImageData(width, plane / width);
  for (let i = 0; i < plane; i++) {
    for (let k = 0; k < 3; k++) data.data[4 * i + k] = Math.round(255 * planes[k * plane + i]);
    data.data[4 * i + 3] = 255;
  }
  canvas.width = width, canvas.height = data.height;
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

// the scene, sharp, in CSS pixels; `scale` of them are one of its 64
function drawScene(context, scene, ground, scale) {
  context.imageSmoothingEnabled = true;
  context.drawImage(ground, 0, 0, SIZE * scale, SIZE * scale);
  for (const thing of scene.things) {
    const [x0, y0, x1, y1] = frameOf(thing).map(x => x * scale), [w, h] = [x1 - x0, y1 - y0];
    const slope = [thing.shade[0] / w, thing.shade[1] / h], steep = Math.hypot(...slope) || 1, reach = (Math.abs(slope[0]) * w + Math.abs(slope[1]) * h) / 2 / steep;
    const [dx, dy] = slope.map(x => x / steep * reach), [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2], fill = context.createLinearGradient(mx - dx, my - dy, mx + dx, my + dy);
    [0, 1].forEach(end => fill.addColorStop(end, css(thing.colour.map(c => Math.round(255 * clamp(c * (1 + (end ? 1 : -1) * steep * reach), 0, 1))))));
    const path = new Path2D(), unit = new Path2D();
    PATHS[thing.kind](unit);
    path.addPath(unit, new DOMMatrix().translate(thing.cx * scale, thing.cy * scale).rotate(90 * thing.turn).scale(thing.a * scale, thing.b * scale));
    context.fillStyle = fill, context.fill(path);
  }
}

function drawHeat(context, shares, columns, width, height, strength = 1) {
  const most = Math.max(...shares), small = document.createElement("canvas"), data = new ImageData(columns, shares.length / columns);
  shares.forEach((x, i) => data.data.set([...HEAT(x / most), 255 * strength * (0.15 + 0.75 * x / most)], 4 * i));
  small.width = columns, small.height = data.height;
  small.getContext("2d").putImageData(data, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, width, height);
}

function drawPadding(context, x, width, height) {
  context.fillStyle = "#000", context.fillRect(x, 0, width, height);
  context.save(), context.beginPath(), context.rect(x, 0, width, height), context.clip(), context.beginPath();
  context.strokeStyle = "rgba(255,255,255,.2)", context.lineWidth = 1;
  for (let at = x - height; at < x + width; at += 11) context.moveTo(at, height), context.lineTo(at + height, 0);
  context.stroke(), context.restore();
}

const LOOK = `
.ndx.ndx-playground { max-width: 1180px; margin: 0 auto; }
.ndp { display: grid; grid-template-columns: minmax(0, 46fr) minmax(0, 54fr); gap: 14px 26px; align-items: start; }
.ndp-column:first-child { position: sticky; top: var(--ndp-top, 0px); }
.ndp-hold { aspect-ratio: 1; display: grid; align-items: center; border-radius: 8px; overflow: hidden; background: #10131c; }
.ndp-stage { position: relative; overflow: hidden; touch-action: pan-y; }
.ndx .ndp-stage canvas { border-radius: 0; width: 100%; }
.ndx .ndp-thing { position: absolute; background: none; border-radius: 3px; padding: 0; min-height: 0; cursor: grab; touch-action: none; }
.ndx .ndp-thing:hover { background: none; box-shadow: 0 0 0 1px rgba(255,255,255,.5); }
.ndx .ndp-thing:active { cursor: grabbing; }
.ndx .ndp-thing:focus-visible, .ndx .ndp-thing[aria-pressed=true] { background: none; outline: 1.5px dashed #fff; outline-offset: -1px; }
.ndx .ndp-thing:focus-visible { outline: 3px solid #fff; box-shadow: inset 0 0 0 4px rgba(0,0,0,.6); }
.ndp-grip { position: absolute; width: 18px; height: 18px; border-radius: 50%; background: #fff; border: 3px solid #1F2430; cursor: nwse-resize; touch-action: none; transform: translate(-50%, -50%); }
.ndp-grip::after { content: ""; position: absolute; inset: -14px; border-radius: 50%; }
.ndp-tools { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 8px 0 0; min-height: 34px; }
.ndp-tools > span { color: var(--quiet); }
.ndx .ndp-tools button { min-width: 34px; min-height: 34px; padding: 4px 8px; display: inline-flex; align-items: center; justify-content: center; gap: 5px; }
.ndx .ndp-swatch { width: 34px; padding: 0 !important; }
.ndp-swatch::before { content: ""; width: 20px; height: 20px; border-radius: 50%; background: var(--paint); box-shadow: 0 0 0 1px rgba(0,0,0,.35), 0 0 0 2px rgba(255,255,255,.5); }
.ndx .ndp-tools button:disabled, .ndx .ndp-tools button[aria-disabled=true] { opacity: .45; cursor: default; }
.ndp-keys { margin: 6px 0 0; font-size: 12px; color: var(--quiet); }
.ndp-keys kbd { font: inherit; font-weight: 600; background: var(--soft); border-radius: 4px; padding: 0 4px; color: var(--ink); }
.ndp-part { margin: 0 0 14px; } .ndp-part .ndx-row { margin: 0 0 6px; gap: 6px 14px; }
.ndp-queries { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 5px; margin: 0 0 9px; }
.ndx .ndp-query { position: relative; padding: 3px 4px 6px; min-height: 38px; font-size: 11.5px; line-height: 1.25; overflow: hidden; text-align: left; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ndx .ndp-query[aria-pressed=true] { background: var(--soft); color: inherit; box-shadow: 0 0 0 2px var(--lit); }
.ndp-query b { display: block; font-weight: 650; overflow: hidden; text-overflow: ellipsis; }
.ndp-query i { position: absolute; left: 0; bottom: 0; height: 3px; background: var(--mark, var(--quiet)); }
.ndp-query.ndp-idle { color: var(--quiet); } .ndp-query.ndp-mute b { text-decoration: line-through; }
.ndp-maps { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
.ndp-maps .ndx-head { font-size: 11.5px; font-weight: 500; margin: 0 0 3px; min-height: 1.45em; white-space: nowrap; overflow: hidden; }
.ndp-below { grid-column: 1 / -1; display: grid; grid-template-columns: minmax(0, 46fr) minmax(0, 54fr); gap: 14px 26px; border-top: 1px solid var(--rule); padding-top: 12px; }
.ndp-scroll { overflow-x: auto; }
.ndx table.ndp-table { border-collapse: separate; border-spacing: 2px; font-size: 11.5px; font-variant-numeric: tabular-nums; width: 100%; table-layout: fixed; margin: 0; background: none; border: 0; display: table; }
.ndx .ndp-table th, .ndx .ndp-table td { padding: 1px 4px; text-align: right; border: 0; border-radius: 3px; min-width: 0; height: 20px; line-height: 18px; background: none; color: inherit; font-weight: 500; }
.ndx .ndp-table th:first-child { text-align: left; width: 3.2em; }
.ndx .ndp-table th button { padding: 0 4px; min-height: 20px; width: 100%; text-align: left; background: none; font-size: 11.5px; }
.ndx .ndp-table thead th { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; border-bottom: 3px solid var(--mark, transparent); border-radius: 0; }
.ndx .ndp-table tr { background: none !important; } .ndx .ndp-table td.best { box-shadow: 0 0 0 2px #E0660B; font-weight: 700; }
.ndx .ndp-table td { position: relative; white-space: nowrap; }
.ndx .ndp-table td.greedy::before { content: "\\25CF"; position: absolute; left: 2px; top: 0; font-size: 8px; color: #E0660B; text-shadow: 0 0 2px #fff, 0 0 2px #fff; }
.ndx .ndp-loss td, .ndx .ndp-loss th { height: auto; }
.ndx .ndp-loss th:first-child { width: 5.4em; } .ndp-bar { display: block; height: 4px; border-radius: 2px; background: var(--lit); min-width: 1px; }
.ndp-note { margin: 5px 0 0; font-size: 12px; color: var(--quiet); } .ndp-verdict { margin: 6px 0 0; min-height: 1.45em; }
.ndx.ndx-playground ul.ndp-dares { list-style: none; margin: 0; padding: 0; display: grid; gap: 6px; }
.ndx.ndx-playground .ndp-dares li { margin: 0; padding: 6px 10px 6px 32px; position: relative; background: var(--soft); border-radius: 7px; }
.ndp-dares li::before { content: "\\25CB"; position: absolute; left: 11px; } .ndp-dares li.ndp-won::before { content: "\\2713"; color: #17915A; font-weight: 800; }
.ndp-dares li.ndp-won { box-shadow: inset 3px 0 0 #17915A; } .ndp-dares small { display: block; color: var(--quiet); font-size: 12px; }
.ndx.ndx-playground .ndx-said { min-height: 4.4em; margin: 6px 0 0; }
.ndx.ndx-playground small { opacity: 1; } .ndx.ndx-playground .ndx-head { display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; }
.ndx.ndx-playground .ndx-head small { flex: 0 1 auto; width: auto; min-height: 0; display: inline; }
/* narrow: the scene stays in view above whatever is scrolled to, and the switches come first */
.ndx-narrow :is(.ndp-column, .ndp-below) { display: contents; }
.ndx-narrow .ndp { display: flex; flex-direction: column; align-items: stretch; gap: 0; --tall: max(42svh, 240px); }
.ndx-narrow .ndp-pin { position: sticky; top: var(--ndp-top, 0px); z-index: 2; background: var(--ground); padding-bottom: 4px; }
.ndx-narrow .ndp-hold { width: min(100%, var(--tall)); margin: 0 auto; }
.ndx-narrow .ndp :is(button, input, [tabindex]) { scroll-margin-top: calc(var(--tall) + var(--ndp-top, 0px) + 8px); }
.ndx-narrow :is(.ndp-column, .ndp-below) > :not(.ndp-pin, .ndp-tools, .ndp-switch) { order: 1; }
.ndx-narrow .ndp-tools { margin: 4px 0 0; gap: 4px; } .ndx-narrow .ndp-tools > span { display: none; }
.ndx.ndx-narrow .ndp-tools button { flex: 1 1 auto; min-width: 28px; padding: 4px; width: auto; }
.ndx-narrow .ndp-shape { display: grid; grid-template-columns: repeat(auto-fit, minmax(28px, 1fr)); gap: 3px; }
.ndx-narrow .ndp-switch { margin: 8px 0 0; } .ndx-narrow .ndp-switch .ndx-row { gap: 4px 14px; margin: 0 0 4px; }
.ndx-narrow .ndp-queries { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.ndx-narrow .ndp-maps .ndx-head, .ndx-narrow .ndp-verdict { min-height: 2.9em; } .ndx.ndx-playground.ndx-narrow .ndx-said { min-height: 5.8em; }
.ndp-asks { margin: 0; flex: 1 1 180px; min-height: 1.45em; } .ndx-narrow .ndp-asks { min-height: 4.4em; }
@media (hover: none) { .ndp-keys { display: none; } }
@media (prefers-reduced-motion: no-preference) { .ndp-dares li { transition: box-shadow .3s; } }
`;

const DARES = [
  ["twice", "Make it see one object twice.", "One of the switches makes it easy. Without a switch it is hard."],
  ["greedy", "Find costs for which greedy pays more than the Hungarian assignment.", "A trained model leaves no choice. Early in its training one query is cheap for two objects; then the weights decide."],
  ["wrong", "Make it call a shape by a wrong name, with a score above 80 %.", "What does it say about a very small shape, or a very long one?"],
];

// ---------------------------------------------------------------- the playground

// place: an element; facts: what playground.json holds; engine: of wasmEngine or kernelEngine. -> a promise of a Frame
export async function mount(place, facts, engine) {
  const {classes, queries, stages} = facts;
  const frame = new Frame(place, "playground", {stage: stages.length - 1, mirrored: false, cut: false, padding: "none", query: "-", pixels: false, class: 1, l1: 5, giou: 2});
  const {root} = frame, silent = new Set(), won = new Set();
  const later = frame.later.bind(frame);
  frame.later = () => { root.dataset.idle = false, later(); };  // from here until it is drawn, the page shows an older state
  root.append(element("style", {textContent: LOOK}));
  frame.main.className = "ndp";
  frame.row.remove();

  let scene = firstScene(), chosen = null, ground = null, pixels = null, painted = null, answer = null, verdict = null;
  let dirty = true, busy = false, dragging = false, hovered = null, scenes = 1, failed = "";
  const times = [];

  // --- the parts of the page
  const left = element("div", {className: "ndp-column"}), right = element("div", {className: "ndp-column"}), below = element("div", {className: "ndp-below"});
  frame.main.append(left, right, below);
  const part = (parent, title, note = "") => {
    const box = element("section", {className: "ndp-part", "aria-label": title});
    if (title) box.append(element("div", {className: "ndx-head"}, element("span", {textContent: title}), ...(note ? [element("small", {textContent: note})] : [])));
    parent.append(box);
    return box;
  };
  const row = parent => {  // where the frame's next controls go
    frame.row = element("div", {className: "ndx-row"});
    parent.append(frame.row);
  };

  const stage = element("div", {className: "ndp-stage", role: "group", "aria-label": "The scene. Every shape is a button: arrow keys move it, plus and minus resize it, Delete removes it"});
  const canvas = element("canvas", {"data-name": "scene", "aria-hidden": "true"}), grip = element("span", {className: "ndp-grip", "data-name": "grip"});
  stage.append(canvas);
  left.append(element("div", {className: "ndp-pin"}, element("div", {className: "ndp-hold"}, stage)));
  const tools = element("div", {className: "ndp-tools", role: "toolbar", "aria-label": "Shapes"}), shapeTools = element("div", {className: "ndp-tools ndp-shape", role: "toolbar", "aria-label": "The chosen shape"});
  const keys = element("p", {className: "ndp-keys"});
  keys.innerHTML = "Drag the shapes. Keys on a shape: <kbd>arrows</kbd> move, <kbd>+</kbd> <kbd>\u2212</kbd> size, <kbd>W</kbd> <kbd>N</kbd> wider, narrower, <kbd>R</kbd> turn, <kbd>C</kbd> colour, <kbd>Del</kbd> remove.";
  left.append(tools, shapeTools, frame.said, keys);
  const tool = (parent, label, html, press, properties = {}) => {
    const button = element("button", {type: "button", "aria-label": label, title: label, innerHTML: html, ...properties});
    button.addEventListener("click", press);
    parent.append(button);
    return button;
  };
  tools.append(element("span", {textContent: "Add"}));
  const adders = KINDS.map(kind => tool(tools, `Add: ${kind}`, icon(kind), () => add(kind)));
  tool(tools, "New scene", "New scene", () => fresh(randomScene(++scenes)));
  tool(tools, "First scene", "First scene", () => fresh(firstScene()));
  row(tools);
  frame.row.style.margin = "0 0 0 6px";
  frame.check("pixels", "64 \u00d7 64 pixels");
  shapeTools.append(element("span", {textContent: "This shape"}));
  for (const [name, paintColour] of Object.entries(PAINTS)) tool(shapeTools, `Colour: ${name}`, "", () => change(thing => ({colour: paintColour})),
    {className: "ndp-swatch", style: `--paint: ${css(paintColour.map(c => Math.round(255 * c)))}`});
  tool(shapeTools, "Larger", "+", () => grow(1.12, 1.12)), tool(shapeTools, "Smaller", "\u2212", () => grow(1 / 1.12, 1 / 1.12));
  tool(shapeTools, "Turn", "\u21BB", () => turnIt()), tool(shapeTools, "Remove", "\u2715", () => remove());

  const seen = part(right, "Twelve queries, each with an answer", "point at one, or at a box: where does it look?");
  const chips = element("div", {className: "ndp-queries"});
  seen.append(chips);
  const buttons = Array.from({length: queries}, (_, q) => {
    const button = element("button", {type: "button", className: "ndp-query", "data-query": q, "aria-pressed": "false"});
    button.append(element("span", {textContent: `q${q}`}), element("b", {}), element("i", {}));
    button.addEventListener("click", () => frame.set({query: frame.state.query === q ? "-" : q}));
    button.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") frame.over({query: q}); });
    button.addEventListener("pointerleave", () => frame.over(null));
    button.addEventListener("focus", () => { if (button.matches(":focus-visible")) frame.over({query: q}); });
    button.addEventListener("blur", () => frame.over(null));
    chips.append(button);
    return button;
  });
  const maps = element("div", {className: "ndp-maps"});
  seen.append(maps);
  const panels = Array.from({length: facts.layers}, (_, l) => frame.panel(`layer${l + 1}`, maps));
  const under = element("div", {className: "ndx-row"});
  under.style.margin = "6px 0 0";
  const mute = element("button", {type: "button", "data-name": "mute"}), asks = element("span", {className: "ndp-note ndp-asks", "data-name": "asks"});
  under.append(mute, asks);
  seen.append(under);
  mute.addEventListener("click", () => {
    const q = asked();
    if (q < 0) return;
    if (silent.has(q)) silent.delete(q);
    else if (silent.size < queries - MOST) silent.add(q);
    wake();
  });

  const training = part(right, "Its training", "other weights, the same scene");
  training.classList.add("ndp-switch");
  row(training);
  frame.range("stage", "weights", 0, stages.length - 1, 1, {names: stages.map(s => s.name), wide: true});
  const breaking = part(right, "Break it", "and see what each part was for");
  breaking.classList.add("ndp-switch");
  row(breaking);
  frame.check("mirrored", "positions mirrored"), frame.check("cut", "self-attention of the queries cut");
  row(breaking);
  frame.pills("padding", "padding", [["none", "none"], ["with its mask", "masked"], ["mask forgotten", "bare"]]);
  const loose = frame.button("mend everything", () => { silent.clear(), frame.set({mirrored: false, cut: false, padding: "none", stage: stages.length - 1}), wake(); });
  loose.dataset.name = "mend";

  const dares = element("ul", {className: "ndp-dares"}), daring = part(right, "Can you?");
  daring.setAttribute("aria-live", "polite");
  daring.append(dares);
  for (const [name, text, hint] of DARES) dares.append(element("li", {"data-dare": name}, element("span", {textContent: text}), element("small", {textContent: hint})));

  const matching = part(below, "Who answers for what?", "cost of each pair; frame: Hungarian, dot: greedy");
  const scroll = element("div", {className: "ndp-scroll", tabIndex: 0, role: "region", "aria-label": "The cost of each pair of query and object"}), table = element("table", {className: "ndp-table", "data-name": "costs"});
  scroll.append(table);
  matching.append(scroll);
  const costs = part(below, "The weights of the costs, and the loss");
  row(costs);
  frame.range("class", "class", 0, 5, 0.5), frame.range("l1", "L1", 0, 10, 0.5), frame.range("giou", "GIoU", 0, 5, 0.5);
  const said = element("p", {className: "ndp-verdict", "data-name": "verdict"}), losses = element("table", {className: "ndp-table ndp-loss", "data-name": "loss"});
  costs.append(said, losses);
  // --- the scene under a hand
  const grips = [];  // one button a thing
  const keepIn = thing => {
    thing.a = clamp(thing.a, 3, 28), thing.b = clamp(thing.b, 3, 28);
    const [ex, ey] = halves(thing);
    thing.cx = clamp(thing.cx, ex, SIZE - ex), thing.cy = clamp(thing.cy, ey, SIZE - ey);
  };
  function wake() { dirty = true, pixels = null, frame.later(); }
  function fresh(next) {
    scene = next, chosen = null, ground = null;
    frame.set({query: "-"}), wake();
  }
  function change(news, thing = scene.things[chosen]) {
    if (!thing) return;
    Object.assign(thing, typeof news === "function" ? news(thing) : news);
    keepIn(thing), wake();
  }
  function grow(x, y) {
    const thing = scene.things[chosen];
    if (thing) change(thing.turn % 2 ? {a: thing.a * y, b: thing.b * x} : {a: thing.a * x, b: thing.b * y});
  }
  function turnIt() { change(thing => ({turn: (thing.turn + 1) % 4})); }
  function add(kind) {
    if (scene.things.length >= MOST) return;
    const thing = randomThing(stream(scenes * 100 + scene.things.length + KINDS.indexOf(kind) + 7), scene.things, kind) || thingOf(kind, 32, 32, 8, 8, "orange");
    scene.things.push(thing), chosen = scene.things.length - 1;
    wake(), place_(), grips[chosen].focus();
  }
  function remove() {
    if (chosen === null) return;
    scene.things.splice(chosen, 1);
    chosen = scene.things.length ? Math.min(chosen, scene.things.length - 1) : null;
    wake(), place_();
    if (chosen !== null) grips[chosen].focus();
    else adders[0].focus();
  }
  const choose = index => { if (chosen !== index) chosen = index, frame.later(); };
  const wide = () => frame.state.padding === "none" ? SIZE : WIDE;
  const at = event => {  // the pointer, in the scene's own pixels
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * wide(), (event.clientY - box.top) / box.height * SIZE];
  };

  function dragged(node, begin) {  // begin(event) -> move(x, y)
    node.addEventListener("pointerdown", event => {
      if (event.button || !event.isPrimary) return;
      event.stopPropagation(), node.setPointerCapture(event.pointerId);
      const move = begin(event);
      dragging = true;
      const follow = e => { move(...at(e)), wake(); }, stop = () => {
        dragging = false, node.removeEventListener("pointermove", follow);
        for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) node.removeEventListener(name, stop);
        frame.later();
      };
      node.addEventListener("pointermove", follow);
      for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) node.addEventListener(name, stop);
    });
  }

  function pressed(event) {  // a key on a shape
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 4 : 1, arrow = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
    const names = Object.keys(PAINTS), thing = scene.things[chosen];
    if (arrow) change({cx: thing.cx + arrow[0], cy: thing.cy + arrow[1]});
    else if (event.key === "+" || event.key === "=") grow(1.08, 1.08);
    else if (event.key === "-" || event.key === "_") grow(1 / 1.08, 1 / 1.08);
    else if (event.key === "w" || event.key === "W") grow(1.08, 1);
    else if (event.key === "n" || event.key === "N") grow(1 / 1.08, 1);
    else if (event.key === "r" || event.key === "R") turnIt();
    else if (event.key === "c" || event.key === "C") change({colour: PAINTS[names[(names.indexOf(nameOf(thing.colour)) + 1) % names.length]]});
    else if (event.key === "Delete" || event.key === "Backspace") remove();
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault(), event.stopPropagation();
  }

  function newGrip(index) {
    const button = element("button", {type: "button", className: "ndp-thing", "data-thing": index});
    button.addEventListener("focus", () => choose(index));
    button.addEventListener("keydown", pressed);
    dragged(button, event => {
      const thing = scene.things[index], [x, y] = at(event), dx = thing.cx - x, dy = thing.cy - y;
      button.focus({preventScroll: true}), choose(index);
      return (nx, ny) => { thing.cx = nx + dx, thing.cy = ny + dy, keepIn(thing); };
    });
    stage.append(button);
    return button;
  }
  dragged(grip, () => {
    const thing = scene.things[chosen], [x0, y0] = frameOf(thing);
    return (x, y) => {
      const ex = clamp((x - x0) / 2, 3, (SIZE - x0) / 2), ey = clamp((y - y0) / 2, 3, (SIZE - y0) / 2);
      Object.assign(thing, thing.turn % 2 ? {a: ey, b: ex} : {a: ex, b: ey}), Object.assign(thing, {cx: x0 + ex, cy: y0 + ey}), keepIn(thing);
    };
  });

  function place_() {  // the buttons over the shapes, the handle on the chosen one
    while (grips.length < scene.things.length) grips.push(newGrip(grips.length));
    while (grips.length > scene.things.length) grips.pop().remove();
    const width = wide(), put = (node, x, y) => { node.style.left = `${100 * x / width}%`, node.style.top = `${100 * y / SIZE}%`; };
    scene.things.forEach((thing, t) => {
      const [x0, y0, x1, y1] = frameOf(thing), button = grips[t];
      put(button, x0, y0);
      button.style.width = `${100 * (x1 - x0) / width}%`, button.style.height = `${100 * (y1 - y0) / SIZE}%`;
      button.setAttribute("aria-pressed", t === chosen);
      const how = verdict && verdict.owner[t] !== undefined ? `, answered by query ${verdict.owner[t]}: ${verdict.words[t]}` : "";
      button.setAttribute("aria-label", `${letter(t)}: ${nameOf(thing.colour)} ${thing.kind}${how}`);
    });
    if (chosen === null) grip.remove();
    else {
      const [, , x1, y1] = frameOf(scene.things[chosen]);
      if (!grip.isConnected) stage.append(grip);
      put(grip, Math.min(x1 + 1.2, width - 1), Math.min(y1 + 1.2, SIZE - 1));
    }
  }

  // hovering a box: the smallest answer under the pointer
  stage.addEventListener("pointermove", event => {
    if (dragging || event.pointerType !== "mouse" || !verdict) return;
    const [x, y] = at(event), under_ = verdict.answers.filter(({box: [x0, y0, x1, y1]}) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    frame.over(under_.length ? {query: under_.reduce((a, b) => area(b.box) < area(a.box) ? b : a).query} : null);
  });
  stage.addEventListener("pointerleave", () => frame.over(null));
  stage.addEventListener("pointerdown", event => { if (!event.button && (event.target === canvas || event.target === stage)) choose(null), frame.set({query: "-"}); });

  // --- asking the model
  async function ask() {
    if (busy || !dirty) return;
    busy = true, dirty = false;
    const {stage: k, mirrored, cut, padding} = frame.state, width = padding === "bare" ? WIDE : SIZE, start = performance.now();
    const asking = {boxes: painted.boxes, labels: scene.things.map(thing => classes.indexOf(thing.kind)), silent: new Set(silent), stage: k, padding, mirrored, cut};
    const image = width === SIZE ? painted.pixels.slice() : paint(scene, width).pixels;
    try {
      const {outputs, ms} = await engine.run(stages[k], {image, width, mirror: mirrored ? 1 : 0, talk: cut ? 0 : 1, silent: Uint8Array.from({length: queries}, (_, q) => silent.has(q) ? 1 : 0)});
      answer = {...digest(outputs, facts, width), ...asking, outputs, image, width}, failed = "";
      times.push(performance.now() - start);
      root.dataset.ms = ms.toFixed(1), root.dataset.answers = Number(root.dataset.answers || 0) + 1;
    } catch (error) {
      failed = `The model does not answer (${error.message}). Reload the page, or play the course on Colab.`;
      frame.say(failed);
    }
    busy = false, root.dataset.idle = !dirty;
    judge(), frame.later();
  }

  // --- what the answer is worth
  function judge() {
    if (!answer) return;
    const {layers, boxes, labels} = answer, objects = boxes.map(([x0, y0, x1, y1]) => [(x0 + x1) / 2 / SIZE, (y0 + y1) / 2 / SIZE, (x1 - x0) / SIZE, (y1 - y0) / SIZE]);
    const taking = Array.from({length: queries}, (_, q) => q).filter(q => !answer.silent.has(q)), weights = ["class", "l1", "giou"].map(key => frame.state[key]);
    const each = layers.map(layer => layerLoss(layer, labels, objects, taking, weights)), last = each[each.length - 1], {probs, boxes: said_} = layers[layers.length - 1];
    const says = taking.map(q => {
      const c = argmax(probs[q].slice(0, -1)), box = corners(said_[q]).map(x => x * SIZE), t = last.best.indexOf(taking.indexOf(q));
      return {query: q, label: c, score: probs[q][c], box, object: t, ious: boxes.map(b => iou(b, box))};
    });
    const answers = says.filter(s => s.score > 0.5).sort((a, b) => a.score - b.score);
    verdict = {each, taking, says, answers, weights, objects, labels,
      owner: last.best.map(k => taking[k]), greedyOwner: last.greedy.map(k => taking[k]),
      totals: {Hungarian: total(last.cost, last.best), greedy: total(last.cost, last.greedy)},
      loss: each.reduce((sum, one) => sum + summed(one.loss), 0)};
    verdict.words = verdict.owner.map(q => {
      const {label, score} = says.find(s => s.query === q);
      return score > 0.5 ? `${classes[label]} ${percent(score)}` : "not seen";
    });
    const best = s => argmax(s.ious), sits = s => s.ious.length && Math.max(...s.ious) > 0.5;
    const seenAs = answers.filter(sits), twice = seenAs.find((a, i) => seenAs.some((b, j) => j > i && best(a) === best(b)));
    if (twice) {
      const both = seenAs.filter(s => best(s) === best(twice)).map(s => `q${s.query}`);
      win("twice", `${list(both)} both answer for ${letter(best(twice))}. Average precision counts the second one as a false alarm.`);
    }
    const {Hungarian, greedy: paid} = verdict.totals;
    if (paid - Hungarian > 0.005) win("greedy", `Greedy paid ${number(paid)}, the Hungarian assignment ${number(Hungarian)}.`);
    const wrong = !answer.mirrored && answer.padding !== "bare" && seenAs.find(s => s.score > 0.8 && s.label !== labels[best(s)]);
    if (wrong) win("wrong", `q${wrong.query} says ${classes[wrong.label]}, ${percent(wrong.score)}. You drew: ${classes[labels[best(wrong)]]}.`);
    Object.assign(root.dataset, {total: Hungarian, greedy: paid, loss: verdict.loss, owner: verdict.owner.join(","), detections: JSON.stringify(answers.map(({query, label, score, box}) =>
      ({query, label: classes[label], score: +score.toFixed(5), box: box.map(x => +x.toFixed(3))})).reverse())});
  }
  function win(name, text) {
    if (won.has(name)) return;
    won.add(name);
    const item = dares.querySelector(`[data-dare=${name}]`);
    item.style.minHeight = `${item.offsetHeight}px`;  // what stands below stays in its place
    item.classList.add("ndp-won"), item.querySelector("small").textContent = `Done: ${text}`;
  }

  // --- drawing
  const asked = () => {
    if (frame.hover) return frame.hover.query;
    if (frame.state.query !== "-") return frame.state.query;
    if (verdict && chosen !== null && verdict.owner[chosen] !== undefined) return verdict.owner[chosen];
    return verdict && verdict.answers.length ? verdict.answers[verdict.answers.length - 1].query : -1;
  };
  const colour = s => s.object >= 0 ? colourOf(s.object) : "#5D6779";

  function drawStage() {
    const width = wide(), wideCss = stage.clientWidth, tall = wideCss * SIZE / width, ratio = window.devicePixelRatio || 1, scale = tall / SIZE;
    if (!wideCss) return;
    canvas.style.height = `${tall}px`;
    const size = [Math.round(wideCss * ratio), Math.round(tall * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (frame.state.pixels) {
      context.imageSmoothingEnabled = false;
      context.drawImage(pixelCanvas(painted.pixels, SIZE), 0, 0, tall, tall);
    } else drawScene(context, scene, ground, scale);
    if (width > SIZE) drawPadding(context, tall, wideCss - tall, tall);
    if (!verdict) return;
    const q = frame.hover || frame.state.query !== "-" ? asked() : -1, shown = verdict.answers;
    if (q >= 0 && !dragging && answer.columns * 8 <= width) {
      context.save();
      context.beginPath(), context.rect(0, 0, answer.width * scale, tall), context.clip();
      drawHeat(context, answer.cross[answer.cross.length - 1][q], answer.columns, answer.width * scale, tall, 0.85);
      context.restore();
    }
    for (const s of shown) outline(context, s.box.map(x => x * scale), colour(s), {width: s.query === q ? 3.5 : 2, dash: s.object < 0 ? [6, 4] : [], alpha: q < 0 || s.query === q ? 1 : 0.4});
    if (q >= 0 && !shown.some(s => s.query === q)) {
      const s = verdict.says.find(one => one.query === q);
      if (s) outline(context, s.box.map(x => x * scale), "#5D6779", {width: 2, dash: [3, 4]});
    }
    labels(context, [...shown].reverse().map(s => ({text: `${classes[s.label]} ${percent(s.score)}`, box: s.box.map(x => x * scale), fill: colour(s)})), wideCss, tall, 12);
  }

  function drawQueries(q) {
    buttons.forEach((button, k) => {
      const s = verdict.says.find(one => one.query === k), [, words, bar] = button.children, there = s && s.score > 0.5;
      words.textContent = !s ? "silenced" : there ? classes[s.label] : "no object";
      button.classList.toggle("ndp-idle", !there), button.classList.toggle("ndp-mute", !s);
      button.style.setProperty("--mark", there ? colour(s) : "var(--quiet)"), bar.style.width = `${s ? 100 * s.score : 0}%`;
      button.setAttribute("aria-pressed", frame.state.query === k);
      button.setAttribute("aria-label", `Query ${k}: ${!s ? "silenced" : there ? `${classes[s.label]}, ${percent(s.score)}` : `no object; its best class is ${classes[s.label]}, ${percent(s.score)}`}`);
    });
    panels.forEach((panel, l) => {
      const width = answer.width, [context, w, tall] = panel.begin(full => full), h = w * SIZE / width;
      context.fillStyle = "#10131c", context.fillRect(0, 0, w, tall), context.translate(0, (tall - h) / 2);
      const scale = h / SIZE, {probs, boxes} = answer.layers[l], c = q < 0 ? 0 : argmax(probs[q]);
      drawScene(context, scene, ground, scale);
      if (width > SIZE) drawPadding(context, h, w - h, h);
      if (q < 0 || answer.silent.has(q)) return panel.title(`layer ${l + 1}`);
      context.fillStyle = "rgba(8,10,20,.35)", context.fillRect(0, 0, w, h);
      drawHeat(context, answer.cross[l][q], answer.columns, w, h, 0.9);
      outline(context, corners(boxes[q]).map(x => x * SIZE * scale), "#7CE0FF", {width: 1.8, halo: "rgba(0,0,0,.7)"});
      panel.title(`layer ${l + 1}`, `${c === classes.length ? "no object" : classes[c]} ${percent(probs[q][c])}`);
      frame.describe(panel, `Where query ${q} looks in layer ${l + 1}; it says ${c === classes.length ? "no object" : classes[c]}, ${percent(probs[q][c])}`);
    });
    mute.textContent = q < 0 ? "silence a query" : silent.has(q) ? `let q${q} speak` : `silence q${q}`;
    mute.disabled = q < 0 || (!silent.has(q) && silent.size >= queries - MOST);
    asks.textContent = q < 0 ? "" : `q${q}: bright is where it looks, the blue box is what it says after that layer.`;
  }

  let tableFor = "";
  function drawTable(q) {
    const {each, taking, owner, greedyOwner, labels: kinds} = verdict, {cost} = each[each.length - 1], marks = `${kinds.join()}|${taking.join()}`;
    if (tableFor !== marks) {  // other rows or columns
      tableFor = marks;
      const head = element("tr", {}, element("th", {scope: "col", textContent: kinds.length ? "" : "no shapes"}));
      kinds.forEach((k, t) => head.append(element("th", {scope: "col", textContent: `${letter(t)} ${classes[k]}`, title: `${letter(t)} ${classes[k]}`, style: `--mark: ${colourOf(t)}`})));
      table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...taking.map(k => element("tr", {}, element("th", {scope: "row", textContent: `q${k}`}), ...kinds.map(() => element("td", {}))))));
    }
    const flat = cost.flat(), low = Math.min(...flat), high = Math.max(...flat);
    [...table.tBodies[0].rows].forEach((line, i) => {
      line.cells[0].style.fontWeight = taking[i] === q ? 800 : 500;
      kinds.forEach((_, t) => {
        const td = line.cells[t + 1], ground_ = COST((cost[i][t] - low) / (high - low || 1)), best = owner[t] === taking[i], dot = greedyOwner[t] === taking[i];
        td.textContent = number(cost[i][t]), td.style.background = css(ground_), td.style.color = luminance(ground_) < 0.179 ? "#fff" : "#000";
        td.className = `${best ? "best" : ""} ${dot ? "greedy" : ""}`;
        td.title = `q${taking[i]} for ${letter(t)}${best ? ", Hungarian" : ""}${dot ? ", greedy" : ""}`;
      });
    });
    const {Hungarian, greedy: paid} = verdict.totals, differ = owner.filter((o, t) => greedyOwner[t] !== o).length;
    said.textContent = !kinds.length ? "No object: every query should say no object." : paid - Hungarian > 0.005 ? `Hungarian total ${number(Hungarian)}. Greedy pays ${number(paid)}: ${differ} of ${kinds.length} objects get another query.` :
      `Hungarian total ${number(Hungarian)}. Greedy finds ${differ ? "as good a total" : "the same pairs"}.`;
  }

  function drawLoss() {
    if (!losses.tBodies.length) losses.append(element("thead", {}, element("tr", {}, ...["", "class", "5 L1", "2 GIoU", "sum", ""].map(text => element("th", {scope: "col", textContent: text})))), element("tbody", {},
      ...verdict.each.map((_, l) => element("tr", {}, element("th", {scope: "row", textContent: `layer ${l + 1}`}), ...[0, 1, 2, 3].map(() => element("td", {})), element("td", {}, element("span", {className: "ndp-bar"})))),
      element("tr", {}, element("th", {scope: "row", textContent: "loss"}), ...[0, 1, 2, 3].map(() => element("td", {})), element("td", {}))));
    const lines = verdict.each.map(({loss}) => [loss.class, LOSS.l1 * loss.l1, LOSS.giou * loss.giou, summed(loss)]), all = [0, 1, 2, 3].map(k => lines.reduce((sum, line) => sum + line[k], 0));
    const most = Math.max(2, ...lines.map(line => line[3]));
    [...lines, all].forEach((line, l) => {
      const {cells} = losses.tBodies[0].rows[l];
      line.forEach((x, k) => { cells[k + 1].textContent = number(x); });
      cells[4].style.fontWeight = 700;
      if (l < lines.length) cells[5].firstChild.style.width = `${100 * line[3] / most}%`;
    });
  }

  let quiet = 0;
  function say() {  // after a moment of rest, for eyes and for screen readers
    clearTimeout(quiet);
    quiet = setTimeout(() => {
      if (failed || !verdict) return;
      const {answers, labels: kinds} = verdict, told = [...answers].reverse().map(s => `${classes[s.label]} ${percent(s.score)}`);
      const broken = [answer.mirrored && "its positions are mirrored", answer.cut && "its queries do not hear each other", answer.padding === "bare" && "it takes the padding for picture",
        silent.size && `${silent.size > 1 ? `${silent.size} queries are` : "one query is"} silenced`, answer.stage < stages.length - 1 && `its weights: ${stages[answer.stage].name}`].filter(Boolean);
      frame.say(`${kinds.length} ${kinds.length === 1 ? "shape" : "shapes"}, ${answers.length} ${answers.length === 1 ? "answer" : "answers"}${told.length ? `: ${told.join(", ")}` : ""}.${broken.length ? ` Note: ${list(broken)}.` : ""}`);
    }, 350);
  }

  let judged = "", stateWas = "";
  function draw(state) {
    const now = JSON.stringify([state.stage, state.mirrored, state.cut, state.padding]);
    if (now !== stateWas) stateWas = now, dirty = true;
    if (!ground) ground = pixelCanvas(background(scene.corners), SIZE);
    if (!pixels) pixels = painted = paint(scene);
    const weights = [state.class, state.l1, state.giou].join();
    if (weights !== judged) judged = weights, judge();
    place_();
    drawStage();
    if (verdict) {
      const q = asked();
      drawQueries(q), drawTable(q), drawLoss(), say();
    }
    shapeTools.querySelectorAll("button").forEach(button => button.setAttribute("aria-disabled", chosen === null));
    adders.forEach(button => button.setAttribute("aria-disabled", scene.things.length >= MOST));
    root.dataset.idle = !busy && !dirty, root.dataset.scene = JSON.stringify(scene.things.map(({kind, cx, cy, a, b}) => [kind, cx, cy, a, b].map(x => typeof x === "number" ? +x.toFixed(2) : x)));
    ask();
  }
  frame.said.setAttribute("aria-live", "polite");
  frame.hint.remove();
  painted = pixels = paint(scene), ground = pixelCanvas(background(scene.corners), SIZE);
  root.playground = {get answer() { return answer; }, get scene() { return scene; }, times, show(next) { fresh(next); }};  // for tests
  frame.say("The model is on its way \u2026");
  const close = frame.destroy.bind(frame);
  frame.destroy = () => { engine.close(), clearTimeout(quiet), close(); };
  return frame.start(draw);
}

// on the site: everything from `base`, one folder
export async function play(place, base) {
  const response = await fetch(`${base}playground.json`);
  if (!response.ok) throw new Error(`${response.status} for playground.json`);
  return mount(place, await response.json(), wasmEngine(base));
}

// in a notebook: what anywidget asks for
async function render({model, el}) {
  const frame = await mount(el, model.get("facts"), kernelEngine(model));
  return () => frame.destroy();
}

export default {render};
