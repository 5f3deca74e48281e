// The Hungarian algorithm with prices (potentials): objects are inserted one after the other, each along the cheapest chain
// of moves. cost: Q rows of N numbers, N <= Q -> for each object its query. About N^2 Q steps.
function assign(cost) {
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

// the cheapest cell, cross out its row and column, repeat
function greedy(cost) {
  const cells = cost.flatMap((row, q) => row.map((value, j) => [value, q, j])).sort((a, b) => a[0] - b[0]);
  const answer = Array(cost.length ? cost[0].length : 0).fill(-1), taken = new Set();
  for (const [, q, j] of cells) if (answer[j] < 0 && !taken.has(q)) answer[j] = q, taken.add(q);
  return answer;
}

const total = (cost, answer) => answer.reduce((sum, q, j) => sum + cost[q][j], 0);

const corners = ([x, y, w, h]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2];

// generalised IoU of two xyxy boxes
function giou(a, b) {
  const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);
  const [low, high] = [[0, 1].map(k => Math.max(a[k], b[k])), [2, 3].map(k => Math.min(a[k], b[k]))];
  const shared = area([...low, ...high]), union = area(a) + area(b) - shared;
  const hull = area([Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])]);
  return shared / union - (hull - union) / hull;
}

// the three parts of every pair's cost, without their weights: Q rows of N times [class, L1, GIoU]
function parts(says, picture) {
  return says.boxes.map((box, q) => picture.boxes.map((object, j) => [
    -says.probs[q][picture.labels[j]],
    box.reduce((sum, x, k) => sum + Math.abs(x - object[k]), 0),
    -giou(corners(box), corners(object))]));
}

const root = document.getElementById("matching-explorer");
const {classes, pictures, models} = JSON.parse(byName(root, "data").textContent);
const scene = byName(root, "scene"), table = byName(root, "table"), WEIGHTS = {class: 1, l1: 5, giou: 2};
const state = {picture: 0, model: 0, draw: "best", cell: null};
const number = (x, digits = 2) => (Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x).toFixed(digits).replace("-", "\u2212");
fillSelect(byName(root, "picture"), pictures.map(p => p.labels.map(i => classes[i]).join(", ")));
fillSelect(byName(root, "model"), models.map(m => m.name));

function solve() {
  const picture = pictures[state.picture], says = models[state.model].says[state.picture];
  const weight = ["class", "l1", "giou"].map(name => +byName(root, name).value);
  const raw = parts(says, picture);
  const cost = raw.map(row => row.map(three => three.reduce((sum, x, k) => sum + weight[k] * x, 0)));
  return {picture, says, weight, raw, cost, best: assign(cost), greedy: greedy(cost)};
}

const names = picture => picture.labels.map((label, j) => {
  const twins = picture.labels.filter(l => l === label).length, nth = picture.labels.slice(0, j + 1).filter(l => l === label).length;
  return classes[label] + (twins > 1 ? ` ${nth}` : "");
});

function drawScene({picture, says, best, greedy}) {
  const [context, width, height] = sharpen(scene, 1), pixels = box => corners(box).map((x, k) => x * (k % 2 ? height : width));
  context.imageSmoothingEnabled = false;
  context.drawImage(picture.image, 0, 0, width, height);
  const pairs = state.cell ? [state.cell] : (state.draw === "best" ? best : greedy).map((q, j) => [q, j]);
  for (const [q, j] of pairs) outline(context, pixels(picture.boxes[j]), COLOURS[j], 2.2);
  for (const [q, j] of pairs) outline(context, pixels(says.boxes[q]), COLOURS[j], 1.8, [5, 4]);
  for (const [q, j] of pairs) {
    const [a, b] = [pixels(picture.boxes[j]), pixels(says.boxes[q])];
    const [x0, y0, x1, y1] = [(a[0] + a[2]) / 2, (a[1] + a[3]) / 2, (b[0] + b[2]) / 2, (b[1] + b[3]) / 2];
    for (const [style, line] of [["#fff", 3.5], [COLOURS[j], 1.8]]) {
      context.strokeStyle = style, context.lineWidth = line;
      context.beginPath(), context.moveTo(x0, y0), context.lineTo(x1, y1), context.stroke();
    }
  }
  for (const [q, j] of pairs) {
    const b = pixels(says.boxes[q]);
    label(context, `q${q}`, b[0], b[1], COLOURS[j], width);
  }
}

