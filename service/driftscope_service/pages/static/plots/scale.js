// Axes by hand: a value is mapped to a place, and the ticks are given. One way for all plots, since
// the library's logarithmic axis has neither a zero nor negative values.

import { power, tick } from "./number.js";

// Most decades that an axis shows, and the share of small values that may lie below its lowest tick,
// where they are still drawn, but linearly.
const MAX_DECADES = 9;
const SHARE_BELOW = 0.05;
const MAX_TICKS = 5; // each way from 0
const MARGIN = 0.15; // decades beyond the outermost value

const range = (from, to, step) => {
  const places = [];
  for (let place = from; place <= to; place += step) places.push(place);
  return places;
};

// ECharts ticks at given places, labelled by `label`.
const axisWith = (min, max, ticks, label) => ({
  min,
  max,
  axisTick: { customValues: ticks },
  axisLabel: { customValues: ticks, formatter: label },
});

export const logScale = (values) => {
  const exponents = values.filter((value) => value > 0).map(Math.log10);
  const low = exponents.length ? Math.floor(Math.min(...exponents)) : -6;
  const high = exponents.length ? Math.ceil(Math.max(...exponents)) : 0;
  const top = Math.max(high, low + 1);
  const ticks = range(low, top, Math.ceil((top - low) / (MAX_TICKS + 1)));
  return {
    place: (value) => (value > 0 ? Math.log10(value) : null),
    axis: axisWith(low, top, ticks, power),
  };
};

// Counts: 0 has a place of its own, one step below 1.
export const countScale = (largest) => {
  const top = 1 + Math.log10(Math.max(largest, 10));
  return {
    place: (count) => (count > 0 ? 1 + Math.log10(count) : 0),
    axis: axisWith(0, top + MARGIN, range(0, top, 1), (place) =>
      place === 0 ? "0" : power(place - 1),
    ),
  };
};

// Linear within ±floor, logarithmic beyond; the place of ±floor is ±1.
const symlogScale = (values) => {
  const sizes = values.map(Math.abs).filter((size) => size > 0);
  if (!sizes.length) sizes.push(1e-3, 1);
  sizes.sort((a, b) => a - b);
  const largest = Math.log10(sizes.at(-1));
  const small = Math.log10(sizes[Math.floor(sizes.length * SHARE_BELOW)]);
  const lowest = Math.max(Math.floor(small), Math.ceil(largest) - MAX_DECADES);
  const place = (value) => {
    const size = Math.log10(Math.abs(value)) - lowest;
    return size <= 0 || value === 0 ? value / 10 ** lowest : Math.sign(value) * (1 + size);
  };
  const reach = 1 + largest - lowest + MARGIN;
  const up = range(1, reach, Math.ceil(reach / MAX_TICKS));
  const label = (at) => {
    const size = power(Math.abs(at) - 1 + lowest);
    return at === 0 ? "0" : at < 0 ? `−${size}` : size;
  };
  const ticks = [...up.map((at) => -at).reverse(), 0, ...up];
  return { place, axis: axisWith(-reach, reach, ticks, label) };
};

export const linearScale = () => ({
  place: (value) => value,
  axis: { axisLabel: { formatter: tick } },
});

export const SIGNED_SCALES = { symlog: symlogScale, linear: linearScale };
