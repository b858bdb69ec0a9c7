// What all plots share: colours of the theme, frame, axes, legend, tooltip.
const SHAPES = ["circle", "rect", "triangle", "diamond"];
const SYMBOLS = [...SHAPES, "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];

const themeColour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const colourOf = (cell) => themeColour(`series-${cell.series}`);
const symbolOf = (cell) => SYMBOLS[(cell.series - 1) % SYMBOLS.length];

const axisOf = (name, extra, nameGap) => {
  const { axisLabel, axisTick, ...rest } = extra;
  const muted = themeColour("muted");
  return {
    type: "value",
    name,
    nameLocation: "middle",
    nameGap,
    nameTextStyle: { color: muted, fontSize: 12 },
    axisLine: { show: true, onZero: false, lineStyle: { color: themeColour("line") } },
    axisTick: { show: false, ...axisTick },
    splitLine: { lineStyle: { color: themeColour("line"), opacity: 0.6 } },
    axisLabel: { color: muted, fontSize: 11, hideOverlap: true, ...axisLabel },
    ...rest,
  };
};

// rows: [label, value] pairs below a title, all text.
const tooltipHtml = (title, rows) => {
  const lines = rows.map(([label, value]) => `${escapeHtml(label)} <b>${escapeHtml(value)}</b>`);
  return [`<span>${escapeHtml(title)}</span>`, ...lines].join("<br>");
};

const frame = ({ cells, x, y, series, tooltip, trigger }) => ({
  animation: false,
  textStyle: { fontFamily: "system-ui, sans-serif" },
  grid: { left: 66, right: 14, top: 34, bottom: 44 },
  legend: {
    type: "scroll",
    top: 0,
    left: 0,
    selectedMode: false,
    itemWidth: 12,
    itemHeight: 8,
    itemGap: 14,
    textStyle: { color: themeColour("muted"), fontSize: 12 },
    pageIconColor: themeColour("accent"),
    pageTextStyle: { color: themeColour("muted") },
    data: cells.map((cell) => cell.label),
  },
  tooltip: {
    trigger,
    confine: true,
    backgroundColor: themeColour("surface"),
    borderColor: themeColour("line"),
    textStyle: { color: themeColour("text"), fontSize: 12 },
    axisPointer: { type: "line", lineStyle: { color: themeColour("muted") } },
    formatter: tooltip,
  },
  xAxis: x,
  yAxis: y,
  series,
});
