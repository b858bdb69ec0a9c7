// Points in time as the reader's clock shows them; the page has UTC, which stays as the tooltip. Without
// this script, and where the reader's zone is UTC, the page is as it came.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const here = ["UTC", "Etc/UTC", "GMT", undefined].includes(zone) ? null : zone;

const two = "2-digit";
const clock = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: two, day: two, hour: two, minute: two, second: two, hourCycle: "h23", timeZoneName: "short",
});

// In the order of ISO 8601, with the short name of the zone: 2026-11-29 21:30:05 CET.
function local(when) {
  const part = Object.fromEntries(clock.formatToParts(when).map(({ type, value }) => [type, value]));
  return `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}:${part.second} ${part.timeZoneName}`;
}

function show(place) {
  for (const time of place.querySelectorAll("time[datetime]:not([data-local])")) {
    const when = new Date(time.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    time.dataset.local = "";
    if ("ago" in time.dataset) {
      time.title = `${local(when)}, ${time.title}`;
    } else {
      time.title ||= time.textContent;
      time.textContent = local(when);
    }
  }
}

if (here) {
  for (const place of document.querySelectorAll("footer .zone")) place.textContent = `times in ${here}; UTC as tooltip`;
  show(document);
  // What htmx has put in place.
  document.addEventListener("htmx:after:swap", () => show(document));
}
