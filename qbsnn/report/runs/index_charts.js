// Axes, curves and the scatter plot, as SVG.

const HUES = 8;

/** Round values from about low to about high, at most `most` steps. */
function ticks(low, high, most = 6) {
  const rough = (high - low) / most || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 2.5, 5, 10].find(factor => factor * unit >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

/** 1, 2 and 5 of each decade within the bounds; all decades only where these are many. */
function logTicks(low, high) {
  const found = [];
  const factors = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    found.push(...factors.map(factor => factor * 10 ** power));
  }
  return found.filter(value => value >= low * 0.999 && value <= high * 1.001);
}

function bounds(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function span(values, pad) {
  const [low, high] = bounds(values);
  // Means of equal numbers differ in their last digit; no axis is drawn over that.
  const wide = high - low > 1e-6 * Math.abs(high) ? high - low : Math.abs(high) || 1;
  const room = wide * pad;
  return [low - room, high + room];
}

/** Frame, grid and ticks. `x` and `y`: {low, high, log, kind, title}. Returns the SVG and the two scales. */
function axes(width, height, x, y, label) {
  const left = 58, right = 14, top = 10, bottom = 42;
  const scale = (axis, from, to) => value => {
    const part = axis.log
      ? Math.log(value / axis.low) / Math.log(axis.high / axis.low)
      : (value - axis.low) / (axis.high - axis.low);
    return from + part * (to - from);
  };
  const atX = scale(x, left, width - right), atY = scale(y, height - bottom, top);
  const svg = drawn("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  for (const value of y.log ? logTicks(y.low, y.high) : ticks(y.low, y.high, 5)) {
    svg.append(
      drawn("line", { class: "grid", x1: left, x2: width - right, y1: atY(value), y2: atY(value) }),
      drawn("text", { x: left - 7, y: atY(value) + 4, "text-anchor": "end" }, tickText(value, y.kind)));
  }
  const most = Math.max(2, Math.floor((width - left - right) / 70));
  for (const value of x.log ? logTicks(x.low, x.high) : ticks(x.low, x.high, most)) {
    if (x.kind === "int" && !Number.isInteger(value)) continue;
    svg.append(
      drawn("line", { class: "grid", x1: atX(value), x2: atX(value), y1: top, y2: height - bottom }),
      drawn("text", { x: atX(value), y: height - bottom + 16, "text-anchor": "middle" }, tickText(value, x.kind)));
  }
  svg.append(
    drawn("path", { class: "frame", d: `M${left},${top}V${height - bottom}H${width - right}` }),
    drawn("text", { class: "title", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.title));
  return { svg, atX, atY };
}

function tickText(value, kind) {
  if (kind === "percent" || kind === "ratio") return `${Number((100 * value).toPrecision(4))}${SPACE}%`;
  return shown(kind === "int" ? Math.round(value) : Number(value.toPrecision(6)), kind);
}

/** Draw one metric of some runs: validation solid, training dashed. Returns null where no run has it. */
function curveChart(width, runs, metric, kind, title, hover) {
  const lines = [];
  for (const run of runs) {
    for (const split of ["train", "val"]) {
      const found = run.curves[`${split}/${metric}`];
      if (!found) continue;
      const [epochs, values] = found;
      const points = values.map((value, at) => [epochs ? epochs[at] : at, value]).filter(point => typeof point[1] === "number");
      if (points.length) lines.push({ run, split, points });
    }
  }
  if (!lines.length) return null;
  const last = Math.max(1, bounds(lines.map(line => line.points[line.points.length - 1][0]))[1]);
  const [low, high] = span(lines.flatMap(line => line.points.map(point => point[1])), 0.05);
  const x = { low: 0, high: last, kind: "int", title: "epoch (the first is 0)" };
  const y = { low: metric === "loss" ? Math.max(0, low) : low, high: metric === "acc" ? Math.min(1.005, high) : high, kind };
  const { svg, atX, atY } = axes(width, 260, x, y, `${title}, ${runs.length} runs`);
  for (const { run, split, points } of lines) {
    const path = points.map(([epoch, value], at) => `${at ? "L" : "M"}${atX(epoch).toFixed(1)},${atY(value).toFixed(1)}`).join("");
    const end = points[points.length - 1];
    const name = split === "train" ? "training" : "validation";
    const text = [run.name, `${name} ${title}, epoch ${end[0]}: ${shown(end[1], kind)}`];
    const group = drawn("g", { class: `curve ${split} hue${run.hue}` },
      drawn("path", { d: path }), drawn("path", { class: "reach", d: path }));
    if (points.length <= 12) {
      points.forEach(([epoch, value]) => group.append(drawn("circle", { cx: atX(epoch), cy: atY(value), r: 2.4 })));
    }
    hover(group, text);
    svg.append(group);
  }
  return svg;
}

/** The points that no other of their set beats in both: smaller x and larger y. In ascending x. */
function front(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  const found = [];
  for (const point of sorted) if (!found.length || point.y > found[found.length - 1].y) found.push(point);
  return found;
}

/** Accuracy over cost. A point: {x, y, sdX, sdY, hue, set, href, text}. */
function scatterChart(width, points, x, y, hover) {
  const [lowest, highest] = bounds(points.map(point => point.x));
  x.log = lowest > 0 && highest / lowest > 5;
  [x.low, x.high] = x.log ? [lowest / 1.25, highest * 1.25] : span(points.map(point => point.x), 0.08);
  if (!x.log && lowest >= 0) x.low = Math.max(0, x.low);
  const withSpread = points.flatMap(point => [point.y - (point.sdY || 0), point.y + (point.sdY || 0)]);
  [y.low, y.high] = span(withSpread, 0.1);
  y.high = Math.min(y.high, Math.max(1.005, bounds(withSpread)[1]));
  const { svg, atX, atY } = axes(width, 480, x, y, `${y.title} over ${x.title}`);
  for (const set of new Set(points.map(point => point.set))) {
    const line = front(points.filter(point => point.set === set));
    const path = line.map((point, at) => `${at ? `H${atX(point.x)}V` : `M${atX(point.x)},`}${atY(point.y)}`).join("");
    svg.append(drawn("path", { class: "front", d: path, "data-set": set }));
  }
  const clamp = (axis, value) => Math.max(value, axis.log ? axis.low : -Infinity);
  for (const point of points) {
    const link = drawn("a", { href: point.href, class: `point hue${point.hue}`, "aria-label": point.text.join("; ") });
    if (point.sdY) link.append(drawn("line", { x1: atX(point.x), x2: atX(point.x), y1: atY(point.y - point.sdY), y2: atY(point.y + point.sdY) }));
    if (point.sdX) link.append(drawn("line", { y1: atY(point.y), y2: atY(point.y), x1: atX(clamp(x, point.x - point.sdX)), x2: atX(point.x + point.sdX) }));
    link.append(drawn("circle", { cx: atX(point.x), cy: atY(point.y), r: 5.5 }));
    hover(link, point.text);
    svg.append(link);
  }
  return svg;
}
