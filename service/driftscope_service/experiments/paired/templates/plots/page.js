// The page: which cells are selected, and everything that follows from it.
const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const report = readJson("report-data");
const CELLS = readJson("cell-data").map((cell, index) => ({ ...report.grid[index], ...cell }));
const PLOTS = [histogramPlot, probabilityPlot, responsePlot, lengthPlot];
const MAX_TABLE_ROWS = 200; // a longer table is no reading matter; the files hold all of it

const boxes = [...document.querySelectorAll('.selection input[name="cell"]')];
const initial = new Set(boxes.filter((box) => box.defaultChecked).map((box) => box.value));
const selectedCells = () => CELLS.filter((_, index) => boxes[index].checked);

const element = (tag, text) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
};

const htmlTable = (name, table, cells) => {
  const rows = tableRows(table, cells).filter((row) => !table.shown || table.shown(row.slice(2)));
  const made = element("table");
  made.className = "plain numbers";
  const cut = rows.length > MAX_TABLE_ROWS ? `, the first ${MAX_TABLE_ROWS} of ${rows.length}` : "";
  made.append(element("caption", name + cut));
  const line = (values, tag) => {
    const row = element("tr");
    row.append(...values.map((value) => element(tag, value)));
    return row;
  };
  const head = element("thead");
  head.append(line([...CELL_COLUMNS, ...table.columns].map((c) => c.replaceAll("_", " ")), "th"));
  const body = element("tbody");
  const text = (value) => (typeof value === "string" ? value : formatNumber(value));
  body.append(...rows.slice(0, MAX_TABLE_ROWS).map((row) => line(row.map(text), "td")));
  made.append(head, body);
  return made;
};

const fillTables = (view) => {
  const holder = view.figure.querySelector(".tables");
  if (!view.figure.querySelector("details").open) return holder.replaceChildren();
  const tables = Object.entries(view.plot.tables);
  holder.replaceChildren(...tables.map(([name, t]) => htmlTable(name, t, selectedCells())));
};

const draw = (view) => {
  const cells = selectedCells();
  const scale = view.figure.querySelector(".scale input:checked")?.value;
  view.chart.setOption(view.plot.option(cells, scale), { notMerge: true });
  const labels = cells.map((cell) => cell.label).join(", ") || "no cell selected";
  const title = view.figure.querySelector("h3").textContent;
  view.holder.setAttribute("aria-label", `${title}: ${labels}. The table below holds the data.`);
  view.figure.querySelector(".aside").textContent = cells.length
    ? view.plot.aside(cells)
    : "Select at least one cell.";
  fillTables(view);
};

const fileName = (...parts) =>
  [report.model.name, ...parts].join("-").replace(/[^\w.+-]+/g, "_");

const connect = (view) => {
  const { figure, plot } = view;
  figure.querySelectorAll(".scale input").forEach((input) => {
    input.addEventListener("change", () => draw(view));
  });
  figure.querySelector("details").addEventListener("toggle", () => fillTables(view));
  figure.querySelectorAll("[data-csv]").forEach((button) => {
    const name = button.dataset.csv;
    const text = () => csvText(plot.tables[name], selectedCells());
    const file = `${fileName(plot.id, name)}.csv`;
    button.addEventListener("click", () => save(file, "text/csv", text()));
  });
  figure.querySelector("[data-json]").addEventListener("click", () => {
    save(`${fileName(plot.id)}.json`, "application/json", jsonText(plot, selectedCells()));
  });
  new ResizeObserver(() => view.chart.resize()).observe(view.holder);
};

const promptLine = (prompt) =>
  `${JSON.stringify(typeof prompt === "string" ? { prompt } : { messages: prompt })}\n`;

document.documentElement.classList.add("script");
const views = PLOTS.map((plot) => {
  const figure = document.querySelector(`[data-plot="${plot.id}"]`);
  const holder = figure.querySelector(".chart");
  return { plot, figure, holder, chart: echarts.init(holder, null, { renderer: "svg" }) };
});
const drawAll = () => views.forEach(draw);

views.forEach(connect);
boxes.forEach((box) => box.addEventListener("change", drawAll));
document.querySelectorAll("[data-select]").forEach((button) => {
  const wanted = { first: (box) => initial.has(box.value), all: () => true, none: () => false };
  button.addEventListener("click", () => {
    boxes.forEach((box) => {
      box.checked = wanted[button.dataset.select](box);
    });
    drawAll();
  });
});
document.querySelector("[data-report]").addEventListener("click", () => {
  save("report.json", "application/json", `${JSON.stringify(report, null, 1)}\n`);
});
document.querySelector("[data-prompts]")?.addEventListener("click", () => {
  save("prompts.jsonl", "application/jsonl", report.request.prompts.map(promptLine).join(""));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
// A reloaded page may keep ticked boxes; what is drawn follows them.
drawAll();
