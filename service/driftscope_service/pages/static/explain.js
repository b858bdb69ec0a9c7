// The page of an explanation as one file: its plot draws the report that stands in the page.

import "./plots.js";
import { option } from "./plots/growth.js";

const COLUMNS = ["layer", "relative_difference", "amplification", "abs_diff_mean_after"];

document.documentElement.classList.add("script");
const report = JSON.parse(document.getElementById("report-data").textContent);
for (const figure of document.querySelectorAll('plot-figure[kind="growth"]')) {
  figure.show(option, {
    columns: COLUMNS,
    rows: report.growth.map((one) => COLUMNS.map((name) => one[name])),
    empty: "The growth was not measured.",
  });
}
