// |Δ| in logarithmic buckets, as a stepped curve per cell. Exact zeros stand in the line below.
const MOST_FILLED = 3; // more curves than that, and their fills only hide each other

const histogramOf = (cell) => cell.profiles.abs_diff_histogram;

const usedBuckets = (cells) => {
  const used = cells.flatMap((cell) =>
    histogramOf(cell).counts.flatMap((count, bucket) => (count > 0 ? [bucket] : [])),
  );
  return used.length ? [Math.min(...used), Math.max(...used)] : null;
};

const histogramSeries = (cell, [first, last], place, fill) => {
  const { edges, counts } = histogramOf(cell);
  const data = [[Math.log10(edges[first]), 0]];
  for (let bucket = first; bucket <= last; bucket += 1) {
    const [low, high] = [edges[bucket], edges[bucket + 1]];
    data.push([Math.log10(low), place(counts[bucket]), counts[bucket], low, high]);
  }
  data.push([Math.log10(edges[last + 1]), 0]);
  return {
    name: cell.label,
    type: "line",
    step: "end",
    showSymbol: false,
    color: colourOf(cell),
    lineStyle: { width: 1.75 },
    areaStyle: { opacity: fill ? 0.1 : 0, origin: "start" },
    data,
  };
};

const histogramOption = (cells) => {
  const used = usedBuckets(cells);
  const edges = used ? histogramOf(cells[0]).edges : [1e-6, 1];
  const across = logScale(used ? [edges[used[0]], edges[used[1] + 1]] : edges);
  const up = countScale(Math.max(1, ...cells.flatMap((cell) => histogramOf(cell).counts)));
  const fill = cells.length <= MOST_FILLED;
  return frame({
    cells,
    trigger: "axis",
    x: axisOf("|Δ| (nats)", across.axis, 28),
    y: axisOf("tokens per bucket", up.axis, 44),
    series: used ? cells.map((cell) => histogramSeries(cell, used, up.place, fill)) : [],
    tooltip: (points) => {
      const [, , , from, to] = points[0].value;
      if (!to) return "";
      const title = `${formatNumber(from)} < |Δ| ≤ ${formatNumber(to)} nats`;
      return tooltipHtml(title, points.map((point) => [point.seriesName, point.value[2]]));
    },
  });
};

const histogramAside = (cells) => {
  const outside = cells.flatMap((cell) => {
    const { zero, below, above, edges } = histogramOf(cell);
    const parts = [];
    if (zero) parts.push(`${formatNumber(zero)} exactly 0`);
    if (below) parts.push(`${formatNumber(below)} up to ${formatNumber(edges[0])}`);
    if (above) parts.push(`${formatNumber(above)} above ${formatNumber(edges.at(-1))}`);
    return parts.length ? [`${cell.label}: ${parts.join(", ")}`] : [];
  });
  return outside.length ? `Not on the axis, tokens: ${outside.join("; ")}.` : "";
};

const histogramRows = (cell) => {
  const { zero, below, counts, above, edges } = histogramOf(cell);
  const buckets = counts.map((count, bucket) => [edges[bucket], edges[bucket + 1], count]);
  return [[0, 0, zero], [0, edges[0], below], ...buckets, [edges.at(-1), null, above]];
};

const histogramPlot = {
  id: "histogram",
  part: "abs_diff_histogram",
  option: histogramOption,
  aside: histogramAside,
  tables: {
    buckets: {
      columns: ["abs_diff_above_nats", "abs_diff_up_to_nats", "tokens"],
      rows: histogramRows,
      shown: (row) => row[2] > 0,
    },
  },
};
