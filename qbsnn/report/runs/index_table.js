// The table's state and what follows from it: rows, groups, filters, curves and the scatter plot.

const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns;
const at = Object.fromEntries(columns.map((column, index) => [column.key, index]));
const place = id => document.getElementById(id);
const valueOf = (run, key) => key in at ? run.values[at[key]] : null;
const runs = data.rows.map((row, id) => ({ ...row, id, name: row.values[at.run].split("/").at(-1), hue: 0 }));
for (const run of runs) {
  const texts = run.values.map((value, index) => shown(value, columns[index].kind));
  run.words = [...texts, run.notes.run, run.notes.status || ""].join("\n").replaceAll(SPACE, " ").toLowerCase();
}
const state = {
  key: "started" in at ? "started" : "run", down: true, text: "", facets: {}, grouped: false,
  hidden: new Set(columns.filter(column => column.hidden).map(column => column.key)), open: new Set(), selected: [],
};
let rowCache = new Map();

function visibleRuns() {
  const terms = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = Object.entries(state.facets).filter(pair => pair[1] !== "");
  return runs.filter(run => terms.every(term => run.words.includes(term))
    && wanted.every(([key, text]) => shown(valueOf(run, key), columns[at[key]].kind) === text));
}

/** The groups of these runs, with values to sort by: a mean, a common text, or how many different ones. */
function groupsOf(found) {
  const groups = new Map();
  for (const run of found) groups.set(run.group, [...(groups.get(run.group) || []), run]);
  return [...groups].map(([id, members]) => ({
    id, runs: members,
    values: columns.map((column, index) => {
      const values = members.map(run => run.values[index]);
      if (column.key === "mismatches") return values.every(value => value === null) ? null : values.reduce((a, b) => a + b, 0);
      if (typeof values.find(value => value !== null) === "number") return (spread(values) || { mean: null }).mean;
      return [...values].sort().at(-1);
    }),
  }));
}

function sorted(items) {
  const index = at[state.key], sign = state.down ? -1 : 1;
  const missing = value => value === null || value === undefined
    || columns[index].kind !== "text" && columns[index].kind !== "date" && typeof value !== "number";
  return [...items].sort((a, b) => {
    const [x, y] = [a.values[index], b.values[index]];
    if (missing(x) || missing(y)) return missing(x) - missing(y) || a.id - b.id;
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return sign * order || a.id - b.id;
  });
}

const shownColumns = () => columns.filter(column => !state.hidden.has(column.key));
const isText = column => column.kind === "text" || column.kind === "date";

function statusText(run) {
  const status = valueOf(run, "status");
  const silent = Date.now() / 1000 - run.seen;
  // Only the reader's clock knows whether a run that says "running" still does.
  return status === "running" && silent > 1800 ? `running, silent for ${shown(silent, "duration")}` : status;
}

function contentOf(run, column) {
  const value = valueOf(run, column.key);
  const text = shown(value, column.kind);
  if (column.key === "run") return element("a", { href: run.href, title: `${value}\n${run.notes.run}` }, run.name, run.page ? "" : " (numbers)");
  if (column.key === "status") return element("span", { class: `badge ${value}`, title: run.notes.status }, statusText(run));
  if (column.key === "commit" && value) return `${text.slice(0, 7)}${(run.notes.commit || "").includes("uncommitted") ? "*" : ""}`;
  if (column.key === "mismatches" && value !== null) return element("span", { class: run.checked }, text);
  return text;
}

function cell(column, content, title, long) {
  const name = column.key === "run" ? "th" : "td";
  const kind = long ? "long" : isText(column) ? "text" : null;
  return element(name, { scope: name === "th" && "row", class: kind, title: title || null, "data-key": column.key }, content);
}

function check(label, box, changed) {
  return element("input", { type: "checkbox", "aria-label": label, checked: box, change: event => changed(event.target.checked) });
}

function rowOf(run) {
  if (!rowCache.has(run.id)) {
    const box = check(`Draw the curves of ${run.name}`, false, on => select([run], on));
    box.disabled = !Object.keys(run.curves).length;
    if (box.disabled) box.title = run.notes.curves || "metrics.csv holds no curves";
    const cells = shownColumns().map(column => cell(column, contentOf(run, column), run.notes[column.key], column.key === "departs"));
    rowCache.set(run.id, element("tr", { "data-run": run.id }, element("td", { class: "pick" }, box), ...cells));
  }
  mark(run, rowCache.get(run.id));
  return rowCache.get(run.id);
}

/** Tick the row of a run, in the colour of its curves, or untick it. */
function mark(run, row) {
  const chosen = state.selected.includes(run);
  row.firstChild.className = chosen ? `pick hue${run.hue}` : "pick";
  row.firstChild.firstChild.checked = chosen;
}

