// A score threshold: which detections of a class are right, the place on the precision-recall curve, and AP as the area under it.
import {COLOURS, INK, LIT, Frame, clamp, css, forNotebook, iou, labels, loadImage, number, outline, photo, rgb, write} from "./core.js";

const RIGHT = COLOURS[2], WRONG = COLOURS[1], CURVE = COLOURS[0];
const hundredths = x => Math.round(100 * x) / 100;

// what a threshold makes of a class; at: which IoU. Scores fall, so what is kept comes first.
export function working(told, threshold, at) {
  const scores = told.scores[at] || told.scores[0], hits = told.hits[at], cut = scores.findIndex(score => score < threshold);
  const kept = cut < 0 ? scores.length : cut, right = [...hits.slice(0, kept)].filter(hit => hit === "1").length;
  return {kept, right, objects: told.objects, ap: told.ap[at], precision: kept ? right / kept : null, recall: right / told.objects};
}

// [recall, precision] after each detection
export function curve(told, at) {
  let right = 0;
  return [...told.hits[at]].map((hit, k) => { right += hit === "1"; return [right / told.objects, right / (k + 1)]; });
}

// the same, with the best precision from there on
export function envelope(points) {
  const high = points.map(p => [...p]);
  for (let k = high.length - 2; k >= 0; k--) high[k][1] = Math.max(high[k][1], high[k + 1][1]);
  return high;
}

// of one image: the detections that are kept, each [place, right], and the objects that are missed; a claim of -1: wrong, of -2: ignored
export function judged(scene, threshold, at) {
  const claims = scene.claims[at], kept = claims.map((_, d) => d).filter(d => scene.scores[d] >= threshold && claims[d] > -2), found = new Set(kept.map(d => claims[d]));
  return {kept: kept.map(d => [d, claims[d] >= 0]), missed: scene.objects.map((_, t) => t).filter(t => !found.has(t))};
}

export function workingWords(name, {kept, right, objects, ap, precision, recall}, threshold, hit) {
  const rate = kept ? `precision ${right}/${kept} = ${number(precision)}` : "precision is not defined (nothing is kept)";
  return `${kept} detections of ${name} score ${number(threshold)} or more; a hit needs IoU ${number(hit)}: ${rate}, recall ${right}/${objects} = ${number(recall)}. AP ${number(ap, 3)} is the whole area, whatever the threshold.`;
}

