// How alike the position codes of all cells are to that of one cell, also along its row and its column; and one channel as a map.
import {COLOURS, COST, INK, LIT, Frame, clamp, css, forNotebook, number, outline, ramp, write} from "./core.js";

const SIGNED = ramp(["#1F5FA8", "#8DB4DB", "#F7F6F2", "#F0AE7C", "#C9540A"]), LOWEST = -0.4, ROW = COLOURS[0], COLUMN = COLOURS[3];
const alikeColour = value => COST(1 - (value - LOWEST) / (1 - LOWEST)), channelColour = value => SIGNED((value + 1) / 2);

// the sine codes of count places along one side: count rows of dim numbers, as in nanodetr.position
export function sideCodes(count, dim, temperature, normalize) {
  return Array.from({length: count}, (_, i) => {
    const place = normalize ? (i + 1) / (count + 1e-6) * 2 * Math.PI : i + 1;
    return Array.from({length: dim}, (_, c) => (c % 2 ? Math.cos : Math.sin)(place / temperature ** (2 * Math.floor(c / 2) / dim)));
  });
}

// the codes of a map: rows of cells of dim numbers, y half first
export function mapCodes([height, width], dim, temperature, normalize) {
  const [ys, xs] = [height, width].map(count => sideCodes(count, dim / 2, temperature, normalize));
  return ys.map(y => xs.map(x => [...y, ...x]));
}

// the cosines (rows of columns) of all codes with that of one cell
export function alikeTo(codes, row, column) {
  const dot = (a, b) => a.reduce((sum, x, c) => sum + x * b[c], 0), mine = codes[row][column];
  return codes.map(cells => cells.map(code => dot(code, mine) / Math.sqrt(dot(code, code) * dot(mine, mine))));
}

export function neighbourWords(codes, alike, row, column) {
  const cells = alike.flat(), all = codes.flat(), beside = alike[row][column + 1 < alike[row].length ? column + 1 : column - 1];
  const idle = all[0].filter((_, c) => Math.max(...all.map(code => code[c])) - Math.min(...all.map(code => code[c])) < 0.1).length;
  return `The next cell in the row is ${number(beside, 3)} like this one, the least alike cell ${number(Math.min(...cells))}. ` +
    `${cells.filter(value => value > 0.9).length} of ${cells.length} cells are above 0.9. ${idle} of ${all[0].length} channels hardly vary over the map.`;
}

