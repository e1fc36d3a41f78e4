// What the pages do beside htmx: draw figures, follow a campaign's events, show times in the reader's zone, say errors.
"use strict";

const SHOWN_EVERY_MS = 1000;
const DRAWN_EVERY_MS = 10000;

function draw(root) {
  for (const script of root.querySelectorAll(".figure > script")) {
    const { data, layout } = JSON.parse(script.textContent);
    const place = script.parentElement;
    script.remove();
    Plotly.newPlot(place, data, layout, { responsive: true });
  }
}

function localize(root) {
  for (const time of root.querySelectorAll("time[data-ms]")) {
    const moment = new Date(Number(time.dataset.ms));
    time.dateTime = moment.toISOString();
    time.textContent = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

// Calls `act` at once, and then no more often than every so many milliseconds, the last time included.
function throttled(act, milliseconds) {
  let next = 0, waiting = null;
  return () => {
    if (waiting !== null) return;
    waiting = setTimeout(() => { waiting = null; next = Date.now() + milliseconds; act(); }, Math.max(0, next - Date.now()));
  };
}

function follow(address) {
  const show = throttled(() => htmx.trigger(document.body, "changed"), SHOWN_EVERY_MS);
  const redraw = throttled(() => htmx.trigger(document.body, "redraw"), DRAWN_EVERY_MS);
  const settle = throttled(() => htmx.trigger(document.body, "settled"), DRAWN_EVERY_MS);
  const events = new EventSource(address);
  let hasNews = false;
  const kinds = ["observation", "trial_moved", "trial_created", "trial_lost", "campaign_moved", "campaign_changed"];
  for (const kind of kinds) events.addEventListener(kind, () => { hasNews = true; show(); redraw(); });
  events.addEventListener("campaign_moved", settle);
  events.addEventListener("error", () => { if (hasNews) { show(); redraw(); settle(); } });  // the stream has ended
}

function say(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.hidden = false;
  setTimeout(() => { notice.hidden = true; }, 8000);
}

document.addEventListener("DOMContentLoaded", () => {
  localize(document);
  draw(document);
  const place = document.querySelector("[data-events]");
  if (place !== null) follow(place.dataset.events);
});
document.addEventListener("htmx:beforeSwap", (event) => {  // a browser has few contexts to draw in
  for (const figure of event.detail.target.querySelectorAll(".figure")) if (window.Plotly) Plotly.purge(figure);
});
document.addEventListener("htmx:load", (event) => { localize(event.target); draw(event.target); });
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.detail.requestConfig.verb === "post") htmx.trigger(document.body, "changed");
});
document.addEventListener("htmx:responseError", (event) => {
  const { status, responseText } = event.detail.xhr;
  let text = `The service answered ${status}.`;
  try { text = JSON.parse(responseText).detail; } catch { /* a page, not a problem */ }
  say(text);
});
document.addEventListener("htmx:sendError", () => say("The service does not answer."));
