// Two boxes: what IoU and GIoU say about them, which way the gradient of each pulls, and both measures along a slide in x.
import {COLOURS, LIT, Frame, area, clamp, corners, css, element, forNotebook, labels, number, outline, rgb, roundBox, textOn, write} from "./core.js";

const SIDES = ["cx", "cy", "w", "h"], COLOUR = {predicted: COLOURS[4], target: COLOURS[2], IoU: COLOURS[0], GIoU: LIT}, MARGIN = 0.06;

const larger = (a, b) => a > b ? 1 : a < b ? 0 : 0.5;  // the slope of max(a, b) by a; equal ones share it, as in autograd

// {IoU, GIoU: [value, its slopes by cx, cy, w, h of the predicted box]}; boxes: cxcywh
export function measured(predicted, target) {
  const a = corners(predicted), b = corners(target);
  const axes = [0, 1].map(k => {  // lengths along x and along y, each with its slopes by the centre and by the size
    const [a0, a1, b0, b1] = [a[k], a[k + 2], b[k], b[k + 2]], both = Math.min(a1, b1) - Math.max(a0, b0), touch = both > 0 ? 1 : 0;
    const inner = [touch * larger(a0, b0), touch * larger(b1, a1)], outer = [larger(b0, a0), larger(a1, b1)];
    return {own: [a1 - a0, 0, 1], shared: [Math.max(both, 0), inner[1] - inner[0], (inner[0] + inner[1]) / 2],
            hull: [Math.max(a1, b1) - Math.min(a0, b0), outer[1] - outer[0], (outer[0] + outer[1]) / 2]};
  });
  const size = name => axes[0][name][0] * axes[1][name][0], slope = (name, j) => axes[j % 2][name][j < 2 ? 1 : 2] * axes[1 - j % 2][name][0];
  const shared = size("shared"), union = size("own") + area(b) - shared, hull = size("hull");
  const iou = SIDES.map((_, j) => (slope("shared", j) * union - shared * (slope("own", j) - slope("shared", j))) / union ** 2);
  const giou = iou.map((g, j) => g + ((slope("own", j) - slope("shared", j)) * hull - union * slope("hull", j)) / hull ** 2);
  return {IoU: [shared / union, iou], GIoU: [shared / union - (hull - union) / hull, giou]};
}

function pullWords(slope) {
  const pick = (g, more, less) => Math.abs(g) > 1e-5 ? [g > 0 ? more : less] : [];
  const move = [...pick(slope[0], "right", "left"), ...pick(slope[1], "down", "up")], size = [...pick(slope[2], "wider", "narrower"), ...pick(slope[3], "taller", "flatter")];
  return [move.length && `pulls it ${move.join(" and ")}`, size.length && `makes it ${size.join(" and ")}`].filter(Boolean).join(", ");
}

export function boxesWords(told) {
  const still = told.GIoU[1].slice(0, 2).every(g => Math.abs(g) < 1e-5);
  const state = !told.IoU[0] ? "Apart." : still ? "The same centre, or one inside the other: no pull on the centre." : "Overlapping.";
  return [state, ...Object.entries(told).map(([name, [value, slope]]) => `${name} ${number(value)} ${pullWords(slope) || "has no slope at all: nothing to follow"}.`)].join(" ");
}

const boxOf = (state, whose) => SIDES.map(side => state[`${whose}_${side}`]);
const patch = (whose, box) => Object.fromEntries(SIDES.map((side, j) => [`${whose}_${side}`, box[j]]));
const hundredths = x => Math.round(100 * x) / 100;

// a box with its corner (sx, sy of -1 or 1) drawn to a point, while the opposite corner stays; corner null: moved by a way
export function dragged(box, corner, point, way) {
  if (!corner) return [hundredths(box[0] + way[0]), hundredths(box[1] + way[1]), box[2], box[3]];
  const found = [0, 1].map(k => {
    const fixed = box[k] - corner[k] * box[2 + k] / 2, [near, far] = [0, 1].map(rim => 2 * corner[k] * (rim - fixed)).sort((a, b) => a - b);  // between these sizes the centre is in 0..1
    const size = clamp(corner[k] * (point[k] - fixed), Math.max(0.02, near), Math.min(1, far)), centre = hundredths(fixed + corner[k] * size / 2);
    return [centre, hundredths(2 * Math.abs(centre - fixed))];
  });
  return [found[0][0], found[1][0], found[0][1], found[1][1]];
}

