const root = document.getElementById("attention-explorer");
const {layers, heads, levels, pictures} = JSON.parse(byName(root, "data").textContent);
const scene = byName(root, "scene"), CELL = "#7CE0FF";
const state = {picture: 0, view: 0, row: 0, column: 0, hover: null};
fillSelect(byName(root, "picture"), pictures.map(p => p.names.join(", ")));

// one small canvas and a caption for every head of every layer
const maps = [];
for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) {
  if (!h) byName(root, "maps").append(Object.assign(document.createElement("div"), {textContent: `layer ${l + 1}`}));
  const figure = document.createElement("figure"), canvas = document.createElement("canvas");
  const caption = document.createElement("figcaption");
  figure.append(canvas, caption);
  byName(root, "maps").append(figure);
  maps.push({l, h, canvas, caption});
}

// base64 of deflated bytes -> bytes
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// the attention of cell (row, column) in one head: N numbers that add up to 1
function weights(view, l, h, row, column) {
  const n = view.rows * view.columns, from = (l * heads + h) * n + row * view.columns + column, start = layers * heads * n + from * n;
  const line = Array.from(view.numbers.subarray(start, start + n), x => x / levels * view.numbers[from] / 255);
  const total = line.reduce((a, b) => a + b, 0);
  return line.map(x => x / total);
}

const current = () => {
  const picture = pictures[state.picture], view = picture.views[state.view];
  return {picture, view, cell: state.hover || [state.row, state.column], size: picture.size / view.rows};
};

// the smallest object whose box has the middle of the cell in it, or -1
function objectAt(picture, size, row, column) {
  const x = (column + 0.5) * size, y = (row + 0.5) * size, area = b => (b[2] - b[0]) * (b[3] - b[1]);
  const inside = picture.boxes.map((b, i) => [b, i]).filter(([b]) => b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]);
  return inside.length ? inside.sort((a, b) => area(a[0]) - area(b[0]))[0][1] : -1;
}

function drawPicture(context, width, height, picture, view) {
  const scale = height / picture.size;
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#000", context.fillRect(0, 0, width, height);
  context.drawImage(picture.image, 0, 0, picture.size * scale, height);
  context.strokeStyle = "rgba(255,255,255,0.18)", context.lineWidth = 1;
  if (view.columns === view.rows) return;
  context.save(), context.beginPath(), context.rect(height, 0, width - height, height), context.clip(), context.beginPath();
  for (let x = height - height; x < width + height; x += 9) context.moveTo(x, height), context.lineTo(x + height, 0);
  context.stroke(), context.restore();
}

function drawScene() {
  const {picture, view, cell, size} = current();
  const [context, width, height] = sharpen(scene, view.columns / view.rows), step = height / view.rows;
  drawPicture(context, width, height, picture, view);
  context.beginPath();
  for (let i = 1; i < view.columns; i++) context.moveTo(i * step, 0), context.lineTo(i * step, height);
  for (let i = 1; i < view.rows; i++) context.moveTo(0, i * step), context.lineTo(width, i * step);
  context.stroke();
  const [r, c] = cell;
  outline(context, [c * step, r * step, (c + 1) * step, (r + 1) * step], CELL, 2.5, [], INK);
}

function drawMap({l, h, canvas, caption}) {
  const {picture, view, cell} = current(), line = weights(view, l, h, ...cell), most = Math.max(...line);
  const [context, width, height] = sharpen(canvas, view.columns / view.rows), step = height / view.rows;
  drawPicture(context, width, height, picture, view);
  const heat = new ImageData(view.columns, view.rows);
  line.forEach((x, i) => heat.data.set([...HEAT(x / most), 255 * (0.3 + 0.6 * x / most)], 4 * i));
  const small = document.createElement("canvas");
  small.width = view.columns, small.height = view.rows;
  small.getContext("2d").putImageData(heat, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, width, height);
  outline(context, [cell[1] * step, cell[0] * step, (cell[1] + 1) * step, (cell[0] + 1) * step], CELL, 1.5, [], INK);
  caption.textContent = `head ${h + 1}: ${Math.round(100 * most)}\u00a0%`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `layer ${l + 1}, head ${h + 1}: the most that one cell gets is ${Math.round(100 * most)} per cent`);
}

