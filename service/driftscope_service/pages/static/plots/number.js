// Numbers as text, by the rules of number_format.py: three digits, an exponent where it is small.

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "undefined";
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return value.toLocaleString("en-GB");
  const size = Math.abs(Number(value.toPrecision(3)));
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e5) return value.toExponential(2).replace("e+", "e");
  return size >= 100 ? Math.round(value).toLocaleString("en-GB") : value.toPrecision(3);
}

export function power(exponent) {
  return exponent >= -2 && exponent <= 4 ? String(Number(`1e${exponent}`)) : `1e${exponent}`;
}

// Of an axis: without zeros at the end.
export function tick(value) {
  return number(value).replace(/(\.\d*?)0+(?=e|$)/, "$1").replace(/\.(?=e|$)/, "").replace(/^-/, "−");
}

// "1 token", "2 tokens".
export function counted(count, one) {
  return `${number(count)} ${count === 1 ? one : `${one}s`}`;
}

// A value of the number that a plot is of, in the form that the page shows it in: a share as percent.
export function writer({ form, unit }) {
  return form === "fraction" ? (value) => `${number(100 * value)}%` : (value) => `${number(value)} ${unit ?? ""}`.trim();
}
