// Where a cell of the feature map looks: every head of every encoder layer, with padding and without, with the mask and without.
import {CELL, INK, Frame, area, cellsIn, clamp, drawMap, forNotebook, labels, loadImage, number, outline, percent, photo, rowOf, unpacked, write} from "./core.js";

const share = (row, region) => row.reduce((sum, x, i) => sum + (region[i] ? x : 0), 0);
const part = region => region.filter(Boolean).length / region.length;

export async function mount(place, data, given = {}, changed = () => {}) {
  const {layers, heads, scenes} = data, paddings = Object.keys(scenes[0].views);
  const images = await Promise.all(scenes.map(scene => loadImage(scene.image)));
  const decoded = new Map();  // unpacked when first looked at
  const weightsOf = view => decoded.get(view) || decoded.set(view, unpacked(view.weights, true)).get(view);
  const frame = new Frame(place, "encoder_attention", {image: 0, row: 3, column: 3, padding: "none", smooth: true, ...given}, changed);

  if (scenes.length > 1) frame.pills("image", "image", scenes.map((scene, k) => [scene.image, k]), {pictures: true, texts: scenes.map((scene, k) => `image ${k}: ${scene.names.join(", ") || "no object"}`)});
  if (paddings.length > 1) frame.pills("padding", "padding", paddings.map(name => [name, name]));
  let beside = false;
  const compare = paddings.length > 1 && frame.button("with and without the mask, side by side", button => {
    beside = !beside;
    button.setAttribute("aria-pressed", beside);
    frame.root.dataset.beside = beside;
    frame.later();
  });
  if (compare) compare.setAttribute("aria-pressed", "false");
  frame.check("smooth", "smooth");

  frame.main.style.gridTemplateColumns = "minmax(0, 4fr) minmax(0, 9fr)";
  const scenePanel = frame.panel("scene"), mapPanel = frame.panel("maps");
  const tallest = Math.max(...scenes.flatMap(scene => Object.values(scene.views).map(view => view.height / view.width)));
  const mapsPer = frame => frame.root.classList.contains("ndx-narrow") && heads > 4 ? 4 : heads;
  let grid = [];  // what can be pointed at: [x, y, width, height, view, map]

  const viewOf = state => scenes[state.image].views[state.padding];
  const clean = state => {
    const image = clamp(state.image, 0, scenes.length - 1), inner = scenes[image].views.none;
    return {...state, image, row: clamp(state.row, 0, inner.rows - 1), column: clamp(state.column, 0, inner.columns - 1)};
  };

  // the smallest object whose box has the middle of the cell in it, or -1; and its cells, or those of all objects
  function objectAt(scene, view, cell) {
    const regions = scene.boxes.map(box => cellsIn(box, view));
    const on = regions.map((region, i) => i).filter(i => regions[i][cell]).sort((a, b) => area(scene.boxes[a]) - area(scene.boxes[b]))[0];
    if (on !== undefined) return [on, regions[on]];
    return [-1, regions.length ? regions[0].map((_, i) => regions.some(region => region[i])) : Array(view.rows * view.columns).fill(false)];
  }

  const paddingOf = (scene, view) => cellsIn([0, 0, scene.width, scene.height], view).map(inside => !inside);

  function drawScene(state, [row, column], view) {
    const scene = scenes[state.image], [context, width, height] = scenePanel.begin(w => Math.round(w * tallest));
    const wide = Math.min(width, height * view.width / view.height), scale = wide / view.width, high = view.height * scale;
    context.fillStyle = "#d9dce2", context.fillRect(0, 0, wide, high);
    photo(context, images[state.image], 0, 0, scene.width * scale, scene.height * scale);
    context.strokeStyle = "rgba(255,255,255,.16)", context.lineWidth = 1, context.beginPath();
    if (view.rows < 20) {
      for (let i = 1; i < view.columns; i++) context.moveTo(i * wide / view.columns, 0), context.lineTo(i * wide / view.columns, high);
      for (let i = 1; i < view.rows; i++) context.moveTo(0, i * high / view.rows), context.lineTo(wide, i * high / view.rows);
    }
    context.stroke();
    const boxes = scene.boxes.map(box => box.map(x => x * scale));
    for (const box of boxes) outline(context, box, "#fff", {width: 1.2, dash: [4, 3], halo: "rgba(31,36,48,.8)"});
    const cell = [column * wide / view.columns, row * high / view.rows, (column + 1) * wide / view.columns, (row + 1) * high / view.rows];
    labels(context, scene.names.map((name, i) => ({text: name, box: boxes[i], fill: "#344054"})), wide, high, 10.5, [cell]);
    outline(context, cell, CELL, {width: 2.6, halo: INK});
    if (view.width > scene.width * 1.01) write(context, "padding", wide - 6, high - 9, {size: 11, colour: "#4B5565", align: "right"});
    scenePanel.title("Pick a cell", `row ${row}, column ${column}`);
    scenePanel.scale = [wide, high];
    frame.describe(scenePanel, `Feature map of ${view.rows} by ${view.columns} cells. Arrow keys move the cell: row ${row}, column ${column}.`);
  }

  // the maps of one view in a band of the panel; returns the height
  function band(context, state, view, cell, left, top, width, measure, label) {
    const scene = scenes[state.image], weights = weightsOf(view), cells = view.rows * view.columns, per = mapsPer(frame);
    const narrow = width < 480, gap = 7, side = (width - gap * (per - 1)) / per, tall = side * view.height / view.width, step = tall + (narrow ? 32 : 22);
    const beyond = scene.width < view.width * 0.99;
    for (let l = 0; l < layers; l++) {
      const lines = Math.ceil(heads / per), y0 = top + 20 + l * (lines * step + 22);
      write(context, `layer ${l + 1}${label}`, left, y0 - 11, {size: 11.5, weight: 650, colour: frame.ink});
      for (let h = 0; h < heads; h++) {
        const x = left + (h % per) * (side + gap), y = y0 + Math.floor(h / per) * step, row = rowOf(weights, cells, l * heads + h, cell);
        const [most] = drawMap(context, images[state.image], view, row, x, y, side, {smooth: state.smooth, picture: beyond ? [scene.height, scene.width] : null});
        const [r, c] = [Math.floor(cell / view.columns), cell % view.columns];
        outline(context, [x + c * side / view.columns, y + r * tall / view.rows, x + (c + 1) * side / view.columns, y + (r + 1) * tall / view.rows], CELL, {width: 1.4, halo: INK});
        grid.push([x, y, side, tall, view, l * heads + h]);
        const note = measure(row);
        if (narrow) {
          write(context, `head ${h + 1}`, x, y + tall + 8, {size: 10, colour: frame.quiet});
          write(context, note || number(most), x, y + tall + 20, {size: 10, weight: 600, colour: frame.ink});
        } else {
          write(context, `head ${h + 1}${note ? `: ${note}` : ""}`, x, y + tall + 10, {size: 11, colour: frame.ink});
          if (side > 105) write(context, number(most), x + side, y + tall + 10, {size: 10, colour: frame.quiet, align: "right"});
        }
      }
    }
    return 20 + layers * (Math.ceil(heads / per) * step + 22) - 22;
  }

  function draw(state, hover) {
    const scene = scenes[state.image], view = viewOf(state), at = hover && hover.cell ? hover.cell : [state.row, state.column], pair = beside && "mask forgotten" in scene.views;
    const cell = at[0] * view.columns + at[1];
    const [on, region] = objectAt(scene, view, cell), lost = paddingOf(scene, view);
    drawScene(state, at, pair ? scene.views.padded : view);
    grid = [];
    const width = mapPanel.cell.clientWidth, narrow = frame.root.classList.contains("ndx-narrow");
    const own = row => region.some(Boolean) ? `${percent(share(row, region))} ${on < 0 ? "objects" : "own"}` : "";
    const astray = row => `${percent(share(row, lost))} lost`;
    const tall = (w, v) => {
      const per = mapsPer(frame), side = (w - 7 * (per - 1)) / per;
      return 20 + layers * (Math.ceil(heads / per) * (side * v.height / v.width + (w < 480 ? 32 : 22)) + 22) - 22;
    };
    if (pair) {
      const half = narrow ? width : (width - 20) / 2, a = scene.views.padded, b = scene.views["mask forgotten"];
      const wideCell = at[0] * a.columns + at[1], wideLost = paddingOf(scene, a);
      const each = row => `${percent(share(row, wideLost))} lost`;
      const high = Math.ceil(tall(half, {height: tallest, width: 1}));
      const [context] = mapPanel.begin(w => narrow ? 2 * high + 14 : Math.ceil(tall(w, {height: tallest, width: 1})));  // as tall as one view: nothing jumps
      band(context, state, a, wideCell, 0, 0, half, each, ", with the mask");
      band(context, state, b, wideCell, narrow ? 0 : half + 20, narrow ? high + 14 : 0, half, each, ", mask forgotten");
      mapPanel.title("Where it looks", "the share of each head\u2019s weight that is lost on padding");
    } else {
      const [context, wide] = mapPanel.begin(w => Math.ceil(tall(w, {height: tallest, width: 1})));
      band(context, state, view, cell, 0, 0, wide, state.padding === "mask forgotten" ? astray : own, "");
      mapPanel.title("Where it looks", `each map is scaled to its own largest weight${narrow ? "" : ", below it on the right"}`);
    }
    // the sentence: about the state's cell, not the pointer's
    const mode = pair ? "mask forgotten" : state.padding, told = scene.views[mode], chosen = state.row * told.columns + state.column, weights = weightsOf(told);
    const [object, mine] = objectAt(scene, told, chosen), out = paddingOf(scene, told), forgotten = mode === "mask forgotten";
    const rows = Array.from({length: layers * heads}, (_, map) => rowOf(weights, told.rows * told.columns, map, chosen));
    const shares = rows.map(row => share(row, forgotten ? out : mine)), best = shares.indexOf(Math.max(...shares));
    const mean = shares.reduce((a, b) => a + b, 0) / shares.length, most = `ayer ${Math.floor(best / heads) + 1}, head ${best % heads + 1}`;
    let text;
    if (forgotten) text = `The mask is forgotten: ${percent(mean)} of this cell's weight is lost on padding (l${most}: ${percent(shares[best])}). Objects found with the mask: ${scene.views.padded.found}; without it: ${told.found}.`;
    else if (object >= 0) text = `The cell lies on the ${scene.names[object]}, which covers ${percent(part(mine))} of the map. L${most} puts most weight on it: ${percent(shares[best])}.`;
    else if (mine.some(Boolean)) text = `The cell lies on no object. Objects cover ${percent(part(mine))} of the map and get ${percent(mean)} of its weight; most in l${most}: ${percent(shares[best])}.`;
    else text = "No object was found in this image.";
    if (mode === "padded") text += ` Padding is ${percent(part(out))} of the canvas and gets ${percent(rows.reduce((sum, row) => sum + share(row, out), 0))} of the weight.`;
    frame.say(text);
    if (hover && hover.map !== undefined) {
      const there = hover.view === undefined ? view : scene.views[hover.view], value = rowOf(weightsOf(there), there.rows * there.columns, hover.map, at[0] * there.columns + at[1])[hover.to[0] * there.columns + hover.to[1]];
      frame.tell(`layer ${Math.floor(hover.map / heads) + 1}, head ${hover.map % heads + 1}: row ${state.row}, column ${state.column} gives ${number(value, 3)} of its weight to row ${hover.to[0]}, column ${hover.to[1]}`);
    } else frame.tell(hover && hover.cell ? `row ${at[0]}, column ${at[1]}${on >= 0 ? `: on the ${scene.names[on]}` : ""}` : "Point at a cell of the picture, press it, or move it with the arrow keys. Point at a map for its numbers.");
    Object.assign(frame.root.dataset, {shares: rows.map(row => share(row, mine).toFixed(3)).join(","), tops: rows.map(row => Math.max(...row).toFixed(3)).join(",")});
  }

  const take = target => frame.set(target.cell ? {row: target.cell[0], column: target.cell[1]} : {row: target.to[0], column: target.to[1]});
  const step = (dx, dy) => frame.set({row: frame.state.row + dy, column: frame.state.column + dx});
  frame.touchable(scenePanel, {
    label: "scene", choose: take, move: step, drag: true,
    at(x, y) {
      const view = beside ? scenes[frame.state.image].views.padded : viewOf(frame.state), inner = scenes[frame.state.image].views.none;
      const row = Math.floor(y / scenePanel.scale[1] * view.rows), column = Math.floor(x / scenePanel.scale[0] * view.columns);
      return row >= 0 && column >= 0 && row < inner.rows && column < inner.columns ? {cell: [row, column]} : null;
    }});
  frame.touchable(mapPanel, {
    label: `Attention maps of ${layers} layers with ${heads} heads each. Arrow keys move the cell.`, move: step,
    choose(target) { if (target.to[0] < scenes[frame.state.image].views.none.rows && target.to[1] < scenes[frame.state.image].views.none.columns) take(target); },
    at(x, y) {
      const hit = grid.find(([x0, y0, w, h]) => x0 <= x && x < x0 + w && y0 <= y && y < y0 + h);
      if (!hit) return null;
      const [x0, y0, w, h, view, map] = hit, name = Object.keys(scenes[frame.state.image].views).find(key => scenes[frame.state.image].views[key] === view);
      return {map, view: name, to: [Math.floor((y - y0) / h * view.rows), Math.floor((x - x0) / w * view.columns)]};
    }});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
