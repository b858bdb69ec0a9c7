// How far apart the residual streams of two sides are, layer by layer, and beside it how much of the
// gap is left where both are made equal there.

import { number } from "./number.js";
import { logScale } from "./scale.js";
import { axis, frame, legend, records } from "./theme.js";

export function option(data, theme) {
  const layers = records(data);
  const names = layers.map(({ layer }) => (layer === null ? "end" : String(layer)));
  const lines = [
    { name: "relative difference", column: "relative_difference", unit: "", colour: theme.series[1], symbol: "circle", type: "solid" },
    { name: "mean |Δ| left", column: "abs_diff_mean_after", unit: " nats", colour: theme.series[0], symbol: "rect", type: "dashed" },
  ]
    .filter(({ column }) => layers.some((one) => one[column] !== null))
    .map((line) => ({ ...line, scale: logScale(layers.map((one) => one[line.column] ?? 0)) }));
  const zeros = layers.filter((one) => one.relative_difference === 0).length;
  const base = frame(theme);
  return {
    ...base,
    said: zeros ? `Not on the log scale, exactly 0: ${zeros === 1 ? "one layer" : `${zeros} layers`}.` : "",
    grid: { ...base.grid, right: lines.length > 1 ? 64 : 18 },
    legend: legend(theme),
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => {
        const one = layers[items[0].dataIndex];
        const grown = one.amplification === null ? "" : `, ${number(one.amplification)} times the layer before`;
        return [
          one.layer === null ? "behind the last layer" : `layer ${one.layer}`,
          ...lines.filter(({ column }) => one[column] !== null).map(({ name, column, unit }) =>
            `${name} ${number(one[column])}${unit}${column === "relative_difference" ? grown : ""}`),
        ].join("\n");
      },
    },
    xAxis: axis(theme, "layer", { type: "category", data: names, boundaryGap: false, splitLine: { show: false } }),
    yAxis: lines.map(({ name, unit, scale }, index) => axis(theme, unit ? `${name} (nats)` : name, {
      type: "value", nameGap: 46, position: index ? "right" : "left", ...scale.axis,
      ...(index ? { splitLine: { show: false } } : {}),
    })),
    series: lines.map(({ name, column, colour, symbol, type, scale }, index) => ({
      type: "line", name, yAxisIndex: index, connectNulls: index > 0, symbol, symbolSize: 5, color: colour,
      data: layers.map((one) => (one[column] === null ? null : scale.place(one[column]))),
      lineStyle: { color: colour, width: 1.75, type }, itemStyle: { color: colour },
    })),
  };
}
