// Colours of the style sheet, and the parts that all plots share.

export function readTheme(element) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["page", "surface", "sunken", "text", "muted", "line", "accent", "good", "bad", "watch", "heat-low", "heat-mid", "heat-high"];
  const theme = Object.fromEntries(names.map((name) => [name.replace("-", "_"), colour(name)]));
  theme.series = Array.from({ length: 10 }, (_, place) => colour(`series-${place + 1}`));
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
  const { axisLabel, splitLine, ...rest } = more;
  return {
    name, nameLocation: "middle", nameGap: 28, nameTextStyle: { color: theme.muted, fontSize: 12 },
    axisLine: { onZero: false, lineStyle: { color: theme.muted } }, axisTick: { lineStyle: { color: theme.muted } },
    axisLabel: { color: theme.muted, fontSize: 11, hideOverlap: true, ...axisLabel },
    splitLine: { lineStyle: { color: theme.line }, ...splitLine },
    ...rest,
  };
}

// Three significant digits, as on the rest of the page.
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e5) return value.toLocaleString("en");
  if (size < 1e-3 || size >= 1e5) return value.toExponential(2).replace(/e\+?/, "e");
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

// Rows of the data as objects by the names of the columns.
export function records(data) {
  return data.rows.map((row) => Object.fromEntries(data.columns.map((name, place) => [name, row[place]])));
}
