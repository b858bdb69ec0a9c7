// Δ of single tokens against their rollout probability, and mean |Δ| per bin of probability.
const scatterRows = (cell) => {
  const { sample, largest } = cell.profiles.scatter;
  const rows = ({ rollout_prob, diff }, set) => rollout_prob.map((p, i) => [set, p, diff[i]]);
  return [...rows(sample, "sample"), ...rows(largest, "largest")];
};

const binRows = (bins) =>
  bins.counts.map((count, bin) => [
    bins.edges[bin],
    bins.edges[bin + 1],
    count,
    bins.abs_diff_mean[bin],
    bins.diff_mean[bin],
  ]);

const probabilitySeries = (cell, scale) => {
  const points = scatterRows(cell).map(([, p, diff]) => [p, scale.place(diff), diff]);
  const means = binRows(cell.profiles.by_rollout_prob)
    .filter(([, , , mean]) => mean !== null)
    .map(([from, to, count, mean]) => [(from + to) / 2, scale.place(mean), mean, count]);
  const shared = { name: cell.label, color: colourOf(cell) };
  return [
    {
      ...shared,
      type: "scatter",
      symbol: symbolOf(cell),
      symbolSize: 5,
      itemStyle: { opacity: 0.5 },
      data: points,
    },
    { ...shared, type: "line", showSymbol: false, lineStyle: { width: 2 }, z: 3, data: means },
  ];
};

const probabilityOption = (cells, scaleName) => {
  const values = cells.flatMap((cell) => scatterRows(cell).map(([, , diff]) => diff));
  const scale = SIGNED_SCALES[scaleName](values);
  const x = { min: 0, max: 1, interval: 0.2, axisLabel: { formatter: (p) => p.toFixed(1) } };
  return frame({
    cells,
    trigger: "item",
    x: axisOf("rollout probability of the token", x, 28),
    y: axisOf("Δ (nats)", scale.axis, 50),
    series: cells.flatMap((cell) => probabilitySeries(cell, scale)),
    tooltip: ({ seriesName, value: [p, , diff, count] }) => {
      const rows = [["probability", formatNumber(p)]];
      if (count === undefined) rows.push(["Δ", `${formatNumber(diff)} nats`]);
      else rows.push([`mean |Δ| of ${count} tokens`, `${formatNumber(diff)} nats`]);
      return tooltipHtml(seriesName, rows);
    },
  });
};

const probabilityAside = (cells) => {
  if (!cells.length) return "";
  const { sample, largest } = cells[0].profiles.scatter;
  return `Per cell: ${sample.diff.length} tokens, evenly drawn, and the ${largest.diff.length} largest ${ABS_DELTA}.`;
};

const BIN_MEANS = ["tokens", "abs_diff_mean_nats", "diff_mean_nats"];

const probabilityPlot = {
  id: "by-probability",
  part: ["scatter", "by_rollout_prob"],
  option: probabilityOption,
  aside: probabilityAside,
  tables: {
    bins: {
      columns: ["rollout_prob_from", "rollout_prob_below", ...BIN_MEANS],
      rows: (cell) => binRows(cell.profiles.by_rollout_prob),
    },
    points: { columns: ["set", "rollout_prob", "diff_nats"], rows: scatterRows },
  },
};
