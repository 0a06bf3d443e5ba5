// The glue of two libraries: DataTables hands its rows to the charts of Vega-Lite. What either shows, Python says.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const DataTable = jQuery.fn.dataTable, place = id => document.getElementById(id);

// Numbers by size, texts by their letters and the numbers in them, what is missing last in both directions.
const letters = new Intl.Collator("en", { numeric: true }).compare;
const order = sign => (a, b) => (a === null) - (b === null) || sign * (a - b || letters(a, b));
DataTable.type("value", { order: { asc: order(1), desc: order(-1) }, search: DataTable.util.stripHtml });

data.table.columns[0].render = DataTable.render.select();
data.table.select.selectable = row => row.curves.length > 0;
const table = jQuery("#table").DataTable({ ...data.table, data: data.runs });
const ticked = () => table.rows({ selected: true });

/** Let a chart draw these values, or hide it where there are none. */
const made = {};
async function draw(chart, values) {
  place(chart).hidden = !values.length;
  if (!values.length) return;
  made[chart] ??= vegaEmbed(place(chart), { ...data[chart], data: { name: "values", values } }, data.embed);
  (await made[chart]).view.data("values", structuredClone(values)).runAsync();
}

/** Give the ticked rows the colours of their curves. A row that was never on the screen has no node yet. */
function colourRows() {
  ticked().every(function (row, tables, at) { this.node()?.style.setProperty("--hue", data.hues[at % data.hues.length]); });
}

/** Draw the curves of the ticked rows, those of one row in its colour. */
function drawCurves() {
  colourRows();
  const rows = ticked().data().toArray();
  document.body.classList.toggle("ticked", rows.length > 0);
  for (const chart of ["loss", "acc"]) {
    draw(chart, rows.flatMap(({ id, about, curves }) =>
      curves.flatMap(run => data.curves[run][chart].map(curve => ({ id, about, ...curve })))));
  }
}

table.on("draw", () => {
  colourRows();
  draw("cost", table.rows({ search: "applied" }).data().toArray());
});
table.on("select deselect", drawCurves);
place("averages").addEventListener("change", event => {
  const runs = ticked().data().toArray().flatMap(row => row.curves);
  table.clear().rows.add(event.target.checked ? data.averages : data.runs).draw();
  table.rows((at, row) => row.curves.length && row.curves.every(run => runs.includes(run))).select();
  drawCurves();
});
addEventListener("beforeprint", () => table.page.len(-1).draw());
table.draw().rows(data.ticked).select();
drawCurves();
