// |Δ| in logarithmic buckets, as a stepped line for each thing that is compared. Tokens of a step;
// percent per doubling of two steps; tokens on a logarithmic axis of the cells of a report.

import { counted, number, tick } from "./number.js";
import { countScale, linearScale, logScale } from "./scale.js";
import { axis, drawn, frame, legend, records } from "./theme.js";

const MOST_FILLED = 3; // more than that, and their fills only hide each other

// Of percent: buckets are not of the same width, and a wider one must not look like a higher one.
const perDoubling = (bucket) => (100 * bucket.share) / Math.log2(bucket.up_to / bucket.above);

// What rounding allows, from the left edge of the plot to its end.
const rounding = (band, across, theme) => ({
  silent: true,
  itemStyle: { color: band.inside ? theme.good : theme.bad, opacity: 0.1 },
  label: { color: theme.muted, fontSize: 11, position: "insideTopLeft" },
  data: [[{ name: "rounding", xAxis: across.axis.min }, { xAxis: Math.max(across.axis.min, Math.min(across.axis.max, across.place(band.up_to))) }]],
});

export function option(data, theme) {
  // The open ends have no place on a logarithmic axis; the table has them.
  const buckets = records(data).filter((bucket) => bucket.above > 0 && bucket.up_to !== null);
  const sides = drawn(data, theme);
  const height = data.sides ? perDoubling : (bucket) => bucket.tokens;
  const total = buckets.reduce((sum, bucket) => sum + bucket.tokens, 0);
  const told = (bucket) => {
    if (data.sides) return `${number(100 * bucket.share)} %`;
    const tokens = counted(bucket.tokens, "token");
    return data.drawn ? tokens : `${tokens}, ${number((100 * bucket.tokens) / total)} %`;
  };
  const across = logScale(buckets.flatMap((bucket) => [bucket.above, bucket.up_to]));
  const up = data.drawn ? countScale(Math.max(1, ...buckets.map(height))) : linearScale();
  const outline = (own) => {
    const edge = (at, bucket) => ({ value: [across.place(at), bucket ? up.place(height(bucket)) : 0], bucket });
    if (!own.length) return [];
    return [edge(own[0].above), ...own.flatMap((bucket) => [edge(bucket.above, bucket), edge(bucket.up_to, bucket)]), edge(own.at(-1).up_to)];
  };
  const base = frame(theme);
  return {
    ...base,
    legend: sides.length > 1 || data.drawn ? legend(theme) : undefined,
    tooltip: {
      ...base.tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: theme.muted } },
      formatter: (items) => {
        // An edge has the bucket on either side of it: the later one is said.
        const own = new Map(items.filter((item) => item.data?.bucket).map((item) => [item.seriesName, item.data.bucket]));
        const lines = [...own].map(([name, bucket]) => `${sides.length > 1 || data.drawn ? `${name}: ` : ""}|Δ| ${number(bucket.above)} to ${number(bucket.up_to)}, ${told(bucket)}`);
        return lines.join("\n");
      },
    },
    xAxis: axis(theme, "|Δ| (nats)", { type: "value", ...across.axis, splitLine: { show: false } }),
    yAxis: axis(theme, data.sides ? "% of tokens per doubling" : "tokens per bucket", { type: "value", nameGap: 46, ...(data.drawn ? up.axis : { axisLabel: { formatter: tick } }) }),
    series: sides.map(({ key, name, line, colour }, index) => ({
      markArea: index === 0 && data.band ? rounding(data.band, across, theme) : undefined,
      name, type: "line", symbol: "none", lineStyle: line, itemStyle: { color: colour },
      areaStyle: sides.length > MOST_FILLED ? undefined : { color: colour, opacity: 0.12, origin: "start" },
      data: outline(key === "" ? buckets : buckets.filter((bucket) => bucket.side === key)),
    })),
  };
}
