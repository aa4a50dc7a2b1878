// Pixels to pictures, and the small figures beside them. Put before the script of each widget.

const COLOURS = { lens: "#d55e00", not: "#0173b2", unsure: "#949494" }; // as in the figures of the book
const MASKED = -32768, MASKED_COLOUR = [201, 184, 168];
const RAMPS = {
  grey: [[0, 0, 0], [255, 255, 255]],
  inverted: [[255, 255, 255], [0, 0, 0]],
  cividis: [[0, 34, 78], [53, 69, 109], [102, 105, 112], [147, 141, 115], [196, 181, 98], [254, 232, 56]],
  difference: [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]],
};

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
};

/** Keep plain keys from JupyterLab, which has other plans for arrows and letters. */
const keepKeys = (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
};

const bytesOf = (value) =>
  value instanceof DataView
    ? value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength)
    : value instanceof ArrayBuffer ? value : new ArrayBuffer(0);

const quantile = (values, q) => {
  const sorted = Float32Array.from(values.filter((v) => !Number.isNaN(v))).sort();
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : 0;
};

/** Planes of one object in the units of the network's input, NaN where masked; band after band in each. */
function decode(pixels, page, index) {
  const { unit, softening } = page.items[index], area = page.size * page.size * page.weights.length;
  return Array.from({ length: page.planes }, (_, plane) => {
    const whole = new Int16Array(pixels, 2 * area * (index * page.planes + plane), area);
    return Float32Array.from(whole, (k) => (k === MASKED ? NaN : softening * Math.sinh(unit * k)));
  });
}

/** The planes in the units that are asked for, and what the stretch has to know of them. */
function inUnits(planes, item, units, weights) {
  const [a, b, bent] = item.back, [levels, noise] = item.level, area = planes[0].length / weights.length;
  const band = (p) => Math.floor(p / area), level = Math.max(...levels);
  const flux = (x, p) => (bent ? a * Math.sinh(b * x) : a + b * x) / weights[band(p)];
  if (units === "input") {
    const low = quantile(planes[0], 0.005);
    return { planes, low, softening: item.softening, least: low + (10 / 3) * item.softening };
  }
  if (units === "flux") {
    const drawn = planes.map((plane) => plane.map(flux));
    return { planes: drawn, low: Math.min(...levels) - 2 * noise, softening: 3 * noise, least: level + 10 * noise };
  }
  const drawn = planes.map((plane) => plane.map((x, p) => (flux(x, p) - levels[band(p)]) / noise));
  return { planes: drawn, low: -2, softening: 3, least: 10 };
}

const STRETCHES = {
  asinh: (v, low, high, s) => Math.asinh((v - low) / s) / Math.asinh((high - low) / s),
  logarithm: (v, low, high) => Math.log1p((1000 * Math.max(v - low, 0)) / (high - low)) / Math.log(1001),
  "square root": (v, low, high) => Math.sqrt(Math.max(v - low, 0) / (high - low)),
  linear: (v, low, high) => (v - low) / (high - low),
};

function colour(ramp, t) {
  const stops = RAMPS[ramp], x = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(x), stops.length - 2), f = x - i;
  return [0, 1, 2].map((c) => stops[i][c] + f * (stops[i + 1][c] - stops[i][c]));
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** At each pixel what red, green and blue become; the mean of the others stands for one that is masked. */
function byPixel(values, act) {
  const area = values.length / 3, all = new Float32Array(values.length).fill(NaN);
  for (let p = 0; p < area; p++) {
    const rgb = [values[p], values[area + p], values[2 * area + p]], real = rgb.filter((v) => !Number.isNaN(v));
    if (real.length) act(rgb.map((v) => (Number.isNaN(v) ? mean(real) : v))).forEach((v, c) => { all[c * area + p] = v; });
  }
  return all;
}

/** Colours after Lupton et al. (2004): brightness is stretched, and the ratios of the bands stay as they are. */
function inColour(values, low, stretch) {
  return byPixel(values, (rgb) => {
    const above = rgb.map((v) => Math.max(v - low, 0)), light = mean(above);
    const bright = above.map((v) => (light > 0 ? (v * Math.max(stretch(light + low), 0)) / light : 0));
    return bright.map((v) => v / Math.max(1, ...bright));
  });
}

