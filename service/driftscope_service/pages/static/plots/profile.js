// |Δ| per bin of something else, the index in the response or the probability: mean and largest of a
// step, the mean of each cell of a report.

import { counted, number, tick } from "./number.js";
import { logScale } from "./scale.js";
import { axis, drawn, frame, legend, records } from "./theme.js";
import { logTicks } from "./view.js";

const FIRST_INDEX = 0.7;

export function option(data, theme) {
  const bins = records(data);
  const last = Math.max(1, ...bins.map((bin) => bin.below));
  // Indices of a long step run over decades; index 0 stands a little before 1.
  const decades = !data.drawn && last > 1;
  const from = (bin) => (decades ? Math.max(bin.from, FIRST_INDEX) : bin.from);
  const middle = (bin) => (decades ? Math.sqrt(from(bin) * (bin.below - 1 || 1)) : (bin.from + bin.below - (last > 1)) / 2);
  const lines = data.drawn
    ? drawn(data, theme).map((one) => ({ ...one, column: "abs_diff_mean", own: bins.filter((bin) => bin.side === one.key) }))
    : drawn({ sides: ["", ""] }, theme).map((one, index) => ({
      ...one, ...[{ name: "mean |Δ|", column: "abs_diff_mean" }, { name: "largest |Δ|", column: "abs_diff_max" }][index], own: bins,
    }));
  const up = logScale(lines.flatMap(({ own, column }) => own.map((bin) => bin[column] ?? 0)));
  // A line ends where bins are empty, and where every Δ is 0.
  const points = ({ own, column }) => own.flatMap((bin, index) => [
    ...(index && own[index - 1].below !== bin.from ? [{ value: [from(bin), null] }] : []),
    { value: [middle(bin), bin[column] === null ? null : up.place(bin[column])], bin, size: bin[column] },
  ]);
  const where = (bin) => {
    if (last <= 1) return `${number(bin.from)} to ${number(bin.below)}`;
    return bin.below - bin.from > 1 ? `${number(bin.from)} to ${number(bin.below - 1)}` : number(bin.from);
  };
  // Between whole places there is nothing; a response of a few tokens still has two labelled ticks.
  const places = decades ? { customValues: logTicks(from(bins[0]), last).filter(Number.isInteger) } : {};
  const base = frame(theme);
  return {
    ...base,
    legend: legend(theme),
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => {
        const told = items.filter((item) => item.data?.bin);
        if (!told.length) return "";
        const bin = told[0].data.bin;
        const said = told.map(({ seriesName, data: { bin: own, size } }) => `${seriesName}: ${number(size)}${data.drawn ? `, ${counted(own.tokens, "token")}` : ""}`);
        return [`${data.along} ${where(bin)}`, ...said, ...(data.drawn ? [] : [`mean Δ ${number(bin.diff_mean)}, ${counted(bin.tokens, "token")}`])].join("\n");
      },
    },
    xAxis: axis(theme, data.along, {
      type: decades ? "log" : "value", min: decades ? from(bins[0]) : 0, max: last, splitLine: { show: false },
      ...(last > 1 ? { minInterval: 1 } : {}),
      axisTick: places, axisLabel: { ...places, formatter: tick },
    }),
    yAxis: axis(theme, data.drawn ? "mean |Δ| (nats)" : "nats", { type: "value", nameGap: 50, ...up.axis }),
    series: lines.map((one) => ({
      type: "line", name: one.name, symbol: one.symbol, symbolSize: 4, data: points(one), lineStyle: one.line, itemStyle: { color: one.colour },
    })),
  };
}
