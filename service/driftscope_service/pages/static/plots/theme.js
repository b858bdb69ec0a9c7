// Colours of the style sheet, and the parts that all plots share.

export function readTheme(element) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["page", "surface", "sunken", "text", "muted", "line", "accent", "good", "bad", "watch", "heat-low", "heat-mid", "heat-high"];
  const theme = Object.fromEntries(names.map((name) => [name.replace("-", "_"), colour(name)]));
  theme.series = Array.from({ length: 10 }, (_, index) => colour(`series-${index + 1}`));
  theme.font = style.fontFamily;
  return theme;
}

export function frame(theme) {
  return {
    backgroundColor: "transparent",
    textStyle: { fontFamily: theme.font, color: theme.text },
    grid: { left: 64, right: 18, top: 30, bottom: 46 },
    // As text on the canvas: markup of a tooltip would carry style attributes, which pages forbid.
    tooltip: {
      renderMode: "richText", confine: true, backgroundColor: theme.surface, borderColor: theme.muted,
      borderWidth: 1, textStyle: { color: theme.text, fontSize: 12, fontFamily: theme.font },
    },
  };
}

export function axis(theme, name, more = {}) {
  const { axisLabel, axisTick, splitLine, ...rest } = more;
  return {
    name, nameLocation: "middle", nameGap: 28, nameTextStyle: { color: theme.muted, fontSize: 12 },
    axisLine: { onZero: false, lineStyle: { color: theme.muted } }, axisTick: { lineStyle: { color: theme.muted }, ...axisTick },
    axisLabel: { color: theme.muted, fontSize: 11, hideOverlap: true, ...axisLabel },
    splitLine: { lineStyle: { color: theme.line }, ...splitLine },
    ...rest,
  };
}

// What is drawn side by side, each in its colour, dash and shape: the cells of a report as it says,
// else the two sides of a comparison, else one thing alone. `key` is `side` in its rows.
export function drawn(data, theme) {
  const sides = data.drawn ?? (data.sides ?? [""]).map((name, index) => ({
    key: name && "AB"[index], name: name && `${"AB"[index]}: ${name}`, series: 2 - index, dashed: index === 1,
  }));
  return sides.map((one) => ({
    ...one, colour: theme.series[one.series - 1], symbol: SYMBOLS[(one.series - 1) % SYMBOLS.length],
    line: { color: theme.series[one.series - 1], width: 1.75, type: one.dashed ? "dashed" : "solid" },
  }));
}

const SHAPES = ["circle", "rect", "triangle", "diamond"];
const SYMBOLS = [...SHAPES, "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];

export function legend(theme) {
  return { type: "scroll", top: 0, right: 0, textStyle: { color: theme.text, fontSize: 11 }, itemWidth: 22, itemHeight: 8, pageIconColor: theme.accent, pageTextStyle: { color: theme.muted } };
}

// Rows of the data as objects by the names of the columns.
export function records(data) {
  return data.rows.map((row) => Object.fromEntries(data.columns.map((name, index) => [name, row[index]])));
}