/** Draw values of 0 to 1 into a canvas, the first row at the bottom; of three bands as red, green and blue. */
function draw(canvas, size, values, ramp) {
  const area = size * size, coloured = values.length > area;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  const table = coloured ? [] : Array.from({ length: 256 }, (_, k) => colour(ramp, k / 255));
  const level = (v) => Math.round(255 * Math.min(Math.max(v, 0), 1));
  for (let p = 0; p < area; p++) {
    const at = 4 * ((size - 1 - Math.floor(p / size)) * size + (p % size));
    const seen = coloured ? [0, 1, 2].map((c) => level(values[c * area + p])) : table[level(values[p])];
    image.data.set(Number.isNaN(values[p]) ? MASKED_COLOUR : seen, at);
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** A canvas of a small figure, sharp on every screen. */
function figure(canvas, height, paint) {
  const width = canvas.clientWidth || 180, dense = window.devicePixelRatio || 1;
  canvas.width = width * dense;
  canvas.height = height * dense;
  const context = canvas.getContext("2d"), style = getComputedStyle(canvas);
  context.scale(dense, dense);
  context.font = `10px ${style.fontFamily}`;
  paint(context, width, height, style.color, style.getPropertyValue("--faint") || "#bbb");
}

function drawHistogram(canvas, { counts, ticks }, at, threshold = null) {
  figure(canvas, 96, (c, w, h, ink, faint) => {
    const base = h - 16, top = Math.log1p(Math.max(...counts));
    c.fillStyle = faint;
    counts.forEach((n, i) => {
      const tall = (Math.log1p(n) / top) * (base - 8);
      c.fillRect((i / counts.length) * w, base - tall, w / counts.length - 1, tall);
    });
    c.fillStyle = ink;
    let free = 0;
    for (const [x, text] of ticks) {
      const long = c.measureText(text).width, left = Math.min(Math.max(x * w - long / 2, 0), w - long);
      if (left < free) continue;
      c.fillText(text, left, h - 3);
      c.fillRect(x * w - 0.5, base, 1, 3);
      free = left + long + 8;
    }
    for (const [x, width, dash] of [[at, 2, []], [threshold, 1, [3, 3]]]) {
      if (x == null) continue;
      c.strokeStyle = dash.length ? ink : COLOURS.lens;
      c.lineWidth = width;
      c.setLineDash(dash);
      c.beginPath();
      c.moveTo(x * (w - 2) + 1, 2);
      c.lineTo(x * (w - 2) + 1, base);
      c.stroke();
    }
  });
}

function drawMap(canvas, background, marked, at, ends = null) {
  figure(canvas, 96, (c, w, h, ink, faint) => {
    const base = ends ? h - 16 : h;
    const place = ([x, y]) => [6 + (x / 1000) * (w - 12), 6 + (1 - y / 1000) * (base - 12)];
    c.fillStyle = faint;
    for (const point of background) c.fillRect(place(point)[0] - 0.75, place(point)[1] - 0.75, 1.5, 1.5);
    for (const [x, y, label] of marked) {
      c.fillStyle = COLOURS[label];
      c.beginPath();
      c.arc(...place([x, y]), 2.5, 0, 7);
      c.fill();
    }
    if (ends && ends.ra) {
      c.fillStyle = ink;
      c.textAlign = "left";
      c.fillText(`RA ${ends.ra[0]}°`, 0, h - 3);
      c.textAlign = "right";
      c.fillText(`${ends.ra[1]}°`, w, h - 3);
    }
    if (!at || at.length !== 2) return;
    const [x, y] = place(at);
    for (const [width, paint] of [[4, "white"], [2, COLOURS.lens]]) {
      c.strokeStyle = paint;
      c.lineWidth = width;
      c.beginPath();
      c.arc(x, y, 5, 0, 7);
      c.stroke();
    }
  });
}
