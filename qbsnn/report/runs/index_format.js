"use strict";
// Values as qbsnn.results.formatting writes them, and how elements are made. Text never becomes markup.

const SPACE = "\u00a0", NONE = "–";
const SVG = "http://www.w3.org/2000/svg";

function grouped(whole) {
  return String(whole).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

function general(value) {
  // Python's format code .4g for the sizes that occur here.
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(4)))));
  if (size >= -4 && size < 4) return String(Number(value.toPrecision(4)));
  const [digits, power] = value.toExponential(3).split("e");
  return `${Number(digits)}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

const FORMATS = {
  text: String,
  int: value => grouped(Math.round(value)),
  number: value => Math.abs(value) >= 1000 ? grouped(Math.round(value)) : general(value),
  percent: value => `${(100 * value).toFixed(2)}${SPACE}%`,
  ratio: value => `${(100 * value).toFixed(1)}${SPACE}%`,
  energy: value => {
    const [scale, unit] = [[1e9, "mJ"], [1e6, "µJ"], [1e3, "nJ"]].find(pair => value >= pair[0]) || [1, "pJ"];
    return `${general(value / scale)}${SPACE}${unit}`;
  },
  duration: value => {
    if (value < 60) return `${value.toFixed(1)}${SPACE}s`;
    const seconds = Math.round(value), minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes}${SPACE}min ${String(seconds % 60).padStart(2, "0")}${SPACE}s`;
    return `${Math.floor(minutes / 60)}${SPACE}h ${String(minutes % 60).padStart(2, "0")}${SPACE}min`;
  },
  date: value => value.slice(0, 16).replace("T", " "),
};

function shown(value, kind) {
  if (value === null || value === undefined) return NONE;
  if (kind !== "text" && kind !== "date" && typeof value !== "number") return "not finite";
  return FORMATS[kind](value);
}

/** Mean, sample standard deviation (null for one value) and count of the finite numbers among values. */
function spread(values) {
  const found = values.filter(value => typeof value === "number");
  if (!found.length) return null;
  const mean = found.reduce((sum, value) => sum + value, 0) / found.length;
  const squares = found.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, sd: found.length > 1 ? Math.sqrt(squares / (found.length - 1)) : null, n: found.length };
}

/** A group's value: mean ± standard deviation (n), the unit once. */
function shownSpread(found, kind) {
  if (!found) return NONE;
  // Counts have means that are no counts.
  const form = kind === "int" && !Number.isInteger(found.mean) ? "number" : kind;
  const mean = shown(found.mean, form);
  if (found.sd === null || found.sd === 0 && kind === "int") return mean;
  if (kind === "percent" || kind === "ratio") {
    return `${mean.replace(`${SPACE}%`, "")} ± ${shown(found.sd, kind)}`;
  }
  return `${mean} ± ${shown(found.sd, kind === "int" ? "number" : form)}`;
}

function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}
