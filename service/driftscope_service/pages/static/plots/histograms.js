// |Δ| of two steps in logarithmic buckets, as shares of their tokens.

import { axis, frame, number, records } from "./theme.js";

// Buckets are not of the same width on this axis: per doubling, a wider one is not a higher one.
const height = (bucket) => (100 * bucket.share) / Math.log2(bucket.up_to / bucket.above);

function outlined(buckets) {
  if (!buckets.length) return [];
  const top = buckets.flatMap((bucket) => [[bucket.above, height(bucket)], [bucket.up_to, height(bucket)]].map((value) => ({ value, bucket })));
  return [{ value: [buckets[0].above, 0] }, ...top, { value: [buckets.at(-1).up_to, 0] }];
}

export function option(data, theme) {
  // The open ends have no place on a logarithmic axis; the table has them.
  const buckets = records(data).filter((bucket) => bucket.above > 0 && bucket.up_to !== null);
  const base = frame(theme);
  const colours = [theme.series[1], theme.series[0]];
  const edges = buckets.flatMap((bucket) => [bucket.above, bucket.up_to]);
  const lines = data.sides.map((side, place) => ({
    name: `${"AB"[place]}: ${side}`,
    type: "line", symbol: "none",
    lineStyle: { color: colours[place], width: 1.75, type: place ? "dashed" : "solid" }, itemStyle: { color: colours[place] },
    areaStyle: { color: colours[place], opacity: 0.12 },
    // Each bucket from one edge to the other, down to the axis at both ends.
    data: outlined(buckets.filter((bucket) => bucket.side === "AB"[place])),
  }));
  return {
    ...base,
    legend: { top: 0, right: 0, textStyle: { color: theme.text, fontSize: 11 }, itemWidth: 22, itemHeight: 8 },
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => items.filter((item) => item.data?.bucket).map(({ seriesName, data: { bucket } }) =>
        `${seriesName}: |Δ| ${number(bucket.above)} to ${number(bucket.up_to)}, ${number(100 * bucket.share)} %`).join("\n"),
    },
    xAxis: axis(theme, "|Δ|, nats", { type: "log", min: Math.min(...edges), max: Math.max(...edges), splitLine: { show: false }, axisLabel: { formatter: (value) => value.toExponential(0), showMinLabel: false, showMaxLabel: false } }),
    yAxis: axis(theme, "% of tokens per doubling", { type: "value", nameGap: 40, axisLabel: { formatter: number } }),
    series: lines,
  };
}