export async function mount(place, data, given = {}, changed = () => {}) {
  const {names, ious, highest, images, classes} = data, pictures = await Promise.all(images.map(image => loadImage(image.image)));
  const frame = new Frame(place, "precision_recall", {threshold: 0.5, iou: ious[0], label: classes[0].label, ...given}, changed);
  const tallest = Math.min(1, Math.max(...images.map(image => image.height / image.width))), of = label => classes.find(told => told.label === label);
  frame.range("threshold", "score threshold", 0, highest, 0.01, {wide: true, show: x => x.toFixed(2)});
  frame.range("iou", "IoU of a hit", ious[0], ious[ious.length - 1], 0.05, {wide: true, show: x => x.toFixed(2)});
  if (classes.length > 12) frame.range("label", "class", 0, classes.length - 1, 1, {names, wide: true, values: classes.map(told => told.label)});
  else frame.pills("label", "class", classes.map(told => [names[told.label], told.label]));
  frame.main.style.gridTemplateColumns = "minmax(0, 7fr) minmax(0, 5fr)";
  const scenes = frame.panel("scene"), chart = frame.panel("curve");
  let boxes = [], points = [];  // what can be pointed at: [box in pixels, {image, detection}], and the curve's places in pixels

  const clean = state => ({...state, threshold: clamp(hundredths(state.threshold), 0, highest), iou: clamp(hundredths(state.iou), ious[0], ious[ious.length - 1]),
    label: classes.reduce((best, told) => Math.abs(told.label - state.label) < Math.abs(best - state.label) ? told.label : best, classes[0].label)});

  function drawScenes(told, at, state, hover) {
    const narrow = frame.root.classList.contains("ndx-narrow"), columns = narrow ? 2 : 3, gap = 6;
    const [context, width] = scenes.begin(w => Math.ceil(6 / columns) * ((w + gap) / columns - gap) * tallest + (Math.ceil(6 / columns) - 1) * gap), wide = (width + gap) / columns - gap;
    boxes = [];
    told.scenes.forEach((scene, k) => {
      const image = images[scene.image], left = k % columns * (wide + gap), top = Math.floor(k / columns) * (wide * tallest + gap);
      const w = Math.min(wide, wide * tallest * image.width / image.height), h = w * image.height / image.width, {kept, missed} = judged(scene, state.threshold, at);
      const pixels = box => box.map((x, j) => clamp(x, 0, 1) * (j % 2 ? h : w)), pointed = d => hover?.image === k && hover.detection === d;
      context.save(), context.translate(left, top), context.beginPath(), context.rect(0, 0, w, h), context.clip();
      photo(context, pictures[scene.image], 0, 0, w, h);
      for (const t of missed) outline(context, pixels(scene.objects[t]), "#fff", {width: 1.6, dash: [4, 3], halo: INK});
      for (const [d, right] of [...kept].sort((a, b) => a[1] - b[1])) outline(context, pixels(scene.boxes[d]), right ? RIGHT : WRONG, {width: pointed(d) ? 3.6 : 2});
      labels(context, kept.map(([d, right], rank) => ({text: scene.scores[d].toFixed(2), box: pixels(scene.boxes[d]), fill: right ? RIGHT : WRONG, faint: rank > 0})), w, h, 10.5);
      context.restore();
      for (const [d] of kept) boxes.push([pixels(scene.boxes[d]).map((x, j) => x + (j % 2 ? top : left)), {image: k, detection: d}]);
    });
    scenes.title(`${names[told.label][0].toUpperCase()}${names[told.label].slice(1)}: right and wrong`, "green: right, orange: wrong, dashed: missed");
    frame.describe(scenes, `${told.scenes.length} images with the detections of ${names[told.label]} that score ${number(state.threshold)} or more. Left and right move the threshold, up and down the IoU of a hit.`);
  }

  function drawChart(told, at, found, state, marked) {
    const [context, width, height] = chart.begin(w => clamp(w * 0.95, 230, 360)), left = 38, right = width - 10, low = height - 40, top = 10;
    const x = v => left + v * (right - left), y = v => top + (1 - v) * (low - top), raw = curve(told, at), high = envelope(raw);
    for (const v of [0, 0.25, 0.5, 0.75, 1]) {
      context.fillStyle = frame.rule, context.fillRect(left, y(v), right - left, 1), context.fillRect(x(v), top, 1, low - top);
      write(context, String(v), left - 5, y(v), {size: 10.5, colour: frame.quiet, align: "right"}), write(context, String(v), x(v), low + 11, {size: 10.5, colour: frame.quiet, align: "center"});
    }
    write(context, "recall", (left + right) / 2, low + 29, {size: 11, colour: frame.quiet, align: "center"});
    context.save(), context.translate(8, (top + low) / 2), context.rotate(-Math.PI / 2), write(context, "precision", 0, 0, {size: 11, colour: frame.quiet, align: "center"}), context.restore();
    context.beginPath(), context.moveTo(x(0), y(0));
    high.forEach(([r, p], k) => { context.lineTo(x(k ? high[k - 1][0] : 0), y(p)), context.lineTo(x(r), y(p)); });
    context.lineTo(x(high.length ? high[high.length - 1][0] : 0), y(0));
    context.fillStyle = css(rgb(CURVE), 0.2), context.fill(), context.strokeStyle = CURVE, context.lineWidth = 1.8, context.stroke();
    const line = (some, colour, thick) => { context.strokeStyle = colour, context.lineWidth = thick, context.beginPath(), some.forEach(([r, p]) => context.lineTo(x(r), y(p))), context.stroke(); };
    line(raw, css(rgb(CURVE), 0.6), 1), line(raw.slice(0, found.kept), frame.ink, 1.6);
    points = raw.map(([r, p]) => [x(r), y(p)]);
    const dot = (k, radius, fill, rim) => { context.beginPath(), context.arc(...points[k], radius, 0, 7), context.fillStyle = fill, context.fill(), context.strokeStyle = rim, context.lineWidth = 2, context.stroke(); };
    if (found.kept) dot(found.kept - 1, 6, frame.ink, frame.dark ? INK : "#fff");
    if (marked >= 0 && marked < points.length) dot(marked, 5, "#fff", LIT);
    [`kept ${found.kept}: ${found.right} right, ${found.kept - found.right} wrong`, `missed ${told.objects - found.right} of ${told.objects} objects`].forEach((text, k) => write(context, text, left + 8, low - 29 + 17 * k, {size: 11.5, weight: 600, colour: frame.ink}));
    chart.title(`AP ${number(found.ap)}: the area`, "dark: up to the threshold; press or drag on it");
    frame.describe(chart, `Precision over recall of ${names[told.label]}. ${found.kept} kept, ${found.right} of them right. Left and right move the threshold, up and down the IoU of a hit.`);
  }

  function hintOf(told, at, state, hover) {
    if (!hover) return "Point at a box or at the curve. Press it to put the threshold there.";
    if (hover.place !== undefined) {
      const scores = told.scores[at] || told.scores[0], [r, p] = curve(told, at)[hover.place];
      return `Down to score ${number(scores[hover.place])}: ${hover.place + 1} kept, precision ${number(p)}, recall ${number(r)}`;
    }
    const scene = told.scenes[hover.image], claim = scene.claims[at][hover.detection], overlaps = scene.objects.map(object => iou(scene.boxes[hover.detection], object)), best = Math.max(0, ...overlaps);
    const why = claim >= 0 ? `right: IoU ${number(overlaps[claim])} with its object` : best >= state.iou ? `wrong: a better-scored detection has this object (IoU ${number(best)})` : `wrong: its best IoU with a ${names[told.label]} is ${number(best)}`;
    return `Score ${number(scene.scores[hover.detection])}, ${why}`;
  }

  function draw(state, hover) {
    const told = of(state.label), at = ious.findIndex(value => Math.abs(value - state.iou) < 0.025), found = working(told, state.threshold, at);
    if (hover && (hover.place >= told.hits[at].length || (hover.detection !== undefined && told.scenes[hover.image]?.scores[hover.detection] === undefined))) hover = null;  // of another class
    const scores = told.scores[at] || told.scores[0], asked = hover?.detection === undefined ? null : told.scenes[hover.image].scores[hover.detection];
    drawScenes(told, at, state, hover);
    drawChart(told, at, found, state, asked === null ? hover?.place ?? -1 : scores.filter(score => score >= asked).length - 1);
    Object.assign(frame.root.dataset, {kept: found.kept, right: found.right, ap: found.ap});
    frame.say(workingWords(names[told.label], found, state.threshold, state.iou)), frame.tell(hintOf(told, at, state, hover));
  }

  const move = (dx, dy) => frame.set({threshold: frame.state.threshold + 0.01 * dx, iou: frame.state.iou - 0.05 * dy});
  const down = score => frame.set({threshold: Math.floor(100 * score + 1e-6) / 100});  // so that it is kept
  frame.touchable(scenes, {label: "images", move, choose: ({image, detection}) => down(of(frame.state.label).scenes[image].scores[detection]), at(x, y) {
    const far = ([b]) => Math.hypot(Math.max(b[0] - x, 0, x - b[2]), Math.max(b[1] - y, 0, y - b[3])), size = ([b]) => (b[2] - b[0]) * (b[3] - b[1]);
    const near = boxes.filter(some => far(some) < 16);  // a finger is broad; of those that it is on, the smallest
    return near.length ? near.reduce((a, b) => (far(b) - far(a) || size(b) - size(a)) < 0 ? b : a)[1] : null;
  }});
  frame.touchable(chart, {label: "curve", move, drag: true, at(x, y) {
    const far = points.map(([a, b]) => Math.hypot(a - x, b - y));
    return far.length ? {place: far.indexOf(Math.min(...far))} : null;
  }, choose({place}) {
    const told = of(frame.state.label), at = ious.findIndex(value => Math.abs(value - frame.state.iou) < 0.025);
    down((told.scores[at] || told.scores[0])[place]);
  }});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
