// Asks /state.json every two seconds and shows it. Whatever a client or an upstream has named is text (textContent), never markup.
"use strict";

const EVERY = 2000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

/** An element with a class and a text; children may follow. */
function el(tag, kind, text, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  const digits = unit === 0 || count >= 100 ? 0 : count >= 10 ? 1 : 2;
  return `${count.toFixed(digits)} ${units[unit]}`;
}

const rate = (count) => `${bytes(count)}/s`;

function time(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const ago = (seconds) => (seconds < 5 ? "just now" : `${time(seconds)} ago`);

/** Bytes of each transfer when it was last seen, for its rate. */
let before = new Map();

function transferRate(key, transfer, now, after) {
  const last = before.get(key);
  let speed = null;
  if (last && transfer.bytes >= last.bytes && now > last.now) {
    const fresh = (transfer.bytes - last.bytes) / ((now - last.now) / 1000);
    speed = last.speed === null ? fresh : 0.5 * fresh + 0.5 * last.speed;
  } else if (transfer.seconds > 0) {
    speed = transfer.bytes / transfer.seconds;
  }
  after.set(key, { bytes: transfer.bytes, now, speed });
  return speed;
}

function file(transfer, speed) {
  const at = transfer.path.lastIndexOf("/") + 1;
  const [folder, name] = [transfer.path.slice(0, at), transfer.path.slice(at) || transfer.path];
  const known = transfer.size > 0;
  const part = known ? Math.min(1, transfer.offset / transfer.size) : 0;
  const arrow = transfer.direction === "up" ? "↑" : "↓";
  const said = [known ? `${bytes(transfer.offset)} of ${bytes(transfer.size)}` : bytes(transfer.offset)];
  if (known) said.push(`${Math.floor(part * 100)} %`);
  if (speed !== null) said.push(rate(speed));
  if (known && speed > 0 && part < 1) said.push(`${time((transfer.size - transfer.offset) / speed)} left`);
  const bar = el("div", `bar ${transfer.direction}${known ? "" : " endless"}`, null, el("i"));
  if (known) {
    bar.firstChild.style.width = `${part * 100}%`;
    bar.setAttribute("role", "progressbar");
    bar.setAttribute("aria-valuenow", String(Math.floor(part * 100)));
  }
  const title = el("span", "name", null, el("span", `${transfer.direction}-text`, `${arrow} `), document.createTextNode(name));
  const row = el("div", "row", null, title, el("span", "end quiet", said.join(" · ")));
  return el("div", "file", null, row, el("div", "folder", folder), bar);
}

const SLOW = { client: "waits for the client", upstream: "waits for the upstream", router: "the router works", limit: "at the user's limit" };
const STATE = { login: "logging in", relaying: "", told: "is told why not" };

function session(one, now, after) {
  const card = el("div", "card");
  const where = one.upstream ? `${one.peer} → ${one.upstream}` : one.peer;
  card.append(el("div", "row", null,
    el("span", "who", one.user || "not proven"), el("span", "quiet", where),
    el("span", "end quiet", `${STATE[one.state] || ""} ${time(one.seconds)}`)));
  const flow = el("div", "row quiet", null,
    el("span", "up-text", `↑ ${rate(one.up_rate)}`), el("span", "down-text", `↓ ${rate(one.down_rate)}`));
  if (one.slow && SLOW[one.slow]) flow.append(el("span", "slow", SLOW[one.slow]));
  flow.append(el("span", "end", `${bytes(one.up)} up, ${bytes(one.down)} down`));
  card.append(flow);
  one.transfers.forEach((transfer, place) => {
    const key = `${one.session} ${transfer.direction} ${transfer.path} ${place}`;
    card.append(file(transfer, transferRate(key, transfer, now, after)));
  });
  if (one.more_transfers > 0) card.append(el("p", "quiet", `and ${one.more_transfers} more open files`));
  return card;
}

function item(main, when, reason) {
  const made = el("div", "item", null, main, el("span", "when", when));
  if (reason) made.append(el("span", "reason", reason));
  return made;
}

function list(place, items, nothing) {
  $(place).replaceChildren(items.length ? el("div", "list", null, ...items) : el("p", "empty", nothing));
}

function upstream(one) {
  const main = el("span", "main", null, el("span", `lamp ${one.ok ? "good" : "bad"}`), document.createTextNode(one.address));
  const sessions = one.sessions === 1 ? "1 session" : `${one.sessions} sessions`;
  const since = `${one.ok ? "good" : "failing"} for ${time(one.since)}`;
  return item(main, `${sessions} · ${since}`, one.reason);
}

const KIND = { connection: "connection", client: "client", key: "key", login: "login", operation: "operation" };

function refusal(one) {
  const who = [one.user, one.from].filter(Boolean).join(" · ");
  return item(el("span", "main", null, el("span", "kind", `${KIND[one.kind] || one.kind} `), document.createTextNode(who)), ago(one.ago), one.reason);
}

function line(kind, points, most, span) {
  const across = (place) => (720 * (1 - (points.length - 1 - place) / (span - 1))).toFixed(1);
  const edge = points.map((value, place) => `${across(place)},${(146 - 136 * (value / most)).toFixed(1)}`).join(" L");
  const first = across(0);
  const area = document.createElementNS(SVG, "path");
  area.setAttribute("class", `${kind} area`);
  area.setAttribute("d", `M${first},146 L${edge} L720,146 Z`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("class", `${kind} edge`);
  path.setAttribute("d", `M${edge}`);
  return [area, path];
}

function plot(throughput) {
  const { up, down } = throughput;
  const most = Math.max(1024, ...up, ...down);
  const grid = [10, 78, 146].map((y) => {
    const made = document.createElementNS(SVG, "path");
    made.setAttribute("class", "grid");
    made.setAttribute("d", `M0,${y} H720`);
    return made;
  });
  // As much of the hour as there is: a router that was just started fills the plot all the same.
  const span = [24, 60, 120, 360].find((span) => up.length <= span) || 720;
  const minutes = Math.round((span * throughput.step) / 60);
  $("axis").firstChild.textContent = `${minutes} min ago`;
  const lines = up.length > 1 ? [...line("down", down, most, span), ...line("up", up, most, span)] : [];
  $("plot").replaceChildren(...grid, ...lines);
  $("peak").textContent = up.length > 1 ? rate(most) : "the first figures come in some seconds";
}

function show(state) {
  const now = performance.now();
  const after = new Map();
  $("count").textContent = String(state.sessions_open);
  $("up").textContent = rate(state.up_rate);
  $("down").textContent = rate(state.down_rate);
  $("moved").textContent = bytes(state.up + state.down);
  const wrong = state.draining ? "ending, sessions may finish" : state.store_answers ? "" : "the store does not answer, nobody can log in";
  $("lamp").className = `lamp ${state.draining ? "warn" : state.store_answers ? "good" : "bad"}`;
  $("state").textContent = [wrong, `version ${state.version}`, `up ${time(state.uptime)}`].filter(Boolean).join(" · ");
  plot(state.throughput);
  const sessions = state.sessions.map((one) => session(one, now, after));
  $("sessions").replaceChildren(...(sessions.length ? sessions : [el("p", "empty", "Nobody is connected.")]));
  $("more").textContent = state.sessions_open > sessions.length ? `${state.sessions_open - sessions.length} more sessions move less.` : "";
  list("upstreams", state.upstreams.map(upstream), "No session has asked for one yet.");
  list("refusals", state.refusals.map(refusal), "Nobody and nothing.");
  before = after;
}

let missed = 0;

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/state.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(await answer.json());
      missed = 0;
    } catch (error) {
      missed += 1;
      $("lamp").className = "lamp bad";
      $("state").textContent = `the router does not answer (${missed}): ${error.message}`;
    }
  }
  setTimeout(look, EVERY);
}

look();
