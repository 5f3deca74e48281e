// Which query answers for which object, and why: the scene, the cost of every pair, and what each cost is made of.
import {COST, INK, LIT, Frame, argmax, assign, clamp, colourOf, corners, costParts, css, forNotebook, forcedTotal, greedyPairs, labels, letter, link, list, loadImage, number, outline, percent, photo, rgb, roundBox, textOn, total, write} from "./core.js";

const PAPER = {class_: 1, l1: 5, giou: 2}, SHADES = [1, 0.62, 0.32], PARTS = ["class", "L1", "GIoU"];

// everything that follows from the cost: the pairs of both ways, and who has what
export function matched(probs, boxes, labels, objects, weights) {
  const raw = costParts(probs, boxes, labels, objects);
  const cost = raw.map(row => row.map(three => three.reduce((sum, x, k) => sum + weights[k] * x, 0)));
  const best = assign(cost), byGreed = greedyPairs(cost), greedy = Array(objects.length).fill(-1);
  for (const [q, t] of byGreed) greedy[t] = q;
  return {raw, cost, best, greedy, byGreed, weights, totals: {Hungarian: total(cost, best), greedy: total(cost, greedy)}};
}

// ---------------------------------------------------------------- the sentences

const named = (pairs, cost) => list(pairs.map(([q, t]) => `${letter(t)} to q${q} (${number(cost[q][t], 1)})`));

// the objects for which the same query is the cheapest
function rivals(cost) {
  const best = cost[0].map((_, t) => argmax(cost.map(row => -row[t])));
  const shared = best.map(q => best.flatMap((other, t) => other === q ? [letter(t)] : [])).find(some => some.length > 1);
  return shared ? list(shared) : "";
}

export function matchingWords({cost, best, greedy, totals, weights}) {
  if (weights.every(w => !w)) return "All weights are 0: every pair costs the same, and any assignment is as good as any other.";
  const more = totals.greedy - totals.Hungarian, same = rivals(cost), differ = best.map((q, t) => t).filter(t => greedy[t] !== best[t]);
  if (!differ.length) {
    const why = same ? `${same} have the same favourite, but the one that does not get it has another query that is good enough` : "every object has a favourite of its own";
    return `Greedy and Hungarian find the same pairs: ${why}.`;
  }
  if (more < 0.005) return "Greedy finds other pairs with the same total.";
  return `${same ? `${same} have the same favourite. ` : ""}Greedy, cheapest cell first, gives ${named(differ.map(t => [greedy[t], t]), cost)}. ` +
    `Hungarian gives ${named(differ.map(t => [best[t], t]), cost)}: ${number(more)} less in all.`;
}

export function pairWords({raw, cost, best, byGreed, totals, weights}, q, t, way) {
  const owners = way === "greedy" ? new Map(byGreed) : new Map(best.map((query, object) => [query, object]));
  const sums = PARTS.map((name, k) => `${name} ${number(weights[k] * raw[q][t][k])}`).join(", ");
  const text = `q${q} for ${letter(t)} costs ${number(cost[q][t])} (${sums}). `;
  if (owners.get(q) === t) return text + `It has ${letter(t)}` + (way === "greedy" ? "." : `; every other assignment costs ${number(totals.Hungarian)} or more in all.`);
  if (way === "greedy") {
    const first = byGreed.find(pair => pair[0] === q || pair[1] === t);
    return text + `Greedy had struck that cell: it had given ${letter(first[1])} to q${first[0]} before, for ${number(cost[first[0]][first[1]])}.`;
  }
  const winner = best[t], much = `with q${q} on ${letter(t)} the least total would be ${number(forcedTotal(cost, q, t))} instead of ${number(totals.Hungarian)}`;
  if (cost[q][t] < cost[winner][t] && owners.has(q)) {
    return text + `That is less than the ${number(cost[winner][t])} of q${winner}, and yet q${winner} has ${letter(t)}: q${q} is needed for ${letter(owners.get(q))}; ${much}.`;
  }
  return text + `q${winner} does it for ${number(cost[winner][t])}; ${much}.`;
}