function say() {
  const {picture, view, cell: [row, column], size} = current();
  const where = `Row ${row + 1}, column ${column + 1}`, percent = x => `${Math.round(100 * x)} %`;
  const shares = belongs => maps.map(({l, h}) => ({l, h, share: weights(view, l, h, row, column)
    .reduce((sum, x, i) => sum + (belongs(Math.floor(i / view.columns), i % view.columns) ? x : 0), 0)}));
  const best = list => list.reduce((a, b) => b.share > a.share ? b : a);
  const padding = best(shares((r, c) => c >= view.rows)), object = column < view.rows ? objectAt(picture, size, row, column) : -1;
  let text = column >= view.rows ? `${where}: padding, where there is no picture.` : object < 0 ? `${where}: background.` : "";
  if (object >= 0) {
    const [x0, y0, x1, y1] = picture.boxes[object];
    const inside = (r, c) => x0 <= (c + 0.5) * size && (c + 0.5) * size <= x1 && y0 <= (r + 0.5) * size && (r + 0.5) * size <= y1;
    const top = best(shares(inside)), cells = view.rows * view.columns;
    let area = 0;
    for (let i = 0; i < cells; i++) area += inside(Math.floor(i / view.columns), i % view.columns);
    text = `${where}: in the ${picture.names[object]}. Layer ${top.l + 1}, head ${top.h + 1} looks most into its box: ` +
      `${percent(top.share)} of the attention, for a box of ${percent(area / cells)} of the cells.`;
  }
  if (state.view === 1) text += " With the mask, no head looks at the padding.";
  if (state.view === 2) text += ` Without the mask, up to ${percent(padding.share)} of the attention is lost on padding (layer ${padding.l + 1}, head ${padding.h + 1}).`;
  byName(root, "sentence").textContent = text;
}

function draw() {
  if (!current().view.numbers) return;
  drawScene(), maps.forEach(drawMap), say();
}

function cellAt(event) {
  const {view} = current(), box = scene.getBoundingClientRect();
  const pick = (x, length, count) => Math.min(Math.max(Math.floor(x / length * count), 0), count - 1);
  return [pick(event.clientY - box.top, box.height, view.rows), pick(event.clientX - box.left, box.width, view.columns)];
}

// on a new picture, a cell in the middle of its largest object
function start() {
  const {picture, size} = current(), area = b => (b[2] - b[0]) * (b[3] - b[1]);
  const [x0, y0, x1, y1] = picture.boxes.reduce((a, b) => area(b) > area(a) ? b : a);
  state.row = Math.floor((y0 + y1) / 2 / size), state.column = Math.floor((x0 + x1) / 2 / size);
}

scene.addEventListener("click", event => { [state.row, state.column] = cellAt(event), state.hover = null; draw(); });
scene.addEventListener("pointermove", event => { if (event.pointerType === "mouse") state.hover = cellAt(event), draw(); });
scene.addEventListener("pointerleave", () => { state.hover = null; draw(); });
scene.addEventListener("keydown", event => {
  const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key], {view} = current();
  if (!move) return;
  event.preventDefault();
  state.row = Math.min(Math.max(state.row + move[0], 0), view.rows - 1), state.hover = null;
  state.column = Math.min(Math.max(state.column + move[1], 0), view.columns - 1);
  draw();
});
byName(root, "picture").addEventListener("change", event => { state.picture = +event.target.value, start(), draw(); });
byName(root, "view").addEventListener("change", event => {
  state.view = +event.target.value;
  root.classList.toggle("wide", state.view > 0);
  state.column = Math.min(state.column, current().view.columns - 1);
  draw();
});
new ResizeObserver(draw).observe(scene);

Promise.all(pictures.map(async picture => {
  picture.image = await loadImage(picture.png);
  for (const view of picture.views) view.numbers = await unpack(view.weights);
})).then(() => { start(), draw(), root.classList.add("ready"); });