export async function mount(place, data, given = {}, changed = () => {}) {
  const {dim, sizes, temperatures} = data, names = Object.keys(sizes);
  const frame = new Frame(place, "positions", {size: names[0], row: 2, column: 5, normalize: true, temperature: 20, channel: dim / 2, ...given}, changed);
  frame.pills("size", "map", names.map(name => [name.replace("x", "\u00d7"), name]));
  frame.pills("temperature", "temperature", temperatures.map(value => [String(value), value]));
  frame.check("normalize", "normalised");
  const rows = frame.range("row", "row", 0, 1, 1, {wide: true}), columns = frame.range("column", "column", 0, 1, 1, {wide: true});
  frame.range("channel", "channel", 0, dim - 1, 1, {wide: true});
  const scene = frame.panel("scene"), cuts = frame.panel("curve"), channel = frame.panel("channel");
  let unit = 1, chart = null, kept = {};  // pixels of a cell; the x of the chart; the last codes and cosines

  const clean = state => ({...state, row: clamp(state.row, 0, sizes[state.size][0] - 1), column: clamp(state.column, 0, sizes[state.size][1] - 1), channel: clamp(state.channel, 0, dim - 1)});
  function known({size, temperature, normalize, row, column}) {
    const key = [size, temperature, normalize].join(), cell = `${row},${column}`;
    if (kept.key !== key) kept = {key, codes: mapCodes(sizes[size], dim, temperature, normalize)};
    if (kept.cell !== cell) kept.cell = cell, kept.alike = alikeTo(kept.codes, row, column), kept.words = neighbourWords(kept.codes, kept.alike, row, column);
    return kept;
  }

  function drawMap(panel, values, colourOf, low, ticks, {row, column}, mark, hover) {
    const [context, width] = panel.begin(w => w + 30), [height, wide] = [values.length, values[0].length], gap = width / Math.max(height, wide) > 14 ? 0.5 : 0;
    unit = width / Math.max(height, wide);
    values.forEach((line, i) => line.forEach((value, j) => { context.fillStyle = css(colourOf(value)), context.fillRect(j * unit, i * unit, unit - gap, unit - gap); }));
    const frameOf = (i, j) => [j * unit + 1, i * unit + 1, (j + 1) * unit - 1, (i + 1) * unit - 1];
    if (hover?.row !== undefined) outline(context, frameOf(hover.row, hover.column), INK, {width: 1.2});
    outline(context, frameOf(row, column), mark, {width: 2.4});
    const at = value => 8 + (value - low) / (1 - low) * (width - 24);
    for (let x = at(low); x < at(1); x++) context.fillStyle = css(colourOf(low + (x - 8) / (width - 24) * (1 - low))), context.fillRect(x, width + 5, 1.5, 7);
    for (const tick of ticks) write(context, number(tick, 1), at(tick), width + 22, {size: 10.5, colour: frame.quiet, align: "center"});
  }

  function drawCuts(alike, {row, column}, hover, side) {
    const [context, width, height] = cuts.begin(w => side ? w + 30 : 220), left = 36, right = width - 8, low = height - 38, reach = Math.max(alike.length, alike[0].length) - 0.5;
    const x = away => left + (away + reach) / (2 * reach) * (right - left), y = value => 8 + (1.06 - value) / 1.52 * (low - 8);
    chart = at => Math.round((at - left) / (right - left) * 2 * reach - reach);
    for (const tick of [-0.4, 0, 0.5, 1]) context.fillStyle = frame.rule, context.fillRect(left, y(tick), right - left, 1), write(context, number(tick, 1), left - 5, y(tick), {size: 10.5, colour: frame.quiet, align: "right"});
    context.strokeStyle = frame.quiet, context.lineWidth = 1, context.setLineDash([2, 3]), context.beginPath(), context.moveTo(left, y(0.9)), context.lineTo(right, y(0.9)), context.stroke(), context.setLineDash([]);
    for (const share of [-1, -0.5, 0, 0.5, 1]) { const away = Math.trunc(share * Math.floor(reach)); write(context, number(away, 0), x(away), low + 11, {size: 10.5, colour: frame.quiet, align: "center"}); }
    write(context, "cells away (dotted: 0.9)", (left + right) / 2, low + 28, {size: 11, colour: frame.quiet, align: "center"});
    if (hover?.away !== undefined) context.fillStyle = frame.quiet, context.fillRect(x(hover.away) - 0.5, 8, 1, low - 8);
    for (const [values, from, colour, thick, radius] of [[alike[row], column, ROW, 2.8, 3.6], [alike.map(line => line[column]), row, COLUMN, 1.3, 2.2]]) {
      context.strokeStyle = context.fillStyle = colour, context.lineWidth = thick, context.beginPath();
      values.forEach((value, k) => context.lineTo(x(k - from), y(value))), context.stroke();
      values.forEach((value, k) => { context.beginPath(), context.arc(x(k - from), y(value), Math.min(radius, (x(1) - x(0)) / 2), 0, 7), context.fill(); });
    }
    cuts.title("The same, cut through the cell", "thick: along its row; thin: along its column");
    frame.describe(cuts, `Cosines along the row and the column of cell (${row}, ${column}). Arrow keys choose another cell.`);
  }

  function draw(state, hover) {
    const {codes, alike, words} = known(state), {row, column} = state, side = frame.root.clientWidth >= 820, [height, width] = sizes[state.size];
    if (hover?.row >= height || hover?.column >= width) hover = null;  // of a larger map
    rows.input.max = height - 1, columns.input.max = width - 1, rows.input.value = row, columns.input.value = column;
    frame.main.style.gridTemplateColumns = `repeat(${side ? 3 : 2}, minmax(0, 1fr))`, cuts.cell.style.order = side ? 0 : 1, cuts.cell.style.gridColumn = side ? "auto" : "1 / -1";
    const half = state.channel < dim / 2 ? "y" : "x", wave = state.channel % 2 ? "cosine" : "sine", values = codes.map(line => line.map(code => code[state.channel]));
    drawMap(scene, alike, alikeColour, LOWEST, [-0.4, 0, 0.5, 1], state, LIT, hover);
    drawMap(channel, values, channelColour, -1, [-1, 0, 1], state, INK, hover);
    drawCuts(alike, state, hover, side);
    scene.title(`Cosine with cell (${row}, ${column})`, "press a cell to choose it"), channel.title(`Channel ${state.channel}: a ${wave} of ${half}`, `one of ${dim}`);
    frame.describe(scene, `How alike the codes of ${height} by ${width} cells are to that of cell (${row}, ${column}). Arrow keys choose another cell.`);
    frame.describe(channel, `Channel ${state.channel}, a ${wave} of ${half}, on ${height} by ${width} cells. Arrow keys choose another cell.`);
    frame.say(words);
    const along = (values, k) => k >= 0 && k < values.length ? number(values[k], 3) : "off the map";
    frame.tell(hover?.row !== undefined ? `Cell (${hover.row}, ${hover.column}): ${number(alike[hover.row][hover.column], 3)} like cell (${row}, ${column}); channel ${state.channel}: ${number(values[hover.row][hover.column], 3)}` :
      hover ? `${number(hover.away, 0)} cells away: ${along(alike[row], column + hover.away)} along the row, ${along(alike.map(line => line[column]), row + hover.away)} along the column` : "Point at a cell, or at the curve.");
  }

  const move = (dx, dy) => frame.set({row: frame.state.row + dy, column: frame.state.column + dx});
  for (const panel of [scene, channel]) frame.touchable(panel, {label: "map", drag: true, move, choose: cell => frame.set(cell), at(x, y) {
    const [row, column] = [Math.floor(y / unit), Math.floor(x / unit)], [height, width] = sizes[frame.state.size];
    return row >= 0 && row < height && column >= 0 && column < width ? {row, column} : null;
  }});
  frame.touchable(cuts, {label: "curve", move, choose: ({away}) => frame.set({column: frame.state.column + away}), at: x => ({away: chart(x)})});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
