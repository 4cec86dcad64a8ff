"use strict";
const table = document.getElementById("events"), live = document.getElementById("live");
let waiting = false;

async function look() {
  try {
    const answer = await fetch("/", {headers: {accept: "text/html"}});
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const known = new Set([...table.rows].map(row => row.cells[0].textContent));
    document.getElementById("status").replaceWith(document.adoptNode(page.getElementById("status")));
    const rows = page.getElementById("events");
    for (const row of rows.rows) if (!known.has(row.cells[0].textContent)) row.className = "new";
    table.tBodies[0].replaceWith(document.adoptNode(rows.tBodies[0]));
    document.title = page.title;
    live.textContent = page.getElementById("live").textContent;
    live.className = "dim";
  } catch (error) {
    live.textContent = "Poller does not answer";
    live.className = "bad";
  }
}

function soon() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => { waiting = false; look(); }, 400);
}

new EventSource("/api/v1/events/stream").onmessage = soon;
setInterval(look, 5000);
