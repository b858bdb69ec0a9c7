// A dot per token or response of each cell of a report, and where there are bins a line of their means.

import { counted, number } from "./number.js";
import { SIGNED_SCALES } from "./scale.js";
import { axis, drawn, frame, legend, records } from "./theme.js";

export function option(data, theme) {
  const points = records(data);
  const means = data.means ? records(data.means).filter((bin) => bin.abs_diff_mean !== null) : [];
  const scale = SIGNED_SCALES[data.scale](points.map((point) => point[data.y.column]));
  const sides = drawn(data, theme);
  const base = frame(theme);
  // Where every x is the same, a column for each cell instead.
  const xs = new Set(points.map((point) => point[data.x.column]));
  const columns = data.x.alike && xs.size === 1;
  const x = columns
    ? axis(theme, data.x.alike([...xs][0]), { type: "category", data: sides.map((one) => one.name) })
    : axis(theme, data.x.name, { type: "value", min: 0, ...data.x.axis });
  return {
    ...base,
    legend: { ...legend(theme), itemWidth: 10, data: sides.map((one) => one.name) },
    tooltip: {
      ...base.tooltip, trigger: "item",
      formatter: ({ seriesName, data: { point, bin } }) => `${seriesName}\n${bin ? `mean |Δ| of ${counted(bin.tokens, "token")}: ${number(bin.abs_diff_mean)} nats` : data.told(point)}`,
    },
    xAxis: x,
    yAxis: axis(theme, data.y.name, { type: "value", nameGap: 50, ...scale.axis }),
    series: sides.flatMap(({ key, name, symbol, colour, line }, index) => [
      {
        name, type: "scatter", symbol, symbolSize: means.length ? 5 : 8, color: colour, itemStyle: { opacity: means.length ? 0.5 : 0.7 },
        data: points.filter((point) => point.side === key).map((point) => ({ value: [columns ? index : point[data.x.column], scale.place(point[data.y.column])], point })),
      },
      ...(means.length ? [{
        name, type: "line", showSymbol: false, color: colour, lineStyle: { ...line, width: 2 }, z: 3,
        data: means.filter((bin) => bin.side === key).map((bin) => ({ value: [(bin.from + bin.below) / 2, scale.place(bin.abs_diff_mean)], bin })),
      }] : []),
    ]),
  };
}
