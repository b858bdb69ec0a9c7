// The page of a paired report: which cells are selected, and everything that follows from it. The
// report stands in the page, or the page says where it is.

import { counted, number } from "./plots/number.js";
import "./plots.js";
import { option as histogram } from "./plots/histogram.js";
import { option as profile } from "./plots/profile.js";
import { option as scatter } from "./plots/scatter.js";

const MOST_TABLE_ROWS = 200; // a longer table is not for reading; the files hold all of it
const CELL_COLUMNS = ["engine_dtype", "trainer_dtype"];
const BIN_MEANS = ["tokens", "abs_diff_mean_nats", "diff_mean_nats"];

const binRows = (bins) => bins.counts.map((count, bin) => [
  bins.edges[bin], bins.edges[bin + 1], count, bins.abs_diff_mean[bin], bins.diff_mean[bin],
]);
const bucketRows = ({ zero, below, counts, above, edges }) => [
  [0, 0, zero], [0, edges[0], below],
  ...counts.map((count, bucket) => [edges[bucket], edges[bucket + 1], count]),
  [edges.at(-1), null, above],
];
const pointRows = ({ sample, largest }) => [["sample", sample], ["largest", largest]].flatMap(
  ([set, { rollout_prob, diff }]) => rollout_prob.map((p, index) => [set, p, diff[index]]),
);

// Of a plot: the parts of the profiles behind it, its tables, what it draws of them, what is beside it.
const PLOTS = {
  "histogram": {
    option: histogram,
    parts: ["abs_diff_histogram"],
    tables: {
      buckets: {
        columns: ["abs_diff_above_nats", "abs_diff_up_to_nats", "tokens"],
        rows: ({ abs_diff_histogram }) => bucketRows(abs_diff_histogram), shown: (row) => row[2] > 0,
      },
    },
    data: (cells) => {
      const used = cells.flatMap((cell) => cell.profiles.abs_diff_histogram.counts.flatMap((count, bucket) => (count ? [bucket] : [])));
      const [first, last] = [Math.min(...used), Math.max(...used)];
      return {
        columns: ["side", "above", "up_to", "tokens"],
        rows: sideRows(cells, ({ abs_diff_histogram }) => bucketRows(abs_diff_histogram).slice(2, -1).slice(first, last + 1)),
      };
    },
    aside: (cells) => {
      const outside = cells.flatMap((cell) => {
        const { zero, below, above, edges } = cell.profiles.abs_diff_histogram;
        const told = [
          ...(zero ? [`${number(zero)} exactly 0`] : []),
          ...(below ? [`${number(below)} up to ${number(edges[0])}`] : []),
          ...(above ? [`${number(above)} above ${number(edges.at(-1))}`] : []),
        ];
        return told.length ? [`${cell.label}: ${told.join(", ")}`] : [];
      });
      return outside.length ? `Not on the axis, tokens: ${outside.join("; ")}.` : "";
    },
  },
  "by-probability": {
    option: scatter,
    parts: ["scatter", "by_rollout_prob"],
    tables: {
      bins: { columns: ["rollout_prob_from", "rollout_prob_below", ...BIN_MEANS], rows: ({ by_rollout_prob }) => binRows(by_rollout_prob) },
      points: { columns: ["set", "rollout_prob", "diff_nats"], rows: (profiles) => pointRows(profiles.scatter) },
    },
    data: (cells) => ({
      columns: ["side", "set", "probability", "diff"],
      rows: sideRows(cells, (profiles) => pointRows(profiles.scatter)),
      means: { columns: ["side", "from", "below", "tokens", "abs_diff_mean", "diff_mean"], rows: sideRows(cells, ({ by_rollout_prob }) => binRows(by_rollout_prob)) },
      x: { column: "probability", name: "rollout probability of the token", axis: { max: 1, interval: 0.2, axisLabel: { formatter: (p) => p.toFixed(1) } } },
      y: { column: "diff", name: "Δ (nats)" },
      told: (point) => `probability ${number(point.probability)}\nΔ ${number(point.diff)} nats`,
    }),
    aside: (cells) => {
      const { sample, largest } = cells[0].profiles.scatter;
      // With word joiners, or a line could break after the first bar.
      return `Per cell: ${counted(sample.diff.length, "token")}, evenly drawn, and the ${largest.diff.length} largest |\u2060Δ\u2060|.`;
    },
  },
  "along-response": {
    option: profile,
    parts: ["by_response_index"],
    tables: { bins: { columns: ["token_from", "token_below", ...BIN_MEANS], rows: ({ by_response_index }) => binRows(by_response_index) } },
    data: (cells) => ({
      columns: ["side", "from", "below", "tokens", "abs_diff_mean", "diff_mean"],
      rows: sideRows(cells, ({ by_response_index }) => binRows(by_response_index)),
      along: "index in the response (tokens)",
    }),
    aside: (cells) => {
      const gaps = cells.flatMap((cell) => {
        const zeros = cell.profiles.by_response_index.abs_diff_mean.filter((mean) => mean === 0).length;
        return zeros ? [`${cell.label} ${zeros}`] : [];
      });
      return gaps.length ? `Gaps, where every Δ is exactly 0, in bins: ${gaps.join("; ")}.` : "";
    },
  },
  "by-length": {
    option: scatter,
    parts: ["sequences"],
    tables: { sequences: { columns: ["length_tokens", "seq_logratio_nats"], rows: ({ sequences }) => sequenceRows(sequences) } },
    data: (cells) => ({
      columns: ["side", "length", "ratio"],
      rows: sideRows(cells, ({ sequences }) => sequenceRows(sequences)),
      x: { column: "length", name: "length of the response (tokens)", alike: (tokens) => `all responses have ${counted(tokens, "token")}`, axis: { minInterval: 1 } },
      y: { column: "ratio", name: "sequence log-ratio S (nats)" },
      told: ({ length, ratio }) => `length ${counted(length, "token")}\nS ${number(ratio)} nats\nimportance weight exp S ${number(Math.exp(ratio))}`,
    }),
    aside: () => "",
  },
};

