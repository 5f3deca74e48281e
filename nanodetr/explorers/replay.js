// A training replayed from its snapshots: one image with its pairs and its loss, and the places of each query over all images.
import {COLOURS, INK, LIT, Frame, clamp, colourOf, corners, forNotebook, labels, link, loadImage, number, outline, percent, photo, roundBox, write} from "./core.js";

const mix = (a, b, t) => a + (b - a) * t;
const median = values => {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

export async function mount(place, data, given = {}, changed = () => {}) {
  const {epochs, queries, scenes, moments} = data, last = epochs.length - 1, count = moments[0].centres.length;
  const images = await Promise.all(scenes.map(scene => loadImage(scene.image)));
  const frame = new Frame(place, "replay", {moment: 0, image: 0, query: "all", ...given}, changed);
  const names = epochs.map(epoch => epoch ? `epoch ${epoch}` : "untrained"), still = matchMedia("(prefers-reduced-motion: reduce)");

  let playing = null, at = frame.state.moment, dots = [], shown = [], chart = null;  // at: the moment drawn, on its way to the state's
  const stop = () => { clearTimeout(playing), playing = null, button.textContent = "\u25B6 play", button.setAttribute("aria-pressed", "false"), frame.root.dataset.playing = "false"; };
  const next = () => {
    if (frame.state.moment >= last) return stop();
    frame.set({moment: frame.state.moment + 1});
    playing = setTimeout(next, 1100);
  };
  const button = frame.button("\u25B6 play", () => {
    if (playing) return stop();
    button.textContent = "\u275A\u275A pause", button.setAttribute("aria-pressed", "true"), frame.root.dataset.playing = "true";
    if (frame.state.moment >= last) frame.set({moment: 0});
    playing = setTimeout(next, 500);
  });
  button.style.minWidth = "84px";
  frame.range("moment", "training", 0, last, 1, {names, wide: true});
  if (queries <= 16) frame.pills("query", "query", [["all", "all"], ...Array.from({length: queries}, (_, q) => [`q${q}`, q])]);
  if (scenes.length > 1 && scenes.length <= 12) frame.pills("image", "image", scenes.map((scene, k) => [scene.image, k]), {pictures: true, texts: scenes.map((_, k) => `image ${k}`)});
  else if (scenes.length > 1) frame.range("image", "image", 0, scenes.length - 1);

  frame.main.style.gridTemplateColumns = "minmax(0, 4fr) minmax(0, 4fr) minmax(0, 3fr)";
  const scene = frame.panel("scene"), map = frame.panel("map"), curves = frame.panel("curves");
  const tallest = Math.max(...scenes.map(s => s.height / s.width));
  const clean = state => ({...state, moment: clamp(Math.round(state.moment), 0, last), image: clamp(state.image, 0, scenes.length - 1)});

  // each query's usual box at a moment: medians over the images where it has an object, or over all if there is none
  const usual = moments.map(({centres, sizes, busy}) => Array.from({length: queries}, (_, q) => {
    const mine = busy.map((row, b) => row[q] === "1" ? b : -1).filter(b => b >= 0), some = mine.length ? mine : centres.map((_, b) => b);
    return [...[0, 1].map(k => median(some.map(b => centres[b][q][k]))), ...sizes[q]];
  }));

  function drawScene(state, before, after, t, loud) {
    const told = scenes[state.image], [context, width, height] = scene.begin(w => Math.round(w * tallest)), wide = Math.min(width, height * told.width / told.height), high = wide * told.height / told.width;
    const pixels = box => corners(box).map((x, k) => x * (k % 2 ? high : wide)), now = moments[state.moment], pairs = new Map(now.pairs[state.image]);
    const boxes = before.boxes[state.image].map((box, q) => pixels(box.map((x, k) => mix(x, after.boxes[state.image][q][k], t))));
    photo(context, images[state.image], 0, 0, wide, high);
    for (const box of told.boxes) outline(context, pixels(box), "#fff", {width: 2.2, halo: INK});
    const wanted = [], late = [];
    shown = boxes.map((box, q) => [box, q]);
    boxes.forEach((box, q) => {
      const [name, score] = now.said[state.image][q], has = pairs.has(q), clear = loud(q);
      const text = name ? `q${q} ${name} ${score.toFixed(2)}` : has ? `q${q} no object` : `q${q}`;
      if (has) {
        outline(context, box, colourOf(q), {width: q === state.query ? 2.8 : 1.9, alpha: clear ? 1 : 0.4});
        link(context, pixels(told.boxes[pairs.get(q)]), box, colourOf(q), clear ? 1 : 0.4);
        wanted.push({text, box, fill: colourOf(q)});
      } else if ((name && score >= 0.5) || q === state.query) {
        outline(context, box, colourOf(q), {width: q === state.query ? 2.4 : 1.5, dash: [2, 3]});
        late.push({text, box, fill: "#4B5565", faint: true});
      } else outline(context, box, "rgba(255,255,255,.5)", {width: 1, dash: [1, 3], halo: null});
    });
    labels(context, [...wanted, ...late], wide, high, 10.5);
    scene.title(epochs[state.moment] ? `After epoch ${epochs[state.moment]}` : "Before the training", "white: object; colour: its query");
    frame.describe(scene, `Image ${state.image} ${names[state.moment]}: ${told.boxes.length} objects and the queries that answer for them. Left and right: another query; up and down: another image.`);
  }

  function drawMap(state, before, after, t, loud) {
    const [context, width] = map.begin(w => Math.round(w * Math.min(tallest, 1))), height = Math.round(width * Math.min(tallest, 1)), now = moments[state.moment];
    context.fillStyle = frame.soft, roundBox(context, 0, 0, width, height, 5), context.fill();
    dots = [];
    for (let q = 0; q < queries; q++) {
      for (const strong of [false, true]) {
        context.fillStyle = colourOf(q), context.globalAlpha = (strong ? 0.95 : 0.28) * (loud(q) ? 1 : 0.2), context.beginPath();
        for (let b = 0; b < count; b++) {
          if ((now.busy[b][q] === "1") !== strong) continue;
          const x = mix(before.centres[b][q][0], after.centres[b][q][0], t) * width, y = mix(before.centres[b][q][1], after.centres[b][q][1], t) * height;
          if (strong) context.moveTo(x, y), context.arc(x, y, 2.3, 0, 7), dots.push([x, y, q, b]);
          else context.rect(x - 1.2, y - 1.2, 2.4, 2.4);
        }
        context.fill();
      }
    }
    context.globalAlpha = 1;
    const places = usual[state.moment].map(([x, y, w, h]) => [x * width, y * height, w * width, h * height]);
    const spread = Math.max(...[0, 1].map(k => Math.max(...places.map(p => p[k])) - Math.min(...places.map(p => p[k]))));
    if (state.query !== "all") {
      const [x, y, w, h] = places[state.query];
      outline(context, [x - w / 2, y - h / 2, x + w / 2, y + h / 2], colourOf(state.query), {width: 2, dash: [4, 3]});
    }
    if (state.query === "all" && spread < 0.05 * width) write(context, `all ${queries} queries`, places[0][0], places[0][1] - 16, {size: 12, colour: frame.ink, align: "center"});
    else labels(context, places.map(([x, y], q) => ({text: `q${q}`, box: [x - 12, y - 8, x + 12, y + 8], fill: colourOf(q), ink: "#fff"})).filter((_, q) => state.query === "all" || q === state.query), width, height, 10.5);
    map.title(state.query === "all" ? "Where the boxes lie" : `Where the boxes of q${state.query} lie`, `${count} images; strong: it has an object`);
    frame.describe(map, `The middles of all boxes over ${count} images. Left and right choose a query, Escape shows all.`);
  }

  function drawCurves(state, hover) {
    const [context, width, height] = curves.begin(w => Math.max(Math.round((frame.root.classList.contains("ndx-narrow") ? 0.75 : 1.33) * w), 220)), half = (height - 20) / 2;
    const left = 38, right = 10, x = k => left + (width - left - right) * (last ? k / last : 0.5), mine = moments.map(m => m.loss[state.image]), all = moments.map(m => m.mean_loss);
    const curve = (values, top, y0, colour, text, form) => {
      const y = value => y0 + (half - 44) * (1 - Math.min(value, top) / top), known = values.map((v, k) => [v, k]).filter(([v]) => v !== null);
      context.strokeStyle = context.fillStyle = colour, context.lineWidth = 2, context.beginPath();
      known.forEach(([v, k], i) => i ? context.lineTo(x(k), y(v)) : context.moveTo(x(k), y(v))), context.stroke();
      for (const [v, k] of known) context.beginPath(), context.arc(x(k), y(v), k === state.moment ? 5 : 2.6, 0, 7), context.fill();
      return values[state.moment] === null ? null : [text(form(values[state.moment])), y(values[state.moment]), colour];
    };
    const panel = (y0, title, top, ticks, form, lines) => {
      write(context, title, 0, y0 + 7, {size: 12, weight: 650, colour: frame.ink});
      const base = y0 + 22;
      for (const tick of ticks) {
        const y = base + (half - 44) * (1 - tick / top);
        context.fillStyle = frame.rule, context.fillRect(left, y, width - left - right, 1);
        write(context, form(tick), left - 5, y, {size: 10, colour: frame.quiet, align: "right"});
      }
      context.fillStyle = frame.rule, context.fillRect(x(state.moment) - 0.5, base, 1, half - 44);
      const told = lines.map(([values, colour, text, precise]) => curve(values, top, base, colour, text, precise || form)).filter(Boolean);
      for (const entry of told) entry[1] = clamp(entry[1] - 12, base + 4, base + half - 50);
      told.sort((a, b) => a[1] - b[1]).forEach((entry, k) => { if (k && entry[1] - told[k - 1][1] < 15) entry[1] = told[k - 1][1] + 15; });
      const over = told.length ? Math.max(0, told.at(-1)[1] - (base + half - 50)) : 0;  // all of them up, rather than one on another
      for (const [text, y, colour] of told) {
        context.font = `650 11px system-ui, sans-serif`;
        const wide = context.measureText(text).width, here = x(state.moment), tx = here + 11 + wide < width ? here + 11 : Math.max(here - 11 - wide, left), ty = y - over;
        context.fillStyle = frame.dark ? "rgba(20,22,28,.75)" : "rgba(255,255,255,.8)", context.fillRect(tx - 2, ty - 7, wide + 4, 14);
        write(context, text, tx, ty, {size: 11, weight: 650, colour});
      }
    };
    const top = 1.1 * Math.max(...all), step = [1, 2, 5, 10, 20, 50].find(s => top / s <= 4) || top, blue = frame.dark ? "#5CA7F2" : COLOURS[0], violet = frame.dark ? "#B093FF" : COLOURS[4];
    panel(0, "Loss", top, Array.from({length: Math.floor(top / step) + 1}, (_, k) => k * step), String, [[all, frame.quiet, v => `all ${v}`, v => number(v, 1)], [mine, blue, v => `this image ${v}`, v => number(v, 1)]]);
    panel(half + 8, "Objects with a new query", 1, [0, 0.5, 1], percent, [[moments.map(m => m.moved), violet, v => `changed ${v}`]]);
    epochs.forEach((epoch, k) => { if (last < 9 || k % 2 === 0) write(context, String(epoch), x(k), height - 6, {size: 10, colour: k === state.moment ? LIT : frame.quiet, weight: k === state.moment ? 700 : 400, align: "center"}); });
    chart = {left, right, width};
    curves.title("The training", "press a point; below: epochs");
    frame.describe(curves, `Loss ${number(all[state.moment], 1)} ${names[state.moment]}, of this image ${number(mine[state.moment], 1)}. Left and right move through the training.`);
  }

  function words(state) {
    const {moment, image, query} = state, now = moments[moment], start = epochs[moment] ? `After epoch ${epochs[moment]}` : "Before the training";
    if (query !== "all") {
      const mine = now.busy.map((row, b) => row[query] === "1" ? b : -1).filter(b => b >= 0), some = mine.length ? mine : now.busy.map((_, b) => b), [cx, cy, w, h] = usual[moment][query];
      const far = median(some.map(b => Math.hypot(now.centres[b][query][0] - cx, now.centres[b][query][1] - cy)));
      return `${start} q${query} has an object on ${percent(mine.length / count)} of the images; half of its boxes there lie within ${far.toFixed(2)} of (${cx.toFixed(2)}, ${cy.toFixed(2)}), ` +
        `and a usual one is ${w.toFixed(2)} wide and ${h.toFixed(2)} high. On this image it answers for ${now.pairs[image].some(([q]) => q === query) ? "an object" : "none"}.`;
    }
    const places = usual[moment];
    let apart = 0;
    for (const a of places) for (const b of places) apart += Math.hypot(a[0] - b[0], a[1] - b[1]);
    const text = `${start} the queries' usual places are ${(apart / Math.max(queries * (queries - 1), 1)).toFixed(2)} of the image apart on average`;
    if (now.moved === null) return `${text}: all say the same, and who is matched with what is an accident.`;
    return `${text}; ${percent(now.moved)} of the objects have another query than after epoch ${epochs[moment - 1]}.`;
  }

  function draw(state, hover) {
    if (still.matches) at = state.moment;
    else if (Math.abs(at - state.moment) > 1) at = state.moment - Math.sign(state.moment - at);  // a jump shows its last stretch
    if (at !== state.moment) {
      const far = state.moment - at;
      at = Math.abs(far) < 0.02 ? state.moment : at + far * 0.16;
      if (at !== state.moment) frame.later();
    }
    const low = Math.floor(at), t = at - low, before = moments[low], after = moments[Math.min(low + 1, last)];
    const chosen = hover && hover.query !== undefined ? hover.query : state.query, loud = q => chosen === "all" || q === chosen;
    drawScene(state, before, after, t, loud), drawMap(state, before, after, t, loud), drawCurves(state, hover);
    frame.say(words(state));
    frame.tell(hover && hover.query !== undefined ? `q${hover.query}: on this image ${moments[state.moment].said[state.image][hover.query][0] || "no object"} with ${moments[state.moment].said[state.image][hover.query][1].toFixed(2)}; it has an object on ${percent(moments[state.moment].busy.filter(row => row[hover.query] === "1").length / count)} of the images` :
      hover && hover.moment !== undefined ? `${names[hover.moment]}: loss ${number(moments[hover.moment].mean_loss, 2)} over all images, ${number(moments[hover.moment].loss[state.image], 2)} on this one` :
      "Press play. Point at a box or a dot for its query, press it to keep it; press a point of the curves to go there.");
    Object.assign(frame.root.dataset, {loss: moments[state.moment].loss[state.image]});
  }

  const choose = target => frame.set({query: target.query === frame.state.query ? "all" : target.query});
  const turn = dx => {
    const {query} = frame.state;
    frame.set({query: query === "all" ? (dx > 0 ? 0 : queries - 1) : query + dx < 0 || query + dx >= queries ? "all" : query + dx});
  };
  frame.touchable(scene, {
    label: "scene", choose, clear: () => frame.set({query: "all"}), move: (dx, dy) => dx ? turn(dx) : frame.set({image: frame.state.image + dy}),
    at(x, y) {
      const hit = shown.filter(([b]) => b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]).sort(([a], [b]) => (a[2] - a[0]) * (a[3] - a[1]) - (b[2] - b[0]) * (b[3] - b[1]));
      return hit.length ? {query: hit[0][1]} : null;
    }});
  frame.touchable(map, {
    label: "map", choose, clear: () => frame.set({query: "all"}), move: (dx, dy) => turn(dx || dy),
    at(x, y) {
      const near = dots.map(dot => [Math.hypot(dot[0] - x, dot[1] - y), dot[2]]).sort((a, b) => a[0] - b[0])[0];
      return near && near[0] < 14 ? {query: near[1]} : null;
    }});
  frame.touchable(curves, {
    label: "curves", drag: true, choose: target => { stop(), frame.set({moment: target.moment}); }, move: (dx, dy) => { stop(), frame.set({moment: frame.state.moment + (dx || -dy)}); },
    at: x => ({moment: clamp(Math.round((x - chart.left) / (chart.width - chart.left - chart.right) * last), 0, last)})});
  const destroy = frame.destroy.bind(frame);
  frame.destroy = () => { stop(), destroy(); };
  return frame.start(draw, clean);
}

export default forNotebook(mount);