function groupContent(group, column) {
  const index = at[column.key], members = group.runs;
  const differ = [...new Set(members.map(run => run.values[index]))];
  if (column.key === "run") {
    const open = state.open.has(group.id);
    const words = `${members.length} run${members.length > 1 ? "s" : ""}`;
    return element("button", { class: "opener", "aria-expanded": String(open), click: () => toggle(group.id) }, open ? "▾ " : "▸ ", words);
  }
  if (column.key === "seed") {
    const times = seed => members.filter(run => valueOf(run, "seed") === seed).length;
    return differ.sort((a, b) => a - b).map(seed => times(seed) > 1 ? `${seed} (${times(seed)}×)` : seed).join(", ");
  }
  if (column.key === "mismatches") {
    const wrong = members.some(run => run.checked === "failed");
    return element("span", { class: wrong ? "failed" : "passed" }, shown(group.values[index], "int"));
  }
  if (differ.length === 1 && (isText(column) || column.kind === "int")) return contentOf(members[0], column);
  if (!isText(column)) {
    const found = spread(members.map(run => run.values[index]));
    return shownSpread(found, column.kind) + (found && found.n < members.length ? ` (${found.n})` : "");
  }
  return column.kind === "date" ? shown(group.values[index], "date") : `${differ.length} values`;
}

const drawable = group => group.runs.filter(run => Object.keys(run.curves).length);
const ticked = group => drawable(group).length > 0 && drawable(group).every(run => state.selected.includes(run));

function groupRow(group) {
  const able = drawable(group);
  const box = check(`Draw the curves of ${group.runs.length} runs`, ticked(group), on => select(able, on));
  box.disabled = !able.length;
  const cells = shownColumns().map(column => cell(column, groupContent(group, column), null, column.key === "departs"));
  return element("tr", { class: "group", "data-group": group.id }, element("td", { class: "pick" }, box), ...cells);
}

function toggle(id) {
  if (!state.open.delete(id)) state.open.add(id);
  render();
  document.querySelector(`tr[data-group="${id}"] .opener`).focus();
}

function select(some, on) {
  state.selected = state.selected.filter(run => !some.includes(run));
  for (const run of on ? some : []) {
    const used = state.selected.map(other => other.hue);
    run.hue = [...Array(HUES).keys()].find(hue => !used.includes(hue)) ?? state.selected.length % HUES;
    state.selected.push(run);
  }
  // The rows stay, so that the tick keeps the focus.
  for (const [id, row] of rowCache) mark(runs[id], row);
  for (const row of document.querySelectorAll("tr[data-group]")) {
    row.querySelector("input").checked = ticked(items.find(item => item.runs && item.id === Number(row.dataset.group)));
  }
  drawCurves();
}

function headRow() {
  const heads = shownColumns().map(column => {
    const active = column.key === state.key;
    const sort = () => {
      Object.assign(state, active ? { down: !state.down } : { key: column.key, down: !isText(column) });
      restart();
      document.querySelector(`thead [data-key="${CSS.escape(column.key)}"] button`).focus();
    };
    const arrow = active ? element("span", { class: "arrow", "aria-hidden": "true" }, state.down ? " ▼" : " ▲") : null;
    return element("th", {
      scope: "col", class: isText(column) ? "text" : null, "data-key": column.key,
      "aria-sort": active ? (state.down ? "descending" : "ascending") : "none",
    }, element("button", { title: column.help || null, click: sort }, column.title, arrow));
  });
  return element("tr", {}, element("td", { class: "pick" }), ...heads);
}

const CHUNK = 150; // rows at a time: a browser lays out thousands of cells too slowly to follow typing
let items = [], limit = CHUNK;

function rowsOf(item) {
  if (!item.runs) return [rowOf(item)];
  if (item.runs.length === 1) return [rowOf(item.runs[0])];
  return [groupRow(item), ...(state.open.has(item.id) ? sorted(item.runs).map(rowOf) : [])];
}

/** Show the items up to `most`, those above which are shown already excepted. */
function extend(most) {
  if (limit >= items.length) return;
  place("body").append(...items.slice(limit, most).flatMap(rowsOf));
  limit = most;
}

/** Show another order or choice of rows, from its beginning. */
function restart() {
  limit = CHUNK;
  render();
  place("table").parentElement.scrollTop = 0;
}

function render() {
  const found = visibleRuns();
  items = sorted(state.grouped ? groupsOf(found) : found);
  const rows = items.slice(0, limit).flatMap(rowsOf);
  place("head").replaceChildren(headRow());
  place("body").replaceChildren(...rows);
  place("table").classList.toggle("grouped", state.grouped);
  const kinds = state.grouped ? `, ${items.length} configuration${items.length === 1 ? "" : "s"}` : "";
  place("count").textContent = `${grouped(found.length)} of ${grouped(runs.length)} runs${kinds}`;
  place("nothing").hidden = found.length > 0;
  draw();
}
