// A share by layer and place in the sequence, shaded from 0 to the largest.

import { counted, number } from "./number.js";
import { axis, frame, records } from "./theme.js";

const LEAST = 0.01; // a lone flip must not look like a fault

export function option(data, theme) {
  const cells = records(data);
  const layers = [...new Set(cells.map((cell) => cell.layer))];
  const most = Math.max(LEAST, ...cells.map((cell) => cell.flipped));
  const base = frame(theme);
  return {
    ...base,
    grid: { ...base.grid, left: 56, top: 44 },
    tooltip: {
      ...base.tooltip,
      formatter: ({ data: { cell } }) => {
        const place = data.width > 1 ? `places ${number(cell.from)} to ${number(cell.below - 1)}` : `place ${number(cell.from)}`;
        return `layer ${cell.layer}, ${place}\n${number(100 * cell.flipped)} % of ${counted(cell.tokens, "choice")} flip`;
      },
    },
    xAxis: axis(theme, "place in the sequence", { type: "value", min: 0, max: Math.max(...cells.map((cell) => cell.below)), minInterval: 1, splitLine: { show: false } }),
    yAxis: axis(theme, "layer", { type: "category", data: layers.map(String), nameGap: 34, splitLine: { show: false } }),
    visualMap: {
      dimension: 2, min: 0, max: most, calculable: false, orient: "horizontal", top: 0, right: 0, itemWidth: 10, itemHeight: 120,
      text: [`${number(100 * most)} %`, "0 %"], textStyle: { color: theme.muted, fontSize: 11 },
      inRange: { color: [theme.heat_low, theme.heat_mid, theme.heat_high, theme.bad] },
    },
    series: [
      {
        type: "custom",
        encode: { x: 0, y: 1 },
        data: cells.map((cell) => ({ value: [cell.from, layers.indexOf(cell.layer), cell.flipped, cell.below], cell })),
        renderItem: (_, api) => {
          const [x, middle] = api.coord([api.value(0), api.value(1)]);
          const [right] = api.coord([api.value(3), api.value(1)]);
          const height = api.size([0, 1])[1];
          return {
            type: "rect",
            // A pixel more hides the seams between cells.
            shape: { x, y: middle - height / 2, width: right - x + 0.5, height: height + 0.5 },
            style: { fill: api.visual("color") },
          };
        },
      },
    ],
  };
}