function buildTable({picture, says}) {
  const head = document.createElement("tr");
  head.append(document.createElement("td"));
  names(picture).forEach((name, j) => {
    const th = document.createElement("th");
    th.scope = "col", th.textContent = name, th.style.borderBottom = `3px solid ${COLOURS[j]}`;
    head.append(th);
  });
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...says.boxes.map((_, q) => {
    const row = document.createElement("tr"), th = document.createElement("th");
    th.scope = "row", th.textContent = `q${q}`;
    row.append(th, ...picture.boxes.map((_, j) => {
      const td = document.createElement("td");
      td.dataset.pair = `${q},${j}`, td.tabIndex = q + j ? -1 : 0;
      return td;
    }));
    return row;
  }));
}

function drawTable({cost, best, greedy}) {
  const every = cost.flat(), low = Math.min(...every), high = Math.max(...every);
  for (const td of table.querySelectorAll("[data-pair]")) {
    const [q, j] = td.dataset.pair.split(",").map(Number), rgb = COST((cost[q][j] - low) / (high - low || 1));
    const marks = [best[j] === q && "Hungarian", greedy[j] === q && "greedy"].filter(Boolean);
    td.textContent = number(cost[q][j]);
    td.style.background = css(rgb), td.style.color = textOn(rgb);
    td.className = [best[j] === q && "best", greedy[j] === q && "greedy", state.cell && state.cell[0] === q && state.cell[1] === j && "chosen"]
      .filter(Boolean).join(" ");
    td.setAttribute("aria-label", [`query ${q}, object ${j + 1}: ${number(cost[q][j])}`, ...marks].join(", "));
  }
}

function say({picture, weight, raw, cost, best, greedy}) {
  const [a, b] = [total(cost, best), total(cost, greedy)], differ = best.filter((q, j) => greedy[j] !== q).length;
  const text = b - a > 0.005 ? `Greedy pays ${number(b)}, ${number(b - a)} more: ${differ} of ${best.length} objects get another query.`
    : differ ? "Greedy reaches the same total with other pairs." : "Greedy finds the same pairs.";
  byName(root, "sentence").textContent = `Hungarian total ${number(a)}. ${text}`;
  root.dataset.total = a, root.dataset.greedy = b, root.dataset.pairs = best.join(",");
  if (!state.cell) {
    byName(root, "pair").textContent = "Hover a cell of the table: its two boxes, and its three numbers.";
    return;
  }
  const [q, j] = state.cell, list = ["class", "L1", "GIoU"].map((name, k) =>
    `${name} ${number(weight[k], 1)} \u00d7 ${number(raw[q][j][k])} = ${number(weight[k] * raw[q][j][k])}`);
  byName(root, "pair").textContent = `q${q} for the ${names(picture)[j]}: ${list.join(";  ")}; together ${number(cost[q][j])}.`;
}

function draw() {
  const now = solve();
  drawScene(now), drawTable(now), say(now);
}

function choose(cell) {
  state.cell = cell;
  draw();
}

const pairOf = event => event.target.dataset.pair && event.target.dataset.pair.split(",").map(Number);
table.addEventListener("pointerover", event => { if (event.pointerType === "mouse" && pairOf(event)) choose(pairOf(event)); });
table.addEventListener("pointerleave", () => choose(null));
table.addEventListener("click", event => { if (pairOf(event)) choose(pairOf(event)); });
table.addEventListener("focusin", event => { if (pairOf(event)) choose(pairOf(event)); });
table.addEventListener("focusout", () => choose(null));
table.addEventListener("keydown", event => {
  const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key], pair = pairOf(event);
  const next = move && pair && table.querySelector(`[data-pair="${pair[0] + move[0]},${pair[1] + move[1]}"]`);
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1, next.tabIndex = 0, next.focus();
});
for (const name of Object.keys(WEIGHTS)) byName(root, name).addEventListener("input", event => {
  byName(root, `${name}-value`).textContent = event.target.value;
  draw();
});
byName(root, "reset").addEventListener("click", () => {
  for (const [name, value] of Object.entries(WEIGHTS)) {
    byName(root, name).value = value;
    byName(root, `${name}-value`).textContent = value;
  }
  draw();
});
for (const name of ["picture", "model"]) byName(root, name).addEventListener("change", event => {
  state[name] = +event.target.value, state.cell = null;
  buildTable(solve()), draw();
});
byName(root, "draw").addEventListener("change", event => { state.draw = event.target.value; draw(); });
root.explorer = {assign, greedy, total};  // for the tests

Promise.all(pictures.map(async picture => { picture.image = await loadImage(picture.png); })).then(() => {
  buildTable(solve()), draw();
  new ResizeObserver(draw).observe(scene);
  root.classList.add("ready");
});
