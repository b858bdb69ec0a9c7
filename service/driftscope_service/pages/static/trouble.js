// Says in words when what htmx asked for did not come, and takes it back once something comes again.
// The page stays as it was: an answer of 4xx or 5xx is not put into it (htmx-config, noSwap).

const place = document.getElementById("trouble");

function say(text) {
  // Set again, a screen reader would say it again: a poll fails every two seconds.
  if (place.textContent === text) return;
  place.textContent = text;
  place.hidden = text === "";
}

document.addEventListener("htmx:after:request", (event) => {
  if (event.detail.ctx.response.status < 400) say("");
});
document.addEventListener("htmx:response:error", (event) => {
  say(`The service answered ${event.detail.ctx.response.status}. What is shown is from before; reload the page to try again.`);
});
document.addEventListener("htmx:error", () => {
  say("The service cannot be reached. What is shown is from before; reload the page to try again.");
});
