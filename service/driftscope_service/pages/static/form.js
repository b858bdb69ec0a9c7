// Marks what differs from the job that a form began with; the server says it as well, when asked.

const of = (place) => {
  if (place.matches("fieldset")) return [...place.querySelectorAll("input:checked")].map((box) => box.value).join("\n");
  if (place.type === "checkbox") return String(place.checked);
  return place.value;
};

for (const place of document.querySelectorAll("[data-was]")) {
  const field = place.closest(".field");
  place.addEventListener("input", () => field.classList.toggle("changed", of(place) !== place.dataset.was));
}
