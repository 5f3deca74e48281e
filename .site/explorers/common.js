// What both explorers need. No framework, nothing fetched: all that moves is in the page.
const byName = (root, name) => root.querySelector(`[data-name="${name}"]`);

// a colour map from evenly spaced stops: 0..1 -> [red, green, blue]
function ramp(stops) {
  const colours = stops.map(s => [1, 3, 5].map(k => parseInt(s.slice(k, k + 2), 16)));
  return t => {
    const x = Math.min(Math.max(t, 0), 1) * (colours.length - 1), k = Math.min(Math.floor(x), colours.length - 2);
    return colours[k].map((c, i) => Math.round(c + (x - k) * (colours[k + 1][i] - c)));
  };
}
const HEAT = ramp(["#0B1026", "#5B1E6B", "#C5384F", "#F58A2A", "#FFE68A"]);
const COST = ramp(["#123A5E", "#2C7BA0", "#86BFCB", "#D6E7E8", "#F4F4EF"]);
const COLOURS = ["#2678D1", "#E0660B", "#17915A", "#D42E72", "#8757E8", "#0B8F9C"];
const INK = "#1F2430";
const css = ([r, g, b], alpha = 1) => `rgba(${r},${g},${b},${alpha})`;

// white or ink, whichever reads better on a colour
function textOn(rgb) {
  const [r, g, b] = rgb.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.30 ? "#fff" : INK;
}

// a canvas as wide as its place on the page, sharp on every screen; draws in CSS pixels
function sharpen(canvas, aspect) {
  const width = canvas.clientWidth || 200, height = width / aspect, ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio), canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
  return [context, width, height];
}

function loadImage(address) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image), image.onerror = fail, image.src = address;
  });
}

// an outline with a halo, so that it shows on any picture
function outline(context, [x0, y0, x1, y1], colour, width, dash = [], halo = "#fff") {
  for (const [style, line] of [[halo, width + 2], [colour, width]]) {
    context.strokeStyle = style, context.lineWidth = line;
    context.setLineDash(dash);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  context.setLineDash([]);
}

// a small filled label, kept inside the canvas
function label(context, text, x, y, fill, limit) {
  context.font = "600 11px system-ui, sans-serif";
  const wide = context.measureText(text).width + 6;
  x = Math.min(Math.max(x, 0), limit - wide), y = Math.max(y, 14);
  context.fillStyle = fill, context.fillRect(x, y - 14, wide, 14);
  context.fillStyle = "#fff", context.fillText(text, x + 3, y - 3.5);
}

function fillSelect(select, names) {
  names.forEach((name, i) => select.add(new Option(name, i)));
}