const sequenceRows = ({ length, seq_logratio }) => length.map((tokens, index) => [tokens, seq_logratio[index]]);
const sideRows = (cells, rows) => cells.flatMap((cell) => rows(cell.profiles).map((row) => [cell.key, ...row]));
const tableRows = (table, cells) => cells.flatMap((cell) =>
  table.rows(cell.profiles).map((row) => [cell.engine_dtype, cell.trainer_dtype, ...row]));

// RFC 4180; numbers with all their digits, an absent value as an empty field.
const csvField = (value) => {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csvText = (table, cells) => [[...CELL_COLUMNS, ...table.columns], ...tableRows(table, cells)]
  .map((row) => `${row.map(csvField).join(",")}\r\n`).join("");

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const jsonText = (value) => `${JSON.stringify(value, null, 1)}\n`;
const promptLine = (prompt) => `${JSON.stringify(typeof prompt === "string" ? { prompt } : { messages: prompt })}\n`;

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

function htmlTable(name, table, cells) {
  const rows = tableRows(table, cells).filter((row) => !table.shown || table.shown(row.slice(2)));
  const made = element("table");
  made.className = "plain numbers";
  const cut = rows.length > MOST_TABLE_ROWS ? `, the first ${MOST_TABLE_ROWS} of ${rows.length}` : "";
  const line = (values, tag) => {
    const row = element("tr");
    row.append(...values.map((value) => element(tag, value)));
    return row;
  };
  const [head, body] = [element("thead"), element("tbody")];
  head.append(line([...CELL_COLUMNS, ...table.columns].map((column) => column.replaceAll("_", " ")), "th"));
  const text = (value) => (typeof value === "string" ? value : number(value));
  body.append(...rows.slice(0, MOST_TABLE_ROWS).map((row) => line(row.map(text), "td")));
  made.append(element("caption", name + cut), head, body);
  return made;
}

const readJson = (id) => JSON.parse(document.getElementById(id).textContent);

async function readReport(address) {
  if (!address) return readJson("report-data");
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
  return answer.json();
}

function start(report, page) {
  const every = page.cells.map((cell, index) => ({ ...report.grid[index], ...cell, name: cell.label }));
  const boxes = [...document.querySelectorAll('.selection input[name="cell"]')];
  const selected = () => every.filter((_, index) => boxes[index].checked);
  const fileName = (...parts) => [report.model.name, ...parts].join("-").replace(/[^\w.+-]+/g, "_");

  const views = [...document.querySelectorAll("[data-plot]")].map((figure) => {
    const [id, plot, cells] = [figure.dataset.plot, PLOTS[figure.dataset.plot], selected];
    const details = figure.querySelector("details.data");
    const fill = () => details.querySelector(".table").replaceChildren(...(details.open
      ? Object.entries(plot.tables).map(([name, table]) => htmlTable(name, table, cells())) : []));
    const draw = () => {
      const chosen = cells();
      const scale = figure.querySelector(".scale input:checked")?.value;
      const told = chosen.map((cell) => cell.label).join(", ") || "no cell selected";
      figure.querySelector(".chart").setAttribute("aria-label", `${figure.querySelector("h3").textContent}: ${told}. The table below holds the data.`);
      const note = chosen.length ? plot.aside(chosen) : "Select at least one cell.";
      figure.closest("plot-figure").show(plot.option, { ...plot.data(chosen), drawn: chosen, scale, note, empty: note });
      fill();
    };
    figure.querySelectorAll(".scale input").forEach((input) => input.addEventListener("change", draw));
    details.addEventListener("toggle", fill);
    figure.querySelectorAll("[data-csv]").forEach((button) => button.addEventListener("click", () =>
      save(`${fileName(id, button.dataset.csv)}.csv`, "text/csv", csvText(plot.tables[button.dataset.csv], cells()))));
    figure.querySelector("[data-json]").addEventListener("click", () => {
      const entry = (cell) => Object.fromEntries([
        ...CELL_COLUMNS.map((name) => [name, cell[name]]), ...plot.parts.map((name) => [name, cell.profiles[name]]),
      ]);
      save(`${fileName(id)}.json`, "application/json", jsonText(cells().map(entry)));
    });
    return draw;
  });
  const drawAll = () => views.forEach((draw) => draw());

  boxes.forEach((box) => box.addEventListener("change", drawAll));
  const wanted = { first: (box) => box.defaultChecked, all: () => true, none: () => false };
  document.querySelectorAll("[data-select]").forEach((button) => button.addEventListener("click", () => {
    boxes.forEach((box) => { box.checked = wanted[button.dataset.select](box); });
    drawAll();
  }));
  document.querySelector("button[data-report]").addEventListener("click", () => save("report.json", "application/json", jsonText(report)));
  document.querySelector("[data-prompts]")?.addEventListener("click", () =>
    save("prompts.jsonl", "application/jsonl", report.request.prompts.map(promptLine).join("")));
  // A reloaded page may keep ticked boxes; what is drawn follows them.
  drawAll();
}

const page = readJson("page-data");
document.documentElement.classList.add("script");
// Without a service that shades the grid anew, the page holds it under every number.
document.addEventListener("change", ({ target }) => {
  if (target.id !== "metric" || !page.grids[target.value]) return;
  document.getElementById("shaded").innerHTML = page.grids[target.value];
  document.getElementById("metric").focus();
});
readReport(document.getElementById("plots").dataset.report).then(
  (report) => start(report, page),
  (error) => document.querySelectorAll("plot-figure").forEach((figure) => figure.failed(error)),
);
