// What one query looks at: its box after each layer, the image layer by layer, and the other queries; also when one of them is not asked.
import {INK, LIT, Frame, argmax, cellsIn, clamp, drawMap, forNotebook, iou, labels, list, loadImage, number, outline, percent, photo, unpacked, write} from "./core.js";

const WITHOUT = {"-2": "self-attention", "-3": "positions"};  // what can be left out besides a query
const SHARED = "#2678D1", ELSEWHERE = "#98A2B3";

// the other queries whose xyxy boxes overlap that of `query` by an IoU above one half
export const onTheSame = (boxes, query, out = -1) => boxes.map((_, q) => q).filter(q => q !== query && q !== out && iou(boxes[q], boxes[query]) > 0.5);

export async function mount(place, data, given = {}, changed = () => {}) {
  const {layers, heads, queries, classes, scenes} = data;
  const images = await Promise.all(scenes.map(scene => loadImage(scene.image)));
  const decoded = new Map(), numbersOf = packed => decoded.get(packed) || decoded.set(packed, unpacked(packed, true)).get(packed);
  const frame = new Frame(place, "decoder_attention", {image: 0, query: 0, layer: Math.min(2, layers), leave_out: -1, smooth: true, ...given}, changed);

  if (scenes.length > 1) frame.pills("image", "image", scenes.map((scene, k) => [scene.image, k]), {pictures: true, texts: scenes.map((_, k) => `image ${k}`)});
  const all = Array.from({length: queries}, (_, q) => q), canLeave = Object.keys(scenes[0].passes).length > 1, parts = [-2, -3].filter(out => out in scenes[0].passes);
  if (queries <= 16) frame.pills("query", "query", all.map(q => [`q${q}`, q]));
  else frame.range("query", "query", 0, queries - 1, 1, {wide: true, show: q => `q${q}`});
  frame.pills("layer", "layer", Array.from({length: layers}, (_, l) => [String(l + 1), l + 1]));
  if (canLeave && queries <= 16) frame.pills("leave_out", "leave out", [["none", -1], ...all.map(q => [`q${q}`, q]), ...parts.map(out => [WITHOUT[out], out])]);
  else if (canLeave) frame.range("leave_out", "leave out", -1 - parts.length, queries - 1, 1, {wide: true, show: q => WITHOUT[q] || (q < 0 ? "none" : `q${q}`)});
  frame.check("smooth", "smooth");

  frame.main.style.gridTemplateColumns = "minmax(0, 5fr) minmax(0, 8fr)";
  const left = document.createElement("div"), pictures = document.createElement("div");
  pictures.style.cssText = "display:grid;gap:8px;align-items:end;grid-template-columns:minmax(0,1fr) minmax(0,1fr)", left.className = "ndx-cell";
  left.append(pictures), frame.main.append(left);
  const whole = frame.panel("scene", pictures), without = frame.panel("without", pictures), bars = frame.panel("bars", left), maps = frame.panel("maps");
  bars.cell.style.marginTop = "12px", whole.head.style.cssText = "min-height:4.1em;align-content:start";  // its note takes one line or two
  const tallest = Math.max(...scenes.map(scene => scene.height / scene.width));
  let shown = [], shownWithout = [], slots = [], grid = [];

  const clean = state => ({...state, image: clamp(state.image, 0, scenes.length - 1), query: clamp(state.query, 0, queries - 1), layer: clamp(state.layer, 1, layers)});
  const attention = (pass, kind, layer, head, query, columns) => line(numbersOf(pass[kind]), (layer * heads + head) * queries + query, columns);
  const line = (numbers, row, columns) => numbers.subarray(row * columns, (row + 1) * columns);
  const listens = (pass, layer, query) => all.map(q => Array.from({length: heads}, (_, h) => attention(pass, "self", layer, h, query, queries)[q]));

  function drawScene(panel, state, pass, query, out, title, note) {
    const scene = scenes[state.image], [context, width, height] = panel.begin(w => Math.round(w * tallest)), list_ = [];
    const wide = Math.min(width, height * scene.width / scene.height), scale = wide / scene.width, high = scene.height * scale;
    photo(context, images[state.image], 0, 0, wide, high);
    const boxes = pass.boxes[state.layer - 1], scores = pass.scores[state.layer - 1], same = query < 0 ? [] : onTheSame(boxes, query, out);
    const weights = query < 0 ? all.map(() => 0) : listens(pass, state.layer - 1, query).map(row => row.reduce((a, b) => a + b, 0) / heads);
    const role = q => q === query ? 0 : same.includes(q) ? 1 : 2, colours = [LIT, SHARED, ELSEWHERE];
    const seen = all.filter(q => q !== out && (role(q) < 2 || scores[q] > 0.5 || weights[q] > 0.05)).sort((a, b) => role(b) - role(a));
    for (const q of seen) {
      const box = boxes[q].map(x => x * scale);
      outline(context, box, colours[role(q)], {width: q === query ? 2.6 : 1.2 + 6 * weights[q], dash: scores[q] > 0.5 ? [] : [4, 3], halo: role(q) < 2 ? "rgba(255,255,255,.85)" : null});
      list_.push([box, q]);
    }
    labels(context, seen.reverse().map(q => ({text: `q${q}`, box: boxes[q].map(x => x * scale), fill: ["#B8500A", SHARED, "#667085"][role(q)], ink: "#fff", faint: role(q) > 1})), wide, high, 10.5);
    panel.title(title, note);
    frame.describe(panel, `${title}: the boxes of the queries, q${state.query} chosen. Left and right: the query before and after; up and down: the layer.`);
    return list_;
  }

  function drawBars(state, pass, query, hover) {
    const spare = state.leave_out === -1 ? 0 : Math.round((left.clientWidth - whole.cell.clientWidth) * tallest);
    const [context, width, height] = bars.begin(150 + spare), rows = listens(pass, state.layer - 1, query), sums = rows.map(row => row.reduce((a, b) => a + b, 0) / heads);
    const boxes = pass.boxes[state.layer - 1], scores = pass.scores[state.layer - 1], same = onTheSame(boxes, query, state.leave_out);
    const kept = all.filter(q => q !== state.leave_out && q !== query).sort((a, b) => sums[b] - sums[a]).slice(0, Math.max(4, Math.floor(width / 21) - 1));
    const listed = [query, ...kept].sort((a, b) => a - b), step = width / Math.max(listed.length, 6), floor = height - 32, most = Math.max(0.3, ...sums) * 1.16;
    slots = [];
    listed.forEach((q, k) => {
      const colour = q === query ? LIT : same.includes(q) ? SHARED : ELSEWHERE, x = k * step + step * 0.12, wide = step * 0.76, on = hover && hover.query === q;
      let base = floor;
      rows[q].forEach((weight, h) => {
        const tall = weight / heads / most * (floor - 14);
        context.globalAlpha = 1 - 0.55 * h / heads, context.fillStyle = colour, context.fillRect(x, base - tall, wide, Math.max(tall - 0.7, 0));
        context.globalAlpha = 1;
        if (tall > 13) write(context, String(h + 1), x + wide / 2, base - tall / 2, {size: 9.5, colour: h / heads > 0.45 ? INK : "#fff", align: "center"});
        base -= tall;
      });
      if (sums[q] >= 0.03) write(context, percent(sums[q]).replace("\u00a0", ""), x + wide / 2, base - 7, {size: 10, colour: frame.ink, align: "center"});
      const label = colour === ELSEWHERE ? frame.quiet : colour;
      write(context, `q${q}`, x + wide / 2, floor + 10, {size: 11, weight: scores[q] > 0.5 || on ? 700 : 400, colour: label, align: "center"});
      write(context, scores[q] >= 0.005 ? scores[q].toFixed(2) : "0", x + wide / 2, floor + 24, {size: step < 24 ? 8.5 : 9.5, colour: frame.quiet, align: "center"});
      if (on) context.strokeStyle = frame.ink, context.lineWidth = 1, context.strokeRect(k * step + 0.5, 0.5, step - 1, height - 1);
      slots.push([k * step, step, q]);
    });
    context.fillStyle = frame.rule, context.fillRect(0, floor, width, 1);
    if (state.leave_out === -2) write(context, "nobody: its self-attention is taken away", width / 2, floor / 2, {size: 11, colour: frame.quiet, align: "center"});
    bars.title(`Whom q${query} listens to, layer ${state.layer}`, "one shade per head; below: scores");
    frame.describe(bars, `Self-attention of q${query} in layer ${state.layer}: ` + listed.filter(q => sums[q] > 0.03).map(q => `q${q} ${percent(sums[q])}`).join(", ") + ". Left and right: another query.");
    return sums;
  }

  function drawMaps(state, pass, query) {
    const scene = scenes[state.image], view = {rows: scene.rows, columns: scene.columns, width: scene.width, height: scene.height}, narrow = frame.root.classList.contains("ndx-narrow");
    const per = narrow && heads > 4 ? 4 : heads, gap = 7, lines = Math.ceil(heads / per);
    const sideOf = w => (w - gap * (per - 1)) / per, stepOf = w => sideOf(w) * tallest + (narrow ? 32 : 20);
    const [context, width] = maps.begin(w => Math.ceil(layers * (lines * stepOf(w) + 24)));
    const side = sideOf(width), tall = side * scene.height / scene.width, inside = [];
    grid = [];
    for (let l = 0; l < layers; l++) {
      const top = l * (lines * stepOf(width) + 24) + 20, box = pass.boxes[l][query], region = cellsIn(box, view);
      write(context, `layer ${l + 1}`, 0, top - 11, {size: 11.5, weight: 650, colour: l + 1 === state.layer ? LIT : frame.ink});
      write(context, `${classes[pass.labels[l][query]]}, ${pass.scores[l][query].toFixed(2)}`, 52, top - 11, {size: 11.5, colour: frame.quiet});
      for (let h = 0; h < heads; h++) {
        const x = (h % per) * (side + gap), y = top + Math.floor(h / per) * stepOf(width), row = attention(pass, "cross", l, h, query, view.rows * view.columns);
        const [most] = drawMap(context, images[state.image], view, row, x, y, side, {smooth: state.smooth});
        outline(context, [x + box[0] / scene.width * side, y + box[1] / scene.height * tall, x + box[2] / scene.width * side, y + box[3] / scene.height * tall], "#fff", {width: 1.3, halo: INK});
        const within = row.reduce((sum, value, i) => sum + (region[i] ? value : 0), 0);
        inside.push(within.toFixed(3));
        grid.push([x, y, side, tall, l, h]);
        if (narrow) {
          write(context, `head ${h + 1}`, x, y + tall + 8, {size: 10, colour: frame.quiet});
          write(context, `${percent(within)} in`, x, y + tall + 20, {size: 10, weight: 600, colour: frame.ink});
        } else {
          write(context, `head ${h + 1}: ${percent(within)} in`, x, y + tall + 10, {size: 11, colour: frame.ink});
          if (side > 115) write(context, number(most), x + side, y + tall + 10, {size: 10, colour: frame.quiet, align: "right"});
        }
      }
    }
    maps.title(`Where q${query} looks`, "how much of the weight is inside its box");
    frame.describe(maps, `Cross-attention of q${query}: ${layers} layers with ${heads} heads each. Left and right: another query; up and down: the layer.`);
    frame.root.dataset.inside = inside.join(",");
  }

  const heirs = (before, after, out) => {
    const rose = all.filter(q => q !== out && after[q] > 0.5 && before[q] < 0.5).map(q => `q${q} rises from ${before[q].toFixed(2)} to ${after[q].toFixed(2)}`);
    return `Without q${out}, ${rose.length ? list(rose) : "no other query reports an object"}.`;
  };

  function part(full, pass, query, out) {
    const last = layers - 1, boxes = pass.boxes[last], sure = all.filter(q => pass.scores[last][q] > 0.5), before = full.scores[last].filter(score => score > 0.5).length;
    const shared = sure.filter(q => onTheSame(boxes, q).some(other => sure.includes(other))).length, moved = iou(boxes[query], full.boxes[last][query]);
    return `Without ${WITHOUT[out]}, ${sure.length} ${sure.length === 1 ? "query reports" : "queries report"} an object, and ${before} with ${out === -2 ? "it" : "them"}${shared ? `; ${shared} of them share a box` : ""}. q${query}'s last box has an IoU of ${moved.toFixed(2)} with what it was.`;
  }

  function rivals(pass, query, layer) {
    const same = onTheSame(pass.boxes[layer - 1], query), final = pass.scores[layers - 1], told = listens(pass, layer - 1, query);
    if (!same.length) return "No other query is on the same box.";
    const share = same.reduce((sum, q) => sum + told[q].reduce((a, b) => a + b, 0) / heads, 0);
    const text = `On the same box: ${same.length < 8 ? list(same.map(q => `q${q}`)) : `${same.length} queries`}, with ${percent(share)} of its self-attention in layer ${layer}.`;
    const sure = [query, ...same].filter(q => final[q] > 0.5);
    if (!sure.length) return `${text} None of them is sure.`;
    if (sure.length === 1 && sure[0] === query) return `${text} It wins: no other query reports the object.`;
    if (sure[0] === query) return `${text} It reports an object, and not alone: ${list(sure.slice(1).map(q => `q${q}`))} too.`;
    const best = sure[argmax(sure.map(q => final[q]))];
    return `${text} It leaves the object to q${best} (${final[best].toFixed(2)}). Leave out q${best}, and see.`;
  }

  function words(state, full, pass) {
    const {query, layer, leave_out} = state;
    if (query === leave_out) return `q${query} is left out: pick another query, or leave out none.`;
    const score = l => pass.scores[l][query], word = l => classes[pass.labels[l][query]], last = layers - 1;
    const verdict = score(last) > 0.5 ? `${"aeiou".includes(word(last)[0]) ? "an" : "a"} ${word(last)}` : "no object";
    let text = `q${query} says ${verdict}: its best guess is ${word(0)} with ${score(0).toFixed(2)} after layer 1, ${word(last)} with ${score(last).toFixed(2)} after layer ${layers}. `;
    text += leave_out === -1 ? rivals(pass, query, layer) : leave_out < 0 ? part(full, pass, query, leave_out) : heirs(full.scores[last], pass.scores[last], leave_out);
    return layer === 1 ? `${text} (In layer 1 no query has seen the image yet: its self-attention is the same for all images.)` : text;
  }

  function draw(state, hover) {
    const scene = scenes[state.image], full = scene.passes[-1], pass = scene.passes[state.leave_out] || full, out = state.leave_out;
    const query = hover && hover.query !== undefined && hover.peek ? hover.query : state.query;
    pictures.style.gridTemplateColumns = out === -1 ? "minmax(0,1fr)" : "minmax(0,1fr) minmax(0,1fr)";
    without.cell.hidden = out === -1;
    shown = drawScene(whole, state, full, query, -1, out === -1 ? `After layer ${state.layer}` : out < 0 ? "The whole model" : "All asked", out === -1 ? "orange: chosen, blue: on the same, dashed: no object" : `after layer ${state.layer}`);
    if (out !== -1) shownWithout = drawScene(without, state, pass, query === out ? -1 : query, out, out < 0 ? "Without" : `Without q${out}`, WITHOUT[out] || "");
    const sums = drawBars(state, pass, query, hover);
    drawMaps(state, pass, query);
    frame.say(words(state, full, pass));
    if (hover && hover.cell !== undefined) {
      const value = attention(pass, "cross", hover.layer, hover.head, query, scene.rows * scene.columns)[hover.cell];
      frame.tell(`layer ${hover.layer + 1}, head ${hover.head + 1}: q${query} gives ${number(value, 3)} of its weight to row ${Math.floor(hover.cell / scene.columns)}, column ${hover.cell % scene.columns}`);
    } else if (hover && hover.query !== undefined) {
      const q = hover.query, last = layers - 1;
      frame.tell(`q${q}: ${classes[pass.labels[last][q]]} with ${pass.scores[last][q].toFixed(2)} at the end; q${state.query} gives it ${percent(listens(pass, state.layer - 1, state.query)[q].reduce((a, b) => a + b, 0) / heads)} of its self-attention in layer ${state.layer}`);
    } else frame.tell("Point at a box, a bar or a map; press a box or a bar to choose its query. The arrow keys do it, too.");
    Object.assign(frame.root.dataset, {listens: sums.map(x => x.toFixed(3)).join(","), scores: pass.scores[layers - 1].map(x => x.toFixed(3)).join(",")});
  }

  const choose = target => frame.set(target.cell !== undefined ? {layer: target.layer + 1} : {query: target.query});
  const move = (dx, dy) => {
    let query = frame.state.query + dx;
    if (query === frame.state.leave_out) query += dx;
    frame.set({query: query < 0 || query >= queries ? frame.state.query : query, layer: frame.state.layer + dy});
  };
  const smallest = (boxes, x, y) => {
    const hit = boxes.filter(([b]) => b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]).sort(([a], [b]) => (a[2] - a[0]) * (a[3] - a[1]) - (b[2] - b[0]) * (b[3] - b[1]));
    return hit.length ? {query: hit[0][1]} : null;
  };
  frame.touchable(whole, {label: "scene", choose, move, at: (x, y) => smallest(shown, x, y)});
  frame.touchable(without, {label: "scene without a query", choose, move, at: (x, y) => smallest(shownWithout, x, y)});
  frame.touchable(bars, {label: "bars", choose, move, at(x) { const slot = slots.find(([from, wide]) => from <= x && x < from + wide); return slot ? {query: slot[2], peek: true} : null; }});
  frame.touchable(maps, {
    label: "maps", choose, move,
    at(x, y) {
      const hit = grid.find(([x0, y0, w, h]) => x0 <= x && x < x0 + w && y0 <= y && y < y0 + h), scene = scenes[frame.state.image];
      if (!hit) return null;
      const [x0, y0, w, h, layer, head] = hit;
      return {layer, head, cell: Math.floor((y - y0) / h * scene.rows) * scene.columns + Math.floor((x - x0) / w * scene.columns)};
    }});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
