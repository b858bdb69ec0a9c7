// The data behind a plot as files, made on this page.
const CELL_COLUMNS = ["engine_dtype", "trainer_dtype"];

const tableRows = (table, cells) =>
  cells.flatMap((cell) =>
    table.rows(cell).map((row) => [cell.engine_dtype, cell.trainer_dtype, ...row]),
  );

// RFC 4180; numbers with all their digits, an absent value as an empty field.
const csvField = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csvText = (table, cells) =>
  [[...CELL_COLUMNS, ...table.columns], ...tableRows(table, cells)]
    .map((row) => `${row.map(csvField).join(",")}\r\n`)
    .join("");

const jsonText = (plot, cells) => {
  const pick = (cell) => [plot.part].flat().map((name) => [name, cell.profiles[name]]);
  const entry = (cell) => ({
    engine_dtype: cell.engine_dtype,
    trainer_dtype: cell.trainer_dtype,
    ...Object.fromEntries(pick(cell)),
  });
  return `${JSON.stringify(cells.map(entry), null, 1)}\n`;
};

const save = (name, type, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
