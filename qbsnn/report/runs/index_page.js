// The controls, the charts below the table, and the first drawing.

function tooltip(node, text) {
  const tip = place("tip");
  const show = event => {
    const box = node.getBoundingClientRect();
    const [x, y] = event.type === "focus" ? [box.right, box.bottom] : [event.clientX, event.clientY];
    tip.replaceChildren(...text.map(line => element("span", {}, line)));
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - tip.offsetHeight - 8))}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const name of ["mousemove", "focus"]) node.addEventListener(name, show);
  for (const name of ["mouseleave", "blur"]) node.addEventListener(name, hide);
}

function swatch(hue) {
  return drawn("svg", { class: `swatch hue${hue}`, width: 11, height: 11, "aria-hidden": "true" }, drawn("circle", { cx: 5.5, cy: 5.5, r: 5 }));
}

function drawCurves() {
  const chosen = state.selected;
  const charts = [];
  for (const [metric, kind, title] of [["loss", "number", "loss"], ["acc", "percent", "accuracy"]]) {
    const box = place(`curves-${metric}`);
    const chart = chosen.length ? curveChart(box.clientWidth, chosen, metric, kind, title, tooltip) : null;
    if (chart) charts.push(chart);
    box.replaceChildren(...(chart ? [element("h4", {}, title), chart] : []));
  }
  place("curves-hint").hidden = chosen.length > 0;
  place("curves-key").hidden = !charts.length;
  place("clear").hidden = !chosen.length;
  place("curves-runs").replaceChildren(...chosen.map(run => element("li", {},
    element("button", { class: "small", "aria-label": `Take away the curves of ${run.name}`, click: () => select([run], false) }, "×"),
    swatch(run.hue), element("span", {}, element("a", { href: run.href }, run.name), ` ${describe(run)}`))));
}

function describe(run) {
  const parts = ["data", "model", "neuron"].map(key => valueOf(run, key)).filter(Boolean);
  for (const key of ["s_max", "T", "seed"]) if (valueOf(run, key) !== null) parts.push(`${key} = ${valueOf(run, key)}`);
  return parts.join(", ");
}

function drawScatter() {
  const [x, y] = ["x", "y"].map(name => columns[at[place(`axis-${name}`).value]]);
  const box = place("scatter");
  const count = name => runs.filter(run => valueOf(run, "neuron") === name).length;
  const neurons = [...new Set(runs.map(run => valueOf(run, "neuron")))].sort((a, b) => count(b) - count(a) || (a < b ? -1 : 1));
  const points = (x && y ? items : []).map(item => {
    const members = item.runs || [item];
    const [onX, onY] = [x, y].map(column => spread(members.map(run => run.values[at[column.key]])));
    if (!onX || !onY) return null;
    const text = [members.length > 1 ? `${members.length} runs` : members[0].name, describe(members[0]),
      `${y.title}: ${shownSpread(onY, y.kind)}`, `${x.title}: ${shownSpread(onX, x.kind)}`];
    if (members.length > 1) text[1] = text[1].replace(/, seed = \d+$/, "");
    return {
      x: onX.mean, y: onY.mean, sdX: onX.sd, sdY: onY.sd, set: valueOf(members[0], "data"), text,
      hue: neurons.indexOf(valueOf(members[0], "neuron")) % HUES,
      href: members.length === 1 ? members[0].href : `#group-${item.id}`,
    };
  }).filter(Boolean);
  box.replaceChildren();
  place("scatter-none").hidden = points.length > 0;
  const present = points.map(point => point.hue);
  place("scatter-key").replaceChildren(...neurons.flatMap((name, index) =>
    present.includes(index % HUES) ? [element("li", {}, swatch(index % HUES), shown(name, "text"))] : []));
  if (!points.length) return;
  const title = x.kind === "energy" || x.kind === "ratio" ? `${x.title}: estimate` : x.title;
  box.append(scatterChart(box.clientWidth, points, { ...x, title }, { ...y }, tooltip));
}

function draw() {
  place("tip").hidden = true;
  drawScatter();
  drawCurves();
}

function menu(column) {
  const texts = [...new Set(runs.map(run => shown(valueOf(run, column.key), column.kind)))];
  if (texts.length < 2) return null;
  texts.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const count = text => runs.filter(run => shown(valueOf(run, column.key), column.kind) === text).length;
  const changed = event => {
    state.facets[column.key] = event.target.value;
    restart();
  };
  return element("label", {}, column.title, element("select", { change: changed, "data-facet": column.key },
    element("option", { value: "" }, "all"), ...texts.map(text => element("option", { value: text }, `${text} (${count(text)})`))));
}

function columnBox(column) {
  const box = check(column.title, !state.hidden.has(column.key), on => {
    if (on) state.hidden.delete(column.key);
    else state.hidden.add(column.key);
    rowCache = new Map();
    render();
  });
  box.removeAttribute("aria-label");
  return element("label", { title: column.help || null }, box, column.title);
}

function axisMenu(name, preferred) {
  const found = columns.filter(column => column.axis === name);
  const start = found.find(column => column.key.startsWith(preferred)) || found[0];
  place(`axis-${name}`).append(...found.map(column => element("option", { value: column.key, selected: column === start }, column.title)));
  place(`axis-${name}`).addEventListener("change", draw);
}

function reset() {
  Object.assign(state, { text: "", facets: {} });
  place("search").value = "";
  for (const select of document.querySelectorAll("[data-facet]")) select.value = "";
  restart();
}

place("facets").append(...columns.filter(column => column.facet).map(menu).filter(Boolean));
place("columns").append(...columns.filter(column => column.key !== "run").map(columnBox));
axisMenu("x", "energy/");
axisMenu("y", "best");
place("search").addEventListener("input", event => { state.text = event.target.value; restart(); });
place("grouped").addEventListener("change", event => { state.grouped = event.target.checked; restart(); });
place("clear").addEventListener("click", () => select([...state.selected], false));
place("reset").addEventListener("click", reset);
place("scatter").addEventListener("click", event => {
  const link = event.target.closest("a");
  const id = link && /^#group-(\d+)$/.exec(link.getAttribute("href"));
  if (!id) return;
  event.preventDefault();
  extend(Infinity);
  if (!state.open.has(Number(id[1]))) toggle(Number(id[1]));
  document.querySelector(`tr[data-group="${id[1]}"]`).scrollIntoView({ block: "center" });
});
const scroller = place("table").parentElement;
scroller.addEventListener("scroll", () => {
  if (scroller.scrollTop + 2 * scroller.clientHeight > scroller.scrollHeight) extend(limit + CHUNK);
});
addEventListener("beforeprint", () => extend(Infinity));
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) draw();
  width = innerWidth;
});
render();
select(runs.filter(run => Object.keys(run.curves).length).slice(0, 3), true);
