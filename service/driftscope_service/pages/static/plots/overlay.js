// One number of two runs over their steps, with the limits that both are held to.

import { number, tick } from "./number.js";
import { axis, drawn, frame, legend, records } from "./theme.js";

// A limit further away than this is said in the table only: drawn, it would flatten the lines.
const FAR = 30;

export function option(data, theme) {
  const points = records(data);
  const base = frame(theme);
  const means = points.map((point) => point.mean);
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const logarithmic = data.logarithmic && low > 0 && high / low > 3;
  const limits = data.limits.filter(({ value }) => (low > 0 && value > 0
    ? value < high * FAR && value > low / FAR
    : Math.abs(value - (high + low) / 2) < FAR * (high - low || Math.abs(high) || 1)));
  const lines = drawn(data, theme).map(({ key, name, line, colour }, index) => ({
    name, type: "line", symbol: "circle", symbolSize: 5, showSymbol: points.length <= 240,
    lineStyle: line, itemStyle: { color: colour },
    data: points.filter((point) => point.side === key).map((point) => ({
      value: [point.first_step, point.mean], point,
      href: point.steps > 1 ? `${data.pages[index]}?metric=${data.metric}&first=${point.first_step}&last=${point.last_step}` : `${data.pages[index]}/steps/${point.first_step}`,
    })),
    markLine: index ? undefined : {
      silent: true, symbol: "none", precision: 12, lineStyle: { color: theme.bad, type: "solid", width: 1 },
      data: limits.map(({ value }) => ({ yAxis: value, label: { formatter: `limit ${number(value)}`, position: "insideEndTop", color: theme.bad, fontSize: 11 } })),
    },
  }));
  const shown = [low, high, ...limits.map(({ value }) => value)];
  const room = 0.08 * (Math.max(...shown) - Math.min(...shown) || Math.abs(high) || 1);
  return {
    ...base,
    legend: legend(theme),
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => items.filter((item) => item.data?.point).map(({ seriesName, data: { point } }) => {
        const where = point.steps > 1 ? `steps ${point.first_step} to ${point.last_step}` : `step ${point.first_step}`;
        return `${seriesName}, ${where}: ${number(point.mean)} ${data.unit}`;
      }).join("\n"),
    },
    xAxis: axis(theme, "step", { type: "value", min: "dataMin", max: "dataMax", minInterval: 1, splitLine: { show: false } }),
    yAxis: axis(theme, data.unit, {
      type: logarithmic ? "log" : "value", nameGap: 46,
      min: logarithmic ? Math.min(...shown) / 1.25 : Math.min(...shown) - room,
      max: logarithmic ? Math.max(...shown) * 1.25 : Math.max(...shown) + room,
      axisLabel: { formatter: tick, showMinLabel: false, showMaxLabel: false },
    }),
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl" }],
    series: lines,
  };
}
