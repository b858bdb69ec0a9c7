// One number of two runs over their steps, with the limits that both are held to.

import { writer } from "./number.js";
import { axis, drawn, frame, legend, records } from "./theme.js";
import { nearest, view } from "./view.js";

export function option(data, theme) {
  const write = writer(data);
  const points = records(data);
  const base = frame(theme);
  const range = view(points.map((point) => point.mean), data.limits, data);
  const linkOf = (point) => {
    const page = data.pages["AB".indexOf(point.side)];
    return point.steps > 1 ? `${page}?metric=${data.metric}&first=${point.first_step}&last=${point.last_step}` : `${page}/steps/${point.first_step}`;
  };
  const lines = drawn(data, theme).map(({ key, name, line, colour }, index) => ({
    name, type: "line", symbol: "circle", symbolSize: 5, showSymbol: points.length <= 240,
    lineStyle: line, itemStyle: { color: colour },
    data: points.filter((point) => point.side === key).map((point) => ({
      value: [point.first_step, point.mean], point, href: linkOf(point),
    })),
    markLine: index ? undefined : {
      silent: true, symbol: "none", precision: 12, lineStyle: { color: theme.bad, type: "solid", width: 1 },
      data: range.limits.map(({ value }) => ({ yAxis: value, label: { formatter: `limit ${write(value)}`, position: "insideEndTop", color: theme.bad, fontSize: 11 } })),
    },
  }));
  return {
    ...base,
    legend: legend(theme),
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => items.filter((item) => item.data?.point).map(({ seriesName, data: { point } }) => {
        const where = point.steps > 1 ? `steps ${point.first_step} to ${point.last_step}` : `step ${point.first_step}`;
        return `${seriesName}, ${where}: ${write(point.mean)}`;
      }).join("\n"),
    },
    xAxis: axis(theme, "step", { type: "value", min: "dataMin", max: "dataMax", minInterval: 1, splitLine: { show: false } }),
    yAxis: axis(theme, data.unit, range.axis),
    said: range.said,
    go: (step) => linkOf(nearest(points, Math.round(step))),
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl" }],
    series: lines,
  };
}
