// Mean and largest |Δ| per bin of something else: the place in the response, the probability.

import { axis, frame, number, records } from "./theme.js";

const FIRST_PLACE = 0.7;

export function option(data, theme) {
  const bins = records(data);
  const base = frame(theme);
  const last = bins.at(-1).below;
  // Places run over decades, probabilities do not; place 0 stands a little before 1.
  const byPlace = last > 1;
  const at = (edge) => (byPlace ? Math.max(edge, FIRST_PLACE) : edge);
  // Each bin as a step: its value from one edge to the other, and a gap where bins are empty.
  const steps = (key) => bins.flatMap((bin, place) => [
    ...(place && bins[place - 1].below !== bin.from ? [{ value: [at(bin.from), null] }] : []),
    { value: [at(bin.from), bin[key]], bin }, { value: [at(bin.below), bin[key]], bin },
  ]);
  const positive = bins.some((bin) => bin.abs_diff_mean > 0);
  const line = (name, key, colour, type) => ({
    type: "line", name, symbol: "none", data: steps(key).map((point) => ({ ...point, value: [point.value[0], point.value[1] || null] })),
    lineStyle: { color: colour, width: 1.75, type }, itemStyle: { color: colour },
  });
  return {
    ...base,
    legend: { top: 0, right: 0, textStyle: { color: theme.text, fontSize: 11 }, itemWidth: 18, itemHeight: 8 },
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { lineStyle: { color: theme.muted } },
      formatter: (items) => {
        const bin = items.find((item) => item.data?.bin)?.data.bin;
        return bin ? `${data.along} ${number(bin.from)} to ${number(bin.below)}\n${number(bin.tokens)} tokens\nmean |Δ| ${number(bin.abs_diff_mean)}\nmean Δ ${number(bin.diff_mean)}\nlargest |Δ| ${number(bin.abs_diff_max)}` : "";
      },
    },
    xAxis: axis(theme, data.along, {
      type: byPlace ? "log" : "value", min: at(bins[0].from), max: at(last), splitLine: { show: false },
      axisLabel: { formatter: number, showMinLabel: !byPlace, showMaxLabel: !byPlace },
    }),
    yAxis: axis(theme, "nats", { type: positive ? "log" : "value", nameGap: 46, axisLabel: { formatter: number } }),
    series: [line("mean |Δ|", "abs_diff_mean", theme.series[1], "solid"), line("largest |Δ|", "abs_diff_max", theme.series[0], "dashed")],
  };
}
