// One number over steps: mean of a group of steps as a line, lowest to highest as a band, limits as
// shaded areas, events as dashed lines within their 95 % interval, resumed attempts as dotted lines,
// what earlier attempts had as faint lines, outliers as rings.

import { writer } from "./number.js";
import { axis, frame, records } from "./theme.js";
import { nearest, view } from "./view.js";

function areas(data, range, theme) {
  const limits = range.limits
    .map((limit) => (limit.direction === "above"
      ? [{ yAxis: limit.value }, { yAxis: range.max }]
      : [{ yAxis: range.min }, { yAxis: limit.value }]));
  // Half a step to either side: an interval of one step is a band of its width.
  const intervals = (data.events ?? [])
    .filter((event) => event.kind !== "resume")
    .map((event) => [
      { xAxis: event.low - 0.5, itemStyle: { color: theme.watch, opacity: 0.14 } }, { xAxis: event.high + 0.5 },
    ]);
  return { silent: true, itemStyle: { color: theme.bad, opacity: 0.09 }, data: [...limits, ...intervals] };
}

const named = (event) => (event.kind === "resume" ? `resumed at ${event.step}`
  : event.low === event.high ? `step ${event.step}` : `step ${event.step} (${event.low} to ${event.high})`);

function lines(data, range, theme) {
  const write = writer(data);
  const limits = range.limits
    .map((limit) => ({
      yAxis: limit.value, lineStyle: { color: theme.bad, type: "solid", width: 1 },
      label: { formatter: `limit ${write(limit.value)}`, position: "insideEndTop", color: theme.bad, fontSize: 11 },
    }));
  const changes = (data.events ?? []).map((event) => ({
    xAxis: event.step,
    lineStyle: { color: event.kind === "resume" ? theme.muted : theme.watch, type: event.kind === "resume" ? "dotted" : "dashed", width: 1.5 },
    label: { formatter: named(event), position: "insideEndTop", rotate: 0, color: event.kind === "resume" ? theme.muted : theme.watch, fontSize: 11 },
  }));
  // Two decimals are the default, which would move a limit of 0.015 to 0.01.
  return { silent: true, symbol: "none", precision: 12, data: [...limits, ...changes] };
}

const linkOf = (data, point) => (point.first_step === point.last_step
  ? `${data.page}/steps/${point.first_step}`
  : `${data.page}?metric=${data.metric}&first=${point.first_step}&last=${point.last_step}`);

export function option(data, theme) {
  const write = writer(data);
  const points = records(data);
  const range = view(points.flatMap((point) => [point.low, point.high]), data.limits, data);
  const outliers = new Set(data.drift?.outliers ?? []);
  const grouped = points.some((point) => point.steps > 1);
  const colour = theme.series[1];
  const older = data.older ?? [];
  // What an earlier attempt had may reach beyond the last step of the series.
  const ends = [points.at(-1).last_step, ...older.map((one) => one.points.at(-1)[0])];
  const steps = [Math.min(points[0].first_step, ...older.map((one) => one.points[0][0])), Math.max(...ends)];
  const base = frame(theme);
  const mean = points.map((point) => ({ value: [point.first_step, point.mean], href: linkOf(data, point), point }));
  const band = (key, minus, style) => ({
    type: "line", stack: "band", symbol: "none", silent: true, lineStyle: { opacity: 0 }, areaStyle: style,
    data: points.map((point) => [point.first_step, point[key] - (minus ? point[minus] : 0)]),
  });
  return {
    ...base,
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => {
        const point = items.find((item) => item.data?.point)?.data.point;
        if (!point) return "";
        const where = point.steps > 1 ? `steps ${point.first_step} to ${point.last_step}` : `step ${point.first_step}`;
        const range = point.steps > 1 ? `\n${write(point.low)} to ${write(point.high)}` : "";
        return `${where}\n${write(point.mean)}${range}${point.crossed ? "\nbeyond a limit" : ""}`;
      },
    },
    xAxis: axis(theme, "step", { type: "value", min: steps[0], max: steps[1] === steps[0] ? steps[0] + 1 : steps[1], minInterval: 1, splitLine: { show: false } }),
    yAxis: axis(theme, data.unit, range.axis),
    said: range.said,
    go: (step) => linkOf(data, nearest(points, Math.round(step))),
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl" }],
    series: [
      ...older.map((one) => ({
        type: "line", name: `attempt ${one.attempt}`, silent: true, showSymbol: one.points.length === 1,
        symbol: "circle", symbolSize: 4, lineStyle: { color: theme.muted, width: 1.25, opacity: 0.55 },
        itemStyle: { color: theme.muted, opacity: 0.55 },
        endLabel: { show: true, formatter: `attempt ${one.attempt}`, color: theme.muted, fontSize: 11 },
        data: range.logarithmic ? one.points.filter((point) => point[1] > 0) : one.points,
      })),
      // Stacked areas add on a linear axis only; a logarithmic band is a polygon of its own.
      ...(grouped && !range.logarithmic ? [band("low", null, { opacity: 0 }), band("high", "low", { color: colour, opacity: 0.2 })] : []),
      ...(grouped && range.logarithmic ? ["low", "high"].map((key) => ({
        type: "line", symbol: "none", silent: true, lineStyle: { color: colour, width: 1, opacity: 0.4 },
        data: points.map((point) => [point.first_step, point[key]]),
      })) : []),
      {
        type: "line", data: mean, showSymbol: points.length <= 120, symbol: "circle", symbolSize: 5,
        lineStyle: { color: colour, width: 1.75 }, itemStyle: { color: colour },
        markArea: areas(data, range, theme), markLine: lines(data, range, theme),
      },
      {
        type: "scatter", symbolSize: 11, silent: true,
        itemStyle: { color: "transparent", borderColor: theme.watch, borderWidth: 1.5 },
        data: points.filter((point) => outliers.has(point.first_step)).map((point) => [point.first_step, point.mean]),
      },
    ],
  };
}
