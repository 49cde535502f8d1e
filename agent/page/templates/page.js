"use strict";
// The server renders the page. This script loads it again when the agent reports a change, and
// replaces the parts that differ, so that nobody loses the focus or what they have typed.

const offline = document.getElementById("offline");
const filter = document.getElementById("filter");
const RETRY = 2000, ANSWER = 10000, SILENT = 30000, BETWEEN_LOADS = 2000, ERROR = 15000;
const shown = new Map();
let events = null, heard = Date.now(), loaded = 0, isLoading = false, isStale = false;

function showMatches() {
  const wanted = filter.value.toLowerCase();
  for (const line of document.querySelectorAll("#log > li")) {
    line.hidden = !line.textContent.toLowerCase().includes(wanted);
  }
}

function replaceParts(fresh) {
  document.title = fresh.title;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const html = part.innerHTML;
    if (shown.get(part.id) !== html) {
      shown.set(part.id, html);
      document.getElementById(part.id).replaceChildren(...part.childNodes);
    }
  }
  // Only shown or hidden, because somebody may be typing in it.
  document.getElementById("undo").hidden = fresh.getElementById("undo").hidden;
  document.querySelector("[name=cutover]").value = fresh.querySelector("[name=cutover]").value;
  showMatches();
}

function notice(text) {
  offline.textContent = text;
  offline.hidden = text === "";
}

async function load() {
  if (isLoading || Date.now() - loaded < BETWEEN_LOADS) {
    isStale = true;
    return;
  }
  isLoading = true;
  isStale = false;
  loaded = Date.now();
  let response = null, text = "";
  try {
    response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(ANSWER) });
    text = await response.text();
  } catch {
    response = null;
  }
  isLoading = false;
  if (response === null) {
    notice("The agent does not answer. This page shows what it said last, and continues when it is back.");
  } else if (response.status === 401) {
    location.assign("/");
  } else if (!response.ok) {
    notice(`The agent answers with an error (${response.status}). This page shows what it said last.`);
  } else {
    replaceParts(new DOMParser().parseFromString(text, "text/html"));
    notice("");
  }
}

function listen() {
  events = new EventSource("/v1/events?without-log");
  heard = Date.now();
  events.addEventListener("move", () => { heard = Date.now(); load(); });
  events.addEventListener("still", () => { heard = Date.now(); });
}

function tend() {
  if (events === null) {
    return;
  }
  if (events.readyState !== EventSource.OPEN || Date.now() - heard > SILENT) {
    load();
  } else if (isStale) {
    load();
  }
  // A browser tries again by itself, unless it got a response that is no stream, or none at all.
  if (events.readyState === EventSource.CLOSED || Date.now() - heard > SILENT) {
    events.close();
    listen();
  }
}

// A hidden page needs no connection; a browser has six for all of its pages.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    events.close();
    events = null;
  } else {
    listen();
    load();
  }
});
document.getElementById("search").hidden = false;
filter.addEventListener("input", showMatches);
setTimeout(() => { document.getElementById("error")?.remove(); }, ERROR);
setInterval(tend, RETRY);
listen();