export async function mount(place, data, given = {}, changed = () => {}) {
  const frame = new Frame(place, "boxes", {...patch("predicted", [0.24, 0.32, 0.24, 0.3]), ...patch("target", [0.68, 0.54, 0.36, 0.44]), ...given}, changed);
  frame.row.style.display = "grid";
  const heads = ["predicted", "target"].map(whose => {
    const dot = element("span", {textContent: "\u25A0 ", style: `color: ${COLOUR[whose]}`}), head = element("b", {}, dot, whose);
    frame.row.append(head);
    SIDES.forEach((side, j) => {
      const control = frame.range(`${whose}_${side}`, `${whose} ${side}`, j < 2 ? 0 : 0.02, 1, 0.01, {wide: true, show: x => x.toFixed(2)});
      control.firstChild.textContent = side, control.firstChild.style.minWidth = "1.3em", control.input.style.minWidth = "40px";
    });
    return head;
  });
  const panels = {IoU: frame.panel("scene"), GIoU: frame.panel("hull")}, slide = frame.panel("slide");
  let held = "predicted", grip = null, unit = 1, line = null;  // the box with handles; what a hand holds; pixels for 1; x of the slide

  const clean = state => Object.fromEntries(Object.entries(state).map(([key, value]) => [key, clamp(value, /_[wh]$/.test(key) ? 0.02 : 0, 1)]));
  const pixels = box => corners(box).map(x => (x + MARGIN) * unit);

  // the box at a point in 0..1, and which of its corners (null: none); reach: pixels
  function find([x, y], reach) {
    const box = boxOf(frame.state, held), ends = corners(box);
    for (const sx of [-1, 1]) for (const sy of [-1, 1]) {
      if (Math.hypot(x - ends[sx + 1], y - ends[sy + 2]) * unit < reach) return {whose: held, corner: [sx, sy]};
    }
    const inside = ["predicted", "target"].filter(whose => { const [x0, y0, x1, y1] = corners(boxOf(frame.state, whose)); return x0 <= x && x <= x1 && y0 <= y && y <= y1; });
    inside.sort((a, b) => area(corners(boxOf(frame.state, a))) - area(corners(boxOf(frame.state, b))));  // the smaller lies on top
    return inside.length ? {whose: inside[0], corner: null} : null;
  }

  function arrow(context, x, y, dx, dy, colour, width, head) {
    const long = Math.hypot(dx, dy) * unit, tip = Math.min(head, long), angle = Math.atan2(dy, dx), halo = frame.dark ? "rgba(0,0,0,.6)" : "rgba(255,255,255,.9)";
    context.save();
    context.translate((x + MARGIN) * unit, (y + MARGIN) * unit), context.rotate(angle), context.lineJoin = "round";
    for (const [style, more] of [[halo, 2.4], [colour, 0]]) {
      context.strokeStyle = context.fillStyle = style, context.lineWidth = width + more;
      context.beginPath(), context.moveTo(0, 0), context.lineTo(long - tip, 0), context.stroke();
      context.lineWidth = 0.5 + more, context.beginPath(), context.moveTo(long, 0), context.lineTo(long - tip, tip / 2), context.lineTo(long - tip, -tip / 2), context.closePath(), context.fill(), context.stroke();
    }
    context.restore();
  }

  function drawScene(name, [value, slope], boxes, hover) {
    const [context, width] = panels[name].begin(w => w), fill = ([x0, y0, x1, y1], colour) => { context.fillStyle = colour, context.fillRect(x0, y0, x1 - x0, y1 - y0); };
    unit = width / (1 + 2 * MARGIN);
    const {predicted, target} = boxes, [a, b] = [predicted, target].map(pixels), halo = frame.dark ? "rgba(0,0,0,.6)" : "rgba(255,255,255,.9)";
    fill([0, 0, width, width], frame.soft), outline(context, pixels([0.5, 0.5, 1, 1]), frame.rule, {width: 1, halo: null});
    if (name === "GIoU") {
      const [x0, y0, x1, y1] = [0, 1, 2, 3].map(k => (k < 2 ? Math.min : Math.max)(a[k], b[k]));
      context.save(), context.beginPath(), context.rect(x0, y0, x1 - x0, y1 - y0), context.clip(), context.beginPath();
      for (let x = x0 - (y1 - y0); x < x1; x += 9) context.moveTo(x, y1), context.lineTo(x + y1 - y0, y0);
      context.strokeStyle = frame.quiet, context.lineWidth = 0.8, context.stroke(), context.restore();
      outline(context, [x0, y0, x1, y1], frame.quiet, {width: 1, dash: [5, 3], halo: null});
      context.beginPath();
      for (const box of [a, b]) for (const paint of ["clearRect", "rect"]) context[paint](box[0], box[1], box[2] - box[0], box[3] - box[1]);
      context.fillStyle = frame.soft, context.fill();
    }
    fill(a, css(rgb(COLOUR.predicted), 0.15)), fill(b, css(rgb(COLOUR.target), 0.15));
    if (name === "IoU" && value) fill([0, 1, 2, 3].map(k => (k < 2 ? Math.max : Math.min)(a[k], b[k])), css(rgb(COLOUR.IoU), 0.55));
    for (const whose of ["target", "predicted"]) outline(context, whose === "target" ? b : a, COLOUR[whose], {width: hover?.whose === whose ? 3.4 : 2.2, halo});
    const [x0, y0, x1, y1] = held === "predicted" ? a : b;
    for (const [x, y] of [[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) fill([x - 5, y - 5, x + 5, y + 5], "#fff"), fill([x - 3.5, y - 3.5, x + 3.5, y + 3.5], COLOUR[held]);
    const [mid, level] = [(a[0] + a[2]) / 2, (a[1] + a[3]) / 2], arrows = [[mid, a[1] - 13], [mid, a[3] + 13], [a[0] - 13, level], [a[2] + 13, level]];
    labels(context, ["predicted", "target"].map(whose => ({text: whose, box: whose === "target" ? b : a, fill: COLOUR[whose]})), width, width, 11, arrows.map(([x, y]) => [x - 13, y - 13, x + 13, y + 13]));
    write(context, name === "IoU" ? "filled: shared" : "hatched: in the hull, in neither box", width / 2, width - MARGIN * unit / 2, {size: 11, colour: frame.quiet, align: "center"});
    const reach = g => 0.11 * Math.sign(g) * Math.sqrt(Math.abs(g)), size = Math.hypot(slope[0], slope[1]), [x, y, w, h] = predicted;
    if (size > 1e-5) arrow(context, x, y, slope[0] / size * reach(size), slope[1] / size * reach(size), COLOUR[name], 2.8, 13);
    for (const [sx, sy] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
      const g = slope[sx ? 2 : 3];
      if (Math.abs(g) > 1e-5) arrow(context, x + sx * w / 2, y + sy * h / 2, sx * reach(g), sy * reach(g), COLOUR[name], 1.6, 8);
    }
    panels[name].title(`${name} ${number(value)}`, `gradient: ${SIDES.map((side, j) => `${side} ${number(slope[j])}`).join(", ")}`);
    frame.describe(panels[name], `${name} ${number(value)}. The arrow keys move the ${held} box; sliders change its size.`);
  }

  function drawSlide(told, {predicted, target}, hover, side) {
    const [context, width, height] = slide.begin(w => side ? w : 210), left = 34, right = width - 8, low = height - 36, b = corners(target), a = corners(predicted);
    const x = v => left + v * (right - left), y = v => 8 + (1.06 - v) / 2.12 * (low - 8), at = cx => measured([cx, ...predicted.slice(1)], target);
    line = v => clamp((v - left) / (right - left), 0, 1);
    const meet = Math.min(a[3], b[3]) > Math.max(a[1], b[1]) ? [b[0] - predicted[2] / 2, b[2] + predicted[2] / 2].map(v => clamp(v, 0, 1)) : [1, 1];
    context.fillStyle = frame.rule, context.fillRect(left, 8, x(meet[0]) - left, low - 8), context.fillRect(x(meet[1]), 8, right - x(meet[1]), low - 8);
    for (const v of [-1, -0.5, 0, 0.5, 1]) context.fillStyle = frame.rule, context.fillRect(left, y(v), right - left, 1), write(context, number(v, 1), left - 5, y(v), {size: 10.5, colour: frame.quiet, align: "right"});
    for (const v of [0, 0.25, 0.5, 0.75, 1]) write(context, String(v), x(v), low + 10, {size: 10.5, colour: frame.quiet, align: "center"});
    write(context, "cx of the predicted box; grey: apart", (left + right) / 2, low + 27, {size: 11, colour: frame.quiet, align: "center"});
    context.fillStyle = COLOUR.predicted, context.fillRect(x(predicted[0]) - 0.75, 8, 1.5, low - 8);
    if (hover?.cx !== undefined) context.fillStyle = frame.quiet, context.fillRect(x(hover.cx) - 0.5, 8, 1, low - 8);
    const path = Array.from({length: 201}, (_, k) => at(k / 200));
    Object.keys(told).forEach((name, k) => {
      context.strokeStyle = context.fillStyle = COLOUR[name], context.lineWidth = 2, context.beginPath();
      path.forEach((found, i) => context.lineTo(x(i / 200), y(found[name][0]))), context.stroke();
      context.beginPath(), context.arc(x(predicted[0]), y(told[name][0]), 5, 0, 7), context.fill(), context.strokeStyle = "#fff", context.lineWidth = 1.5, context.stroke();
      roundBox(context, left + 6 + 44 * k, 12, k ? 42 : 36, 17, 3), context.fillStyle = COLOUR[name], context.fill();
      write(context, name, left + 6 + 44 * k + (k ? 21 : 18), 21, {size: 11, weight: 600, colour: textOn(rgb(COLOUR[name])), align: "center"});
    });
    slide.title("If only cx changes", "press or drag here to slide the predicted box");
    frame.describe(slide, `IoU and GIoU along a slide in x. The predicted box is at cx ${number(predicted[0])}. Left and right slide it.`);
    return hover?.cx === undefined ? null : at(hover.cx);
  }

  function draw(state, hover) {
    const boxes = {predicted: boxOf(state, "predicted"), target: boxOf(state, "target")}, told = measured(boxes.predicted, boxes.target);
    const narrow = frame.root.classList.contains("ndx-narrow"), side = frame.root.clientWidth >= 820;
    frame.row.style.gridTemplateColumns = narrow ? "repeat(2, minmax(0, 1fr))" : "auto repeat(4, minmax(0, 1fr))";
    for (const head of heads) head.style.gridColumn = narrow ? "1 / -1" : "auto";
    frame.main.style.gridTemplateColumns = `repeat(${side ? 3 : 2}, minmax(0, 1fr))`, slide.cell.style.gridColumn = side ? "auto" : "1 / -1";
    for (const name of ["IoU", "GIoU"]) drawScene(name, told[name], boxes, hover);
    const there = drawSlide(told, boxes, hover, side);
    Object.assign(frame.root.dataset, {iou: told.IoU[0], giou: told.GIoU[0], held});
    frame.say(boxesWords(told));
    frame.tell(there ? `At cx ${number(hover.cx)}: IoU ${number(there.IoU[0])}, GIoU ${number(there.GIoU[0])}` :
      hover ? `${hover.whose}: ${SIDES.map((name, j) => `${name} ${number(boxes[hover.whose][j])}`).join(", ")}; its area is ${number(boxes[hover.whose][2] * boxes[hover.whose][3])}` :
      "Drag a box, or a corner of the box that has handles.");
  }

  for (const panel of Object.values(panels)) {
    const {canvas} = panel, where = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top].map(v => v / unit - MARGIN); };
    canvas.addEventListener("pointerdown", event => {
      if (event.button || !event.isPrimary) return;
      const found = find(where(event), event.pointerType === "mouse" ? 9 : 18);
      if (!found) return;
      held = found.whose, grip = {...found, from: where(event), box: boxOf(frame.state, held)};
      canvas.setPointerCapture(event.pointerId), frame.later();
    });
    canvas.addEventListener("pointermove", event => {
      if (!event.isPrimary) return;
      if (!(event.buttons & 1)) grip = null;  // the button was let go where nobody told us
      const point = where(event), found = grip || find(point, 9);
      canvas.style.cursor = !found ? "default" : !found.corner ? "move" : found.corner[0] === found.corner[1] ? "nwse-resize" : "nesw-resize";
      if (grip) frame.set(patch(grip.whose, dragged(grip.box, grip.corner, point, point.map((v, k) => v - grip.from[k]))));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, event => { if (event.isPrimary) grip = null; });
    canvas.addEventListener("touchstart", event => { if (find(where(event.touches[0]), 18)) event.preventDefault(); }, {passive: false});  // on a box a finger does not scroll
    frame.touchable(panel, {label: "boxes", at: (x, y) => find([x / unit - MARGIN, y / unit - MARGIN], 9), choose() {},
      move(dx, dy) { frame.set(patch(held, dragged(boxOf(frame.state, held), null, null, [0.01 * dx, 0.01 * dy]))); }});
  }
  frame.touchable(slide, {label: "slide", drag: true, at: x => ({cx: hundredths(line(x))}), choose: ({cx}) => frame.set({predicted_cx: cx}),
    move(dx) { frame.set({predicted_cx: hundredths(frame.state.predicted_cx + 0.01 * dx)}); }});
  return frame.start(draw, clean);
}

export default forNotebook(mount);
