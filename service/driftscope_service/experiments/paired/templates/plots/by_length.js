// Sequence log-ratio against length; where all lengths are equal, side by side by cell instead.
const sequenceRows = (cell) => {
  const { length, seq_logratio } = cell.profiles.sequences;
  return length.map((tokens, index) => [tokens, seq_logratio[index]]);
};

const onlyLength = (cells) => {
  const lengths = new Set(cells.flatMap((cell) => cell.profiles.sequences.length));
  return lengths.size === 1 ? [...lengths][0] : null;
};

const lengthSeries = (cell, scale, place) => ({
  name: cell.label,
  type: "scatter",
  symbol: symbolOf(cell),
  symbolSize: 8,
  color: colourOf(cell),
  itemStyle: { opacity: 0.7 },
  data: sequenceRows(cell).map(([tokens, s]) => [place ?? tokens, scale.place(s), s, tokens]),
});

const lengthOption = (cells, scaleName) => {
  const values = cells.flatMap((cell) => cell.profiles.sequences.seq_logratio);
  const scale = SIGNED_SCALES[scaleName](values);
  const tokens = onlyLength(cells);
  const x =
    tokens === null
      ? axisOf("length of the response (tokens)", { min: 0, minInterval: 1 }, 28)
      : {
          ...axisOf(`all responses have ${tokens} tokens`, {}, 28),
          type: "category",
          data: cells.map((cell) => cell.label),
        };
  return frame({
    cells,
    trigger: "item",
    x,
    y: axisOf("sequence log-ratio S (nats)", scale.axis, 50),
    series: cells.map((cell, index) => lengthSeries(cell, scale, tokens === null ? null : index)),
    tooltip: ({ seriesName, value: [, , s, length] }) =>
      tooltipHtml(seriesName, [
        ["length", `${length} tokens`],
        ["S", `${formatNumber(s)} nats`],
        ["importance weight exp S", formatNumber(Math.exp(s))],
      ]),
  });
};

const lengthPlot = {
  id: "by-length",
  part: "sequences",
  option: lengthOption,
  aside: () => "",
  tables: { sequences: { columns: ["length_tokens", "seq_logratio_nats"], rows: sequenceRows } },
};
