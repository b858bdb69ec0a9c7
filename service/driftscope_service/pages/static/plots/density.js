// Tokens per pair of log-probabilities, shaded by the logarithm of their number.

import { counted, number } from "./number.js";
import { axis, frame, records } from "./theme.js";

export function option(data, theme) {
  const cells = records(data);
  const most = Math.max(...cells.map((cell) => cell.tokens));
  const lowest = Math.min(...cells.map((cell) => Math.min(cell.rollout_from, cell.trainer_from)));
  const base = frame(theme);
  const logprobs = (name, more) => axis(theme, name, { type: "value", min: Math.floor(lowest), max: 0, splitLine: { show: false }, ...more });
  return {
    ...base,
    grid: { ...base.grid, left: 56 },
    tooltip: {
      ...base.tooltip,
      formatter: ({ data: { cell } }) => (cell
        ? `rollout ${cell.rollout_from} to ${cell.rollout_from + data.cell}\ntrainer ${cell.trainer_from} to ${cell.trainer_from + data.cell}\n${counted(cell.tokens, "token")}`
        : ""),
    },
    xAxis: logprobs("rollout, nats"),
    yAxis: logprobs("trainer, nats", { nameGap: 34 }),
    visualMap: { show: false, dimension: 2, min: 0, max: Math.log10(most) || 1, inRange: { color: [theme.heat_mid, theme.heat_high, theme.bad] } },
    series: [
      {
        type: "custom",
        encode: { x: 0, y: 1 },
        data: cells.map((cell) => ({ value: [cell.rollout_from, cell.trainer_from, Math.log10(cell.tokens)], cell })),
        renderItem: (_, api) => {
          const [x, bottom] = api.coord([api.value(0), api.value(1)]);
          const [right, y] = api.coord([api.value(0) + data.cell, api.value(1) + data.cell]);
          return {
            type: "rect",
            shape: { x, y, width: right - x, height: bottom - y },
            style: { fill: api.visual("color") },
          };
        },
      },
      {
        type: "line", symbol: "none", silent: true, lineStyle: { color: theme.muted, width: 1, type: "dashed" },
        data: [[Math.floor(lowest), Math.floor(lowest)], [0, 0]],
      },
    ],
  };
}
