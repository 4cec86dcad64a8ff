// Keeps a page up to date in place: what has changed is put into the page that is there, so that selection, focus, scroll
// position and what is being typed stay as they are. Without this script, pages are as complete, and loaded again by hand.
"use strict";

const LEAST = 1500, MOST = 5000; // milliseconds between two looks
const live = document.getElementById("live"), main = document.getElementById("main");
let latest = 0, timer = null, asking = null;

function isSelected(node) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(node, true);
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || null : null;
}

function isAlike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
}

function takeAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    const kept = name === "open" || (name === "class" && old.classList.contains("arrived"));
    if (!fresh.hasAttribute(name) && !kept) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

function take(old, fresh, isFirst) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data && !isSelected(old)) old.data = fresh.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  if (old.matches("form, .confirm") && !isFirst) return; // what is being typed or chosen is the reader's
  takeAttributes(old, fresh);
  takeChildren(old, fresh);
}

function takeChildren(old, fresh) {
  const known = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  const wanted = new Set([...fresh.childNodes].map(keyOf).filter(Boolean));
  let at = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    while (at && keyOf(at) && !wanted.has(keyOf(at)) && !isAlike(at, node)) at = remove(at);
    const match = keyOf(node) ? known.get(keyOf(node)) : null;
    if (at && isAlike(at, node)) {
      take(at, node, false);
      at = at.nextSibling;
    } else if (match && match.nodeName === node.nodeName) {
      old.insertBefore(match, at);
      take(match, node, false);
    } else {
      const added = old.insertBefore(document.importNode(node, true), at);
      if (keyOf(added) && known.size) added.classList.add("arrived");
    }
  }
  while (at) at = remove(at);
}

function remove(node) {
  const next = node.nextSibling;
  if (!isSelected(node) && !node.contains(document.activeElement)) node.remove();
  return next;
}

async function show(address, isForm) {
  asking?.abort();
  asking = new AbortController();
  latest = performance.now();
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" }, signal: asking.signal });
    if (!answer.ok && !isForm) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    take(main, page.getElementById("main"), true);
    document.title = page.title;
    live.textContent = page.getElementById("live").textContent;
    live.className = "live on";
  } catch (error) {
    if (error.name === "AbortError") return;
    live.textContent = "Poller does not answer";
    live.className = "live off";
  }
}

function look() {
  timer = null;
  if (document.hidden || "still" in main.dataset) return; // a search may read all of the log
  show(location.href.replace(/([?&])done=[^&#]*/, "$1").split("#")[0], false);
}

function soon() {
  timer ??= setTimeout(look, Math.max(0, latest + LEAST - performance.now()));
}

// Forms that only look are answered while they are filled in.
function ask(form) {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) given.append(name, value);
  history.replaceState(null, "", `${form.getAttribute("action")}?${given}`);
  show(location.href, true);
}

for (const form of document.querySelectorAll("form[data-live]")) {
  let waiting = null;
  form.addEventListener("input", ({ target }) => {
    if (target.type === "range") {
      target.parentElement.querySelector("output").textContent = Number(target.value);
      const hidden = target.parentElement.querySelector("input[type=hidden]");
      if (hidden) hidden.value = `${target.dataset.name}=${Number(target.value)}`;
    }
    clearTimeout(waiting);
    waiting = setTimeout(() => ask(form), 250);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); ask(form); });
}

new EventSource("/api/v1/events/stream").onmessage = soon;
setInterval(soon, MOST);
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
if (location.search.includes("done=")) {
  history.replaceState(null, "", location.href.replace(/([?&])done=[^&#]*&?/, "$1").replace(/[?&]$/, ""));
}
live.className = "live on";
