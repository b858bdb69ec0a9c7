// |Δ| in logarithmic buckets, as columns that touch.

import { axis, frame, number, records } from "./theme.js";

export function option(data, theme) {
  // The open ends have no place on a logarithmic axis; the table has them.
  const buckets = records(data).filter((bucket) => bucket.above > 0 && bucket.up_to !== null);
  const total = buckets.reduce((sum, bucket) => sum + bucket.tokens, 0);
  const base = frame(theme);
  return {
    ...base,
    tooltip: {
      ...base.tooltip,
      formatter: ({ data: { bucket } }) =>
        `|Δ| ${number(bucket.above)} to ${number(bucket.up_to)}\n${bucket.tokens.toLocaleString("en")} tokens, ${number((100 * bucket.tokens) / total)} %`,
    },
    xAxis: axis(theme, "|Δ|, nats", {
      type: "value", min: Math.floor(Math.log10(buckets[0]?.above ?? 1e-3)), max: Math.ceil(Math.log10(buckets.at(-1)?.up_to ?? 1)), minInterval: 1,
      axisLabel: { formatter: (power) => `1e${power}` }, splitLine: { show: false },
    }),
    yAxis: axis(theme, "tokens", { type: "value", nameGap: 50, axisLabel: { formatter: number } }),
    series: [{
      type: "custom",
      encode: { x: [0, 1], y: 2 },
      data: buckets.map((bucket) => ({ value: [Math.log10(bucket.above), Math.log10(bucket.up_to), bucket.tokens], bucket })),
      renderItem: (_, api) => {
        const [left, top] = api.coord([api.value(0), api.value(2)]);
        const [right, bottom] = api.coord([api.value(1), 0]);
        return {
          type: "rect",
          shape: { x: left, y: top, width: Math.max(1, right - left - 1), height: bottom - top },
          style: { fill: theme.series[1], opacity: 0.85 },
        };
      },
    }],
  };
}