export function halfWords({cost, best, byGreed}, q, t, way, empty) {
  const pairs = way === "greedy" ? byGreed : best.map((query, object) => [query, object]), owners = new Map(pairs);
  if (t !== "-") {
    const cheapest = argmax(cost.map(row => -row[t])), winner = pairs.find(pair => pair[1] === t)[0];
    const text = `${letter(t)} is cheapest with q${cheapest} (${number(cost[cheapest][t])})`;
    if (cheapest === winner) return `${text}, which has it.`;
    const instead = owners.has(cheapest) ? `answers for ${letter(owners.get(cheapest))}` : "answers for none";
    return `${text}, but q${cheapest} ${instead}; q${winner} has ${letter(t)} for ${number(cost[winner][t])}.`;
  }
  const cheapest = argmax(cost[q].map(x => -x)), text = `q${q} is cheapest for ${letter(cheapest)} (${number(cost[q][cheapest])}) and `;
  if (owners.has(q)) return `${text}answers for ${letter(owners.get(q))}.`;
  return `${text}answers for no object: it has to learn to say so (no object: ${number(empty[q])} now).`;
}

// ---------------------------------------------------------------- the explorer

export async function mount(place, data, given = {}, changed = () => {}) {
  const {classes, stages, layers, scenes, said} = data;
  const images = await Promise.all(scenes.map(scene => loadImage(scene.image)));
  const frame = new Frame(place, "matching", {image: 0, stage: 0, layer: layers, way: "Hungarian", ...PAPER, query: "-", object: "-", ...given}, changed);
  const queries = said[0][0][0].boxes.length, highest = Math.max(...scenes.map(scene => scene.height / scene.width));

  const names = scenes.map((scene, k) => `scene ${k + 1}: ${scene.labels.length} objects`);
  if (scenes.length > 1) frame.pills("image", "scene", scenes.map((scene, k) => [scene.image, k]), {pictures: true, texts: names});
  if (stages.length > 1) frame.range("stage", "training", 0, stages.length - 1, 1, {names: stages, wide: true});
  if (layers > 1) frame.pills("layer", "decoder layer", Array.from({length: layers}, (_, l) => [String(l + 1), l + 1]));
  frame.pills("way", "pairs", [["Hungarian", "Hungarian"], ["greedy", "greedy"]]);
  for (const [key, name, most] of [["class_", "class \u00d7", 10], ["l1", "L1 \u00d7", 10], ["giou", "GIoU \u00d7", 10]]) frame.range(key, name, 0, most, 0.5, {wide: true, show: x => Number(x).toFixed(1)});
  frame.button("the paper\u2019s weights", () => frame.set(PAPER));

  frame.main.style.gridTemplateColumns = "minmax(0, 5fr) minmax(0, 7fr)";
  const scenePanel = frame.panel("scene"), table = frame.panel("table");
  let now = null, shown = [], geometry = null;  // the matching; the boxes that can be pointed at; the places of the table

  const solve = state => {
    const {probs, boxes} = said[state.stage][state.layer - 1][state.image], scene = scenes[state.image];
    return {scene, probs, boxes, ...matched(probs, boxes, scene.labels, scene.boxes, [state.class_, state.l1, state.giou])};
  };
  const clean = state => {
    const next = {...state, image: clamp(state.image, 0, scenes.length - 1), stage: clamp(state.stage, 0, said.length - 1), layer: clamp(state.layer, 1, layers)};
    if (next.object !== "-" && next.object >= scenes[next.image].labels.length) next.object = "-";
    if (next.query !== "-" && next.query >= queries) next.query = "-";
    return next;
  };

  function drawScene(state, asked, owner) {
    const [context, width, height] = scenePanel.begin(w => Math.round(w * highest));
    const {scene, boxes} = now, wide = Math.min(width, height * scene.width / scene.height), high = wide * scene.height / scene.width;
    const pixels = box => corners(box).map((x, k) => x * (k % 2 ? high : wide));
    const calm = asked.query === "-" && asked.object === "-", winner = asked.object === "-" ? -1 : owner.indexOf(asked.object);
    photo(context, images[state.image], 0, 0, wide, high);
    const wanted = [], late = [];
    shown = [];
    boxes.forEach((box, q) => {
      if (owner[q] >= 0 || q === asked.query) return;
      outline(context, pixels(box), calm ? "rgba(255,255,255,.7)" : "rgba(255,255,255,.3)", {width: 1, dash: [1, 3], halo: null});
      if (calm) late.push({text: `q${q}`, box: pixels(box), fill: "#4B5565", faint: true}), shown.push([pixels(box), {query: q, object: "-"}]);
    });
    scene.boxes.forEach((box, t) => {
      const full = calm || t === asked.object || (asked.object === "-" && owner[asked.query] === t);
      outline(context, pixels(box), colourOf(t), {width: full && !calm ? 3 : 2.2, alpha: full ? 1 : 0.25});
      shown.push([pixels(box), {query: "-", object: t}]);
      if (full) wanted.push({text: `${letter(t)} ${classes[scene.labels[t]]}`, box: pixels(box), fill: colourOf(t)});
    });
    boxes.forEach((box, q) => {
      if (owner[q] < 0 && q !== asked.query) return;
      const full = calm || q === asked.query || q === winner;
      const t = q === asked.query && asked.object !== "-" ? asked.object : owner[q], colour = t >= 0 ? colourOf(t) : "#fff";
      outline(context, pixels(box), colour, {width: q === asked.query ? 2.6 : 1.8, dash: [5, 3], alpha: full ? 1 : 0.2, halo: t >= 0 ? undefined : INK});
      shown.push([pixels(box), {query: q, object: "-"}]);
      if (!full) return;
      if (t >= 0) link(context, pixels(scene.boxes[t]), pixels(box), colour);
      wanted.push({text: `q${q}`, box: pixels(box), fill: "#ffffff", ink: t >= 0 ? colour : INK});
    });
    labels(context, [...wanted, ...late], wide, high);
    scenePanel.title(stages.length > 1 ? `After ${stages[state.stage]}, decoder layer ${state.layer}`.replace("After untrained", "Untrained") : `After decoder layer ${state.layer}`, "solid: object, dashed: its query");
    frame.describe(scenePanel, `The scene with ${scene.labels.length} objects and their queries. Left and right: objects; up and down: queries; Escape: all.`);
  }

  function places(width, count) {
    const left = 40, top = 44, row = queries > 20 ? 20 : 25, bars = width >= 400 ? clamp(width * 0.36, 130, 230) : 0;
    const cell = Math.min((width - left - bars - (bars ? 14 : 2)) / count, 66);
    return {left, top, row, cell, bars, at: left + cell * count + 14, under: top + row * queries, height: top + row * queries + 54};
  }

  function drawTable(state, asked, owner) {
    const count = now.scene.labels.length;
    const [context, width] = table.begin(w => places(w, count).height);
    const g = geometry = places(width, count), {cost} = now, flat = cost.flat(), low = Math.min(...flat), high = Math.max(...flat);
    const size = g.cell < 34 ? 10 : 12, other = state.way === "Hungarian" ? now.greedy : now.best, mine = state.way === "Hungarian" ? now.best : now.greedy;
    for (let t = 0; t < count; t++) {
      const x = g.left + (t + 0.5) * g.cell, dim = asked.object !== "-" && asked.object !== t;
      context.globalAlpha = dim ? 0.45 : 1;
      context.fillStyle = colourOf(t), context.beginPath(), context.arc(x, 30, 10, 0, 7), context.fill();
      write(context, letter(t), x, 30.5, {size: 11, weight: 700, colour: "#fff", align: "center"});
      const word = classes[now.scene.labels[t]], room = Math.floor(g.cell / 5.6);
      write(context, word.length > room ? `${word.slice(0, Math.max(room - 1, 1))}.` : word, x, 9, {size: 10.5, colour: frame.quiet, align: "center"});
      context.globalAlpha = 1;
    }
    for (let q = 0; q < queries; q++) {
      const y = g.top + q * g.row, mid = y + g.row / 2, fill = q === asked.query ? INK : owner[q] >= 0 ? colourOf(owner[q]) : null;
      if (fill) context.fillStyle = fill === INK && frame.dark ? "#fff" : fill, roundBox(context, 2, y + 3, 32, g.row - 6, 4), context.fill();
      write(context, `q${q}`, 18, mid, {size: 11, weight: fill ? 650 : 400, colour: fill ? (fill === INK && frame.dark ? INK : "#fff") : frame.quiet, align: "center"});
      for (let t = 0; t < count; t++) {
        const x = g.left + t * g.cell, colour = COST((cost[q][t] - low) / (high - low || 1));
        const quiet = (asked.object !== "-" && asked.object !== t && asked.query !== q) || (asked.object === "-" && asked.query !== "-" && asked.query !== q);
        context.globalAlpha = quiet ? 0.5 : 1;
        context.fillStyle = css(colour), context.fillRect(x + 1, y + 1, g.cell - 2, g.row - 2);
        write(context, number(cost[q][t], 1), x + g.cell / 2, mid + 0.5, {size, weight: owner[q] === t ? 700 : 400, colour: textOn(colour), align: "center"});
        context.globalAlpha = 1;
      }
    }
    const mark = (q, t, colour, width, dash) => outline(context, [g.left + t * g.cell + 1.5, g.top + q * g.row + 1.5, g.left + (t + 1) * g.cell - 1.5, g.top + (q + 1) * g.row - 1.5], colour, {width, dash, halo: "#fff"});
    other.forEach((q, t) => { if (mine[t] !== q) mark(q, t, colourOf(t), 2, [3, 2.5]); });
    mine.forEach((q, t) => mark(q, t, colourOf(t), 2.8, []));
    if (asked.query !== "-" && asked.object !== "-") mark(asked.query, asked.object, INK, 2.4, []);
    drawBars(context, width, g, asked, owner);
    [["Hungarian", now.best], ["greedy", now.greedy]].forEach(([name, answer], k) => {
      const y = g.under + 18 + 22 * k, bold = state.way === name;
      write(context, name === "greedy" ? "greedy" : "Hung.", 36, y, {size: 10.5, weight: bold ? 650 : 400, colour: frame.quiet, align: "right"});
      answer.forEach((q, t) => {
        const differs = now.best[t] !== now.greedy[t];
        write(context, number(cost[q][t], 1), g.left + (t + 0.5) * g.cell, y, {size, weight: differs ? 700 : 400, colour: differs ? LIT : bold ? frame.ink : frame.quiet, align: "center"});
      });
      const more = now.totals.greedy - now.totals.Hungarian, note = k && more > 0.005 ? `, ${number(more)} more` : "";
      if (g.bars) write(context, `= ${number(now.totals[name])}${note}`, g.at, y, {size: 12.5, weight: bold || note ? 650 : 400, colour: note ? LIT : frame.ink});
    });
    table.title("Cost of every pair", `Hungarian ${number(now.totals.Hungarian)} in all, greedy ${number(now.totals.greedy)}`);
    frame.describe(table, `Costs of ${queries} queries for ${count} objects. ` + (asked.query === "-" && asked.object === "-" ? "Arrow keys choose a cell, Escape none." :
      `Chosen: ${asked.query === "-" ? "" : `query ${asked.query} `}${asked.object === "-" ? "" : `object ${letter(asked.object)} `}` + (asked.query !== "-" && asked.object !== "-" ? number(cost[asked.query][asked.object]) : "")));
  }

  // beside each row: the cost above a perfect match, part by part, of the pair that the query serves, or of the object asked about
  function drawBars(context, width, g, asked, owner) {
    if (!g.bars) return;
    const shift = [1, 0, 1].map((x, k) => x * now.weights[k]), above = (q, t) => now.raw[q][t].map((x, k) => now.weights[k] * x + shift[k]);
    const meant = now.cost.map((row, q) => asked.object !== "-" ? asked.object : owner[q] >= 0 ? owner[q] : argmax(row.map(x => -x)));
    const strong = q => asked.object === "-" ? owner[q] >= 0 : q === asked.query || owner[q] === asked.object;
    const sums = meant.map((t, q) => above(q, t).reduce((a, b) => a + b, 0)), room = g.bars - 44;
    const most = Math.max(0.5, ...sums.filter((_, q) => strong(q) || asked.object !== "-"));
    write(context, asked.object === "-" ? "above a perfect match" : `for ${letter(asked.object)}, above a perfect match`, g.at, 9, {size: 10.5, colour: frame.quiet});
    PARTS.forEach((name, k) => {
      const x = g.at + [0, 44, 76][k];
      context.fillStyle = frame.ink, context.globalAlpha = SHADES[k], context.fillRect(x, 26, 8, 8), context.globalAlpha = 1;
      write(context, name, x + 11, 30.5, {size: 10.5, colour: frame.quiet});
    });
    for (let q = 0; q < queries; q++) {
      const full = strong(q), y = g.top + q * g.row + g.row / 2, tall = full ? g.row * 0.6 : g.row * 0.34;
      let x = g.at;
      above(q, meant[q]).forEach((value, k) => {
        const long = Math.max(0, Math.min(value / most * room, g.at + room - x));
        context.globalAlpha = SHADES[k] * (full ? 1 : 0.45), context.fillStyle = colourOf(meant[q]);
        context.fillRect(x, y - tall / 2, long, tall);
        x += long;
      });
      context.globalAlpha = 1;
      write(context, `${sums[q] > most * 1.001 ? "\u203a " : ""}${number(sums[q], 1)}`, x + 5, y, {size: 10.5, colour: full ? frame.ink : frame.quiet});
    }
    context.fillStyle = frame.rule, context.fillRect(g.at - 1, g.top, 1, g.row * queries);
  }

  function draw(state, hover) {
    now = solve(state);
    const owner = Array(queries).fill(-1);
    (state.way === "Hungarian" ? now.best : now.greedy).forEach((q, t) => { if (q >= 0) owner[q] = t; });
    const asked = hover || {query: state.query, object: state.object};
    drawScene(state, asked, owner), drawTable(state, asked, owner);
    Object.assign(frame.root.dataset, {total: now.totals.Hungarian, greedy: now.totals.greedy, pairs: now.best.join(","), greedyPairs: now.greedy.join(",")});
    const {query: q, object: t} = state;
    frame.say(q === "-" && t === "-" ? matchingWords(now) : q !== "-" && t !== "-" ? pairWords(now, q, t, state.way) : halfWords(now, q, t, state.way, now.probs.map(row => row[row.length - 1])));
    const {query: a, object: b} = asked;
    frame.tell(a !== "-" && b !== "-" ? `q${a} for ${letter(b)}: ` + PARTS.map((name, k) => `${name} ${number(now.weights[k], 1)} \u00d7 ${number(now.raw[a][b][k])}`).join("  +  ") + `  =  ${number(now.cost[a][b])}` :
      a !== "-" ? `q${a}: ${now.probs[a].slice(0, -1).map((p, c) => `${classes[c]} ${percent(p)}`).slice(0, 6).join(", ")}, no object ${percent(now.probs[a][classes.length])}` :
      "Point at a cell, a row, a column or a box; press it to keep it.");
  }

  const keep = target => frame.set(target.query === frame.state.query && target.object === frame.state.object ? {query: "-", object: "-"} : target);
  const clear = () => frame.set({query: "-", object: "-"});
  const step = (dx, dy) => {
    const count = scenes[frame.state.image].labels.length, {query, object} = frame.state;
    if (query === "-" && object === "-") return frame.set({query: now.best[0], object: 0});
    frame.set({query: clamp((query === "-" ? now.best[object] : query) + dy, 0, queries - 1), object: clamp((object === "-" ? 0 : object) + dx, 0, count - 1)});
  };
  frame.touchable(table, {
    label: "costs", choose: keep, clear, move: step,
    at(x, y) {
      const t = Math.floor((x - geometry.left) / geometry.cell), q = Math.floor((y - geometry.top) / geometry.row), count = scenes[frame.state.image].labels.length;
      if (q >= queries) return null;
      if (q < 0) return t >= 0 && t < count ? {query: "-", object: t} : null;
      return t >= 0 && t < count ? {query: q, object: t} : {query: q, object: "-"};
    }});
  frame.touchable(scenePanel, {
    label: "scene", choose: keep, clear,
    move(dx, dy) {
      const count = scenes[frame.state.image].labels.length, {query, object} = frame.state;
      if (dx) frame.set({query: "-", object: object === "-" ? (dx > 0 ? 0 : count - 1) : (object + dx + count) % count});
      else frame.set({object: "-", query: query === "-" ? (dy > 0 ? 0 : queries - 1) : (query + dy + queries) % queries});
    },
    at(x, y) {
      const inside = shown.filter(([b]) => b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]);
      return inside.length ? inside.reduce((a, b) => (b[0][2] - b[0][0]) * (b[0][3] - b[0][1]) < (a[0][2] - a[0][0]) * (a[0][3] - a[0][1]) ? b : a)[1] : null;
    }});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
