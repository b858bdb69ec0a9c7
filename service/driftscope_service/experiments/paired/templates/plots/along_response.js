// Mean |Δ| by the place of the token in its response.
const responseRows = (cell) => binRows(cell.profiles.by_response_index);

const responseSeries = (cell, scale) => ({
  name: cell.label,
  type: "line",
  symbol: symbolOf(cell),
  symbolSize: 4,
  color: colourOf(cell),
  lineStyle: { width: 1.5 },
  data: responseRows(cell).map(([from, to, count, mean]) => [
    (from + to - 1) / 2,
    mean === null ? null : scale.place(mean),
    mean,
    count,
    from,
    to,
  ]),
});

const responseOption = (cells) => {
  const end = Math.max(1, ...cells.map((cell) => cell.profiles.by_response_index.edges.at(-1)));
  const scale = logScale(cells.flatMap((cell) => responseRows(cell).map((row) => row[3] ?? 0)));
  return frame({
    cells,
    trigger: "axis",
    x: axisOf("place in the response (tokens)", { min: 0, max: end, minInterval: 1 }, 28),
    y: axisOf("mean |Δ| (nats)", scale.axis, 50),
    series: cells.map((cell) => responseSeries(cell, scale)),
    tooltip: (points) => {
      const [, , , , from, to] = points[0].value;
      const title = to - from > 1 ? `tokens ${from} to ${to - 1}` : `token ${from}`;
      const row = ({ seriesName, value: [, , mean, count] }) => [
        seriesName,
        `${formatNumber(mean)} (${count} ${count === 1 ? "token" : "tokens"})`,
      ];
      return tooltipHtml(title, points.map(row));
    },
  });
};

const responseAside = (cells) => {
  const gaps = cells.flatMap((cell) => {
    const zeros = responseRows(cell).filter((row) => row[3] === 0).length;
    return zeros ? [`${cell.label} ${zeros}`] : [];
  });
  return gaps.length ? `Gaps, where every Δ is exactly 0, in bins: ${gaps.join("; ")}.` : "";
};

const responsePlot = {
  id: "along-response",
  part: "by_response_index",
  option: responseOption,
  aside: responseAside,
  tables: {
    bins: { columns: ["token_from", "token_below", ...BIN_MEANS], rows: responseRows },
  },
};
