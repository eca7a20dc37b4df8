"use strict";
// Everything from devices and operators enters the page as text, never as markup.
const MAX_TILES = 500, MAX_LOG = 200, MAX_ROLLOUTS = 5, MAX_VERDICTS = 6, MAX_FEATURES = 8, MAX_NAMED = 3, MAX_ROWS = 50;
// Values of a sample that are shown; all of them: serin-fleet review show.
const MAX_VALUES = 256;
const byId = id => document.getElementById(id);
const devices = new Map();
const rollouts = new Map();
let token = sessionStorage.getItem("token") || "";
// What drift is shown of: the release, its last answer, and the segment or all.
let chosen = "", drift = null, segment = "";

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children) made.append(child);
  return made;
}

async function ask(path, body) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const order = { headers, cache: "no-store" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(order, { method: "POST", body: JSON.stringify(body) });
  }
  const answer = await fetch(path, order);
  if (answer.status === 401) { byId("door").hidden = false; throw Object.assign(new Error("the operator's token is needed"), { denied: true }); }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error((said && said.error) || path + ": " + answer.status);
  }
  return answer;
}
const get = async path => (await ask(path)).json();

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const clock = at => new Date(at).toLocaleTimeString();
function tone(word) {
  if (/roll|reject|fail|abort/.test(word)) return "bad";
  if (/hold|await|paus|inconclusive|return|left|unreach/.test(word)) return "warn";
  if (/complet|commit|promote/.test(word)) return "good";
  return "info";
}

// Redraws at most once a frame, whatever arrives.
const dirty = new Set();
function redraw(part) {
  if (!dirty.size) requestAnimationFrame(() => { const parts = [...dirty]; dirty.clear(); parts.forEach(draw => draw()); });
  dirty.add(part);
}

function say(at, text, className) {
  const line = element("li", className || "", element("time", "", clock(at)), text);
  const log = byId("log");
  log.prepend(line);
  while (log.childElementCount > MAX_LOG) log.lastElementChild.remove();
}

// A table of rows of cells; a cell is a text, a class and a text, or an element. Columns of numbers have names that begin
// with #.
function tableOf(heads, rows) {
  const numbers = heads.map(text => text.startsWith("#") ? "number" : "");
  const head = element("thead", "", element("tr", "", ...heads.map((text, at) => {
    const cell = element("th", numbers[at], numbers[at] ? text.slice(1) : text);
    cell.scope = "col";
    return cell;
  })));
  const cell = (part, at) => Array.isArray(part) ? element("td", ...part)
    : element("td", numbers[at], part instanceof Node ? part : String(part));
  const body = element("tbody", "", ...rows.map(row => element("tr", "", ...row.map(cell))));
  return element("div", "wide", element("table", "", head, body));
}
const severe = word => word === "critical" ? "bad" : word === "warning" ? "warn" : "info";

function button(text, key, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.dataset.key = key;
  made.addEventListener("click", act);
  return made;
}

// What is drawn anew leaves the focus, and what was unfolded, where they were.
function replace(place, parts) {
  const held = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open]")].map(one => one.dataset.key));
  place.replaceChildren(...parts);
  for (const one of place.querySelectorAll("[data-key]")) {
    if (open.has(one.dataset.key)) one.open = true;
    if (held === one.dataset.key) one.focus();
  }
}
