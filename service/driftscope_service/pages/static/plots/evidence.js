// The one picture of a cause's evidence: a line, points or bars over one axis, as its detector says.

import { number, tick } from "./number.js";
import { axis, frame } from "./theme.js";
import { view } from "./view.js";

export function option(data, theme) {
  const base = frame(theme);
  const bars = data.kind === "bars";
  const range = view(data.rows.map(([, y]) => y), [], { logarithmic: false });
  const xs = data.rows.map(([x]) => number(x));
  return {
    ...base,
    tooltip: {
      ...base.tooltip, trigger: bars ? "axis" : "item", axisPointer: { type: "shadow" },
      formatter: (told) => {
        const { dataIndex } = Array.isArray(told) ? told[0] : told;
        const [x, y] = data.rows[dataIndex];
        return `${data.x_label}: ${number(x)}\n${data.y_label}: ${number(y)}`;
      },
    },
    // Bars stand side by side whatever lies between their numbers.
    xAxis: bars
      ? axis(theme, data.x_label, { type: "category", data: xs })
      : axis(theme, data.x_label, { type: "value", scale: true, axisLabel: { formatter: tick } }),
    yAxis: axis(theme, data.y_label, bars ? { type: "value", nameGap: 50, axisLabel: { formatter: tick } } : range.axis),
    series: [{
      type: { line: "line", points: "scatter", bars: "bar" }[data.kind],
      color: theme.series[1], symbolSize: data.kind === "points" ? 6 : 4,
      data: bars ? data.rows.map(([, y]) => y) : data.rows,
    }],
  };
}
