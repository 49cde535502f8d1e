"use strict";
// The server renders the page. This script loads it again when the agent reports a change, and
// replaces the parts that differ, so that nobody loses the focus or what they have typed.

const offline = document.getElementById("offline");
const filter = document.getElementById("filter");
const RETRY_MILLISECONDS = 2000;
let isLoading = false;
let isStale = false;

function showMatches() {
  const wanted = filter.value.toLowerCase();
  for (const line of document.querySelectorAll("#log > li")) {
    line.hidden = !line.textContent.toLowerCase().includes(wanted);
  }
}

function replaceParts(fresh) {
  document.title = fresh.title;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const shown = document.getElementById(part.id);
    if (shown && shown.innerHTML !== part.innerHTML) {
      shown.replaceChildren(...part.childNodes);
    }
  }
  // Only shown or hidden, because somebody may be typing in it.
  document.getElementById("undo").hidden = fresh.getElementById("undo").hidden;
}

async function load() {
  if (isLoading) {
    isStale = true;
    return;
  }
  isLoading = true;
  try {
    const response = await fetch("/", { cache: "no-store" });
    if (response.status === 401) {
      location.reload();
      return;
    }
    if (response.ok) {
      const text = await response.text();
      replaceParts(new DOMParser().parseFromString(text, "text/html"));
      showMatches();
      offline.hidden = true;
    }
  } catch {
    offline.hidden = false;
  } finally {
    isLoading = false;
  }
  if (isStale) {
    isStale = false;
    load();
  }
}

function listen() {
  const events = new EventSource("/v1/events");
  events.addEventListener("move", load);
  events.addEventListener("log", load);
  events.addEventListener("error", () => {
    offline.hidden = false;
    // A browser tries again by itself, unless it got a response that is no stream.
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(() => { load(); listen(); }, RETRY_MILLISECONDS);
    }
  });
}

document.getElementById("search").hidden = false;
filter.addEventListener("input", showMatches);
listen();
