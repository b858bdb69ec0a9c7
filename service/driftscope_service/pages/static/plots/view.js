// What an axis of one number over steps shows: its range, its ticks, and what is said of limits that
// are out of sight. One way for a run and for two runs beside each other.

import { tick, writer } from "./number.js";

// A limit further away than so many times the span is said in words only: drawn, it would flatten the line.
const FAR = 30;
// A range of values below this factor is read better on a linear axis.
const LOG_FROM = 3;
// The least span, of the distance from the ideal and of that of a limit: less is rounding, and drawn
// over the whole height it would look like a fault.
const LEAST_OF_VALUE = 0.05;
const LEAST_OF_LIMIT = 1e-3;
// Without a limit nothing says what is small, for a share or a correlation near its ideal.
const LEAST_WITHOUT_LIMIT = 0.01;
const ROOM = 0.08; // above and below, of the span
const LOG_ROOM = 1.25; // the same as a factor
const MANTISSAS = [[1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]];
const ENOUGH_TICKS = 3;
// Of a tick near 1 with more decimals than can be compared, the distance is written.
const MOST_DECIMALS = 5;

const ticksOf = (mantissas, min, max) => {
  const ticks = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power += 1) {
    ticks.push(...mantissas.map((mantissa) => Number(`${mantissa}e${power}`)));
  }
  return ticks.filter((value) => value >= min && value <= max);
};

// At least two, for a range of a factor of LOG_FROM and more; of many decades every second or third.
export function logTicks(min, max) {
  const found = MANTISSAS.map((mantissas) => ticksOf(mantissas, min, max));
  const chosen = found.find((ticks) => ticks.length >= ENOUGH_TICKS) ?? found.at(-1);
  const every = Math.ceil(chosen.length / 8);
  return chosen.filter((_, index) => index % every === 0);
}

const decimalsOf = (span) => Math.max(0, Math.ceil(-Math.log10(span)) + 1);

// Ticks that lie close together are told apart by their labels.
export function tickLabel(span, ideal) {
  const decimals = decimalsOf(span);
  return (value) => {
    if (ideal === 1 && decimals > MOST_DECIMALS) {
      const away = Number((value - 1).toPrecision(3));
      return away === 0 ? "1" : `1 ${away < 0 ? "−" : "+"} ${tick(Math.abs(away))}`;
    }
    const close = value !== 0 && Math.abs(value) > 100 * span;
    return close ? value.toFixed(decimals).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "") : tick(value);
  };
}

// values: what is drawn; limits: {value, direction} each; logarithmic: whether the number is one of
// those whose ratio counts; ideal: where both sides agree.
export function view(values, limits, { logarithmic, ideal = 0, form, unit }) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [ideal, ideal];
  const positive = low > 0;
  const log = logarithmic && positive && high / low > LOG_FROM;
  const middle = (low + high) / 2;
  const least = Math.max(
    LEAST_OF_VALUE * Math.abs(middle - ideal),
    ...limits.map(({ value }) => LEAST_OF_LIMIT * Math.abs(value - ideal)),
    limits.length ? 0 : LEAST_WITHOUT_LIMIT * Math.abs(middle),
  ) || 1;
  if (!log && high - low < least) [low, high] = [middle - least / 2, middle + least / 2];
  const near = ({ value }) => (logarithmic && positive
    ? value > 0 && value < high * FAR && value > low / FAR
    : Math.abs(value - middle) < FAR * (high - low));
  for (const { value } of limits.filter(near)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const span = high - low;
  const floor = form === "fraction" || (logarithmic && positive) ? 0 : -Infinity;
  const min = log ? low / LOG_ROOM : Math.max(low - ROOM * span, floor);
  const max = log ? high * LOG_ROOM : high + ROOM * span;
  const inSight = limits.filter(({ value }) => value >= min && value <= max);
  const said = limits.filter(({ value }) => value < min || value > max)
    .map(({ value }) => `Limit ${writer({ form, unit })(value)} ${value > max ? "above" : "below"} this view.`);
  const linear = form === "fraction" ? ((label) => (value) => `${label(100 * value)}%`)(tickLabel(100 * span, 100 * ideal)) : tickLabel(span, ideal);
  const ticks = log ? { customValues: logTicks(min, max) } : {};
  return {
    logarithmic: log, min, max, limits: inSight, said: said.join(" "),
    axis: {
      type: log ? "log" : "value", min, max, nameGap: 54, axisTick: ticks,
      axisLabel: { ...ticks, formatter: log ? tick : linear, showMinLabel: false, showMaxLabel: false },
    },
  };
}

// The point, or the group of steps, in whose column a click at `step` is; the nearest one in a gap.
export function nearest(points, step) {
  const away = (point) => Math.max(point.first_step - step, step - point.last_step, 0);
  return points.reduce((found, point) => (away(point) < away(found) ? point : found));
}
