"use strict";
// One stream of events paints everything but the agent sessions, which are asked for by the page.

const tones = {
  leader: "good", "leader-single-node": "warn", follower: "good", joining: "warn",
  draining: "warn", disabled: "bad", connected: "good", up: "good", alive: "good",
  dialling: "warn", blocked: "warn", unfit: "warn", unknown: "warn", suspect: "warn", left: "warn",
  down: "bad", lost: "bad", "auth-failed": "bad",
  posting: "good", failing: "bad", leaving: "warn",
};
const PAGE = 50;
const CHANGES = 100;
const POSTS = 50;
const QUIET_MS = 3000;
const leads = (role) => role === "leader" || role === "leader-single-node";
const byId = (id) => document.getElementById(id);

// ---- small parts -------------------------------------------------------------------------------

function cell(name, value) {
  const element = document.createElement(name);
  if (value instanceof Node) {
    element.append(value);
  } else if (value && value.state !== undefined) {
    element.textContent = value.state;
    element.className = tones[value.state] || "";
    explain(element, value.state);
  } else if (value && value.href !== undefined) {
    element.append(link(value.href, value.text));
  } else {
    const none = value === null || value === undefined || value === "";
    element.textContent = none ? "–" : String(value);
    if (none) element.classList.add("none");
  }
  return element;
}

// Only to pages: what a peer tells is no script.
function link(href, text) {
  if (!/^https?:\/\//.test(href || "")) return document.createTextNode(text);
  const element = document.createElement("a");
  element.href = href;
  element.rel = "noreferrer";
  element.textContent = text;
  return element;
}

function row(values, name, heads) {
  const line = document.createElement("tr");
  values.forEach((value, i) => {
    const element = cell(name, value);
    if (name === "th") {
      element.scope = "col";
      if (value === "why") element.replaceChildren(link(`${location.origin}/#words`, "why"));
    } else {
      element.dataset.label = heads[i];
    }
    line.append(element);
  });
  return line;
}

// ---- words -------------------------------------------------------------------------------------

const meanings = new Map();
function explain(element, word) {
  const meaning = meanings.get(word);
  if (meaning) {
    element.title = `${word}: ${meaning}`;
    element.classList.add("told");
  }
}

async function learnWords() {
  const answer = await fetch("/glossary.json");
  const words = await answer.json();
  for (const { word, means } of words) if (!meanings.has(word)) meanings.set(word, means);
  byId("glossary").replaceChildren(...words.flatMap(({ word, means }) => [cell("dt", word), cell("dd", means)]));
  painted.clear();
}

// "why", with who gave a verb and how often something was told.
function because({ reason, address, token, count, last }) {
  const parts = [reason];
  if (address) parts.push(`(${token || "no token"}, from ${address})`);
  if (count > 1) parts.push(`(${count} times, last ${last.slice(0, 19)}Z)`);
  const text = parts.filter(Boolean).join(" ");
  if (!text) return null;
  const part = document.createElement("span");
  part.textContent = text;
  explain(part, reason);
  return part;
}

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

// Only what differs is painted anew: focus and selection stay.
const painted = new Map();
function changed(id, value) {
  const text = JSON.stringify(value);
  if (painted.get(id) === text) return false;
  painted.set(id, text);
  return true;
}

function table(id, heads, rows, make) {
  if (!changed(id, [rows])) return;
  const place = byId(id);
  if (rows.length === 0) {
    const none = cell("p", "none");
    none.className = "empty";
    place.replaceChildren(none);
    return;
  }
  const all = document.createElement("table");
  const label = document.querySelector(`section:has(#${id}) h2`);
  if (label) all.setAttribute("aria-labelledby", label.id);
  const head = document.createElement("thead");
  const body = document.createElement("tbody");
  head.append(row(heads, "th"));
  body.append(...rows.map((values) => row(make ? make(values) : values, "td", heads)));
  all.append(head, body);
  place.replaceChildren(all);
}

function list(id, texts, tone) {
  if (!changed(id, texts)) return;
  byId(id).replaceChildren(...texts.map((text) => {
    const item = cell("li", text);
    if (tone) item.className = tone(text);
    return item;
  }));
}

// ---- figures -----------------------------------------------------------------------------------

function chart(id, values, unit) {
  const top = Math.max(1, ...values);
  const points = values.map((v, i) => `${(240 - (values.length - i) * 2).toFixed(1)},${(58 - (v / top) * 54).toFixed(1)}`);
  byId(id).replaceChildren(draw("path", { d: points.length ? `M${points.join(" L")}` : "" }));
  byId(`${id}-top`).textContent = Math.max(0, ...values);
  byId(id).setAttribute("aria-label", `${values.at(-1) ?? 0} ${unit} now, at most ${Math.max(0, ...values)} in two minutes`);
}

function figures(view, pulse) {
  const now = pulse.at(-1) || {};
  const ms = (value) => (value === null || value === undefined ? "–" : `${value} ms`);
  const pairs = [
    ["commands/s", now.done ?? 0], ["not done/s", now.notDone ?? 0], ["half within", ms(now.p50Ms)],
    ["99 of 100 within", ms(now.p99Ms)], ["in work", view.inflight], ["waiting to publish", view.outbox],
    ["sessions", view.sessions.total], ["owned here", view.sessions.owned], ["subscribed", view.sessions.subscribed],
  ];
  byId("counts").replaceChildren(...pairs.map(([name, value]) => {
    const part = document.createElement("div");
    part.append(cell("dt", name), cell("dd", value));
    return part;
  }));
  chart("rate", pulse.map((p) => p.done), "commands a second");
  chart("p99", pulse.map((p) => p.p99Ms ?? 0), "milliseconds");
}

// ---- everything --------------------------------------------------------------------------------

function verb(name, text, target) {
  const button = cell("button", text);
  button.type = "button";
  button.dataset.verb = name;
  if (target) button.dataset.group = target.group;
  if (target && target.to) button.dataset.to = target.to;
  return button;
}

function groupActions(g, peers) {
  const part = document.createDocumentFragment();
  part.append(verb(g.role === "disabled" ? "start" : "stop", g.role === "disabled" ? "Start…" : "Stop…", { group: g.name }));
  for (const to of peers) part.append(verb("switchover", `Switch over to ${to}…`, { group: g.name, to }));
  part.append(verb("failover-start", "Lead here…", { group: g.name }));
  part.append(verb("failover-auto", "Leave it to priority…", { group: g.name }));
  const stop = verb("failover-stop", "Stop failover…", { group: g.name });
  stop.className = "danger";
  part.append(stop);
  return part;
}

function show({ now, status: view, pulse, history, network, needsToken }) {
  learnAliases(view, network);
  const all = members(view);
  const [tone, sentence] = verdict(view, all, network);
  peers = all.filter((m) => !m.self && m.page).map((m) => [m.id, m.page]);
  own = view.instance;
  document.title = `${tone === "good" ? "" : "⚠ "}${view.instance} · tandem`;
  if (changed("instance", [view.instance, view.groups.map((g) => g.role)])) {
    const worst = view.groups.map((g) => g.role).sort((a, b) => (tones[a] === "good") - (tones[b] === "good"))[0];
    const badge = cell("span", { state: view.groups.every((g) => g.role === worst) ? worst : "several roles" });
    badge.classList.remove("told");
    byId("instance").replaceChildren(view.instance, ...(worst ? [badge] : []));
  }
  if (changed("verdict", [tone, sentence])) {
    byId("verdict").className = tone;
    byId("verdict").textContent = sentence;
  }
  byId("about").textContent = `${view.site} · cluster ${view.cluster} · ${view.mode} · version ${view.version} · up for ${span(now - view.started)}`;
  list("warnings", view.warnings);
  list("flow", flows(view, all), (text) => (text.includes("nobody") ? "none" : ""));
  pairMap(view, all, network);
  figures(view, pulse);
  table("members", ["instance", "site", "state", "roles", "serves on", "owns", "in work", "commands done", "heard", "round trip", "version", "up for"],
    all.map((m) => [m.self ? `${m.id} (this one)` : { href: m.page || "", text: m.id }, m.site, { state: m.state },
      `${present(m) ? "" : "was "}${roles(m)}`, m.broker,
      present(m) ? m.owned : null, present(m) ? m.inflight : null, m.finished,
      m.heard, m.rtt === null ? null : `${m.rtt} ms`, m.version, present(m) && m.started ? span(now - m.started) : null]));
  const others = all.filter((m) => !m.self && m.state === "alive").map((m) => m.id);
  table("groups", ["group", "role", "queue", "broker", "priority", "term", "consumer tag", "why", "actions"],
    view.groups.map((g) => [g.name, g.role, g.queue, g.broker, g.priority, g.term, g.tag, g.reason, others]),
    ([name, role, queue, broker, priority, term, tag, why, to]) =>
      [name, { state: role }, queue, broker, priority, term, tag, why, groupActions({ name, role }, to)]);
  const proofs = network.brokers || [];
  table("brokers", ["broker", "state here", "queued", "dead letters", "serves here", "preferred", "problem", "consumers in its list", "federation links"],
    view.brokers.map((b) => {
      const p = proofs.find((proof) => proof.broker === b.url);
      const links = !p ? "not asked yet" : p.problem ? p.problem : [`${p.linksRunning} of ${p.linksPlanned} run`, ...p.linksDown].join("; ");
      const consumers = p ? p.consumers.map((c) => `${c.tag} (${c.priority})`).join(", ") : "";
      return [{ href: (p || {}).page || "", text: b.url }, { state: b.state }, p ? p.queued : null, p ? p.deadLetters : null, b.attached ? "yes" : "", b.preferred ? "yes" : "", b.problem || "", consumers, links];
    }));
  table("downstreams", ["downstream", "state here", "current here", "reason"],
    view.downstreams.map((d) => [d.url, { state: d.state }, d.current ? "yes" : "", d.reason]));
  posts(view.callbacks);
  table("history", ["time (UTC)", "what", "which", "from", "to", "why"],
    history.slice(0, CHANGES).map((e) => [e, meanings.size]),
    ([e]) => [moment(e.at), e.kind, e.subject, e.from, { state: e.to }, because(e)]);
  tokenNeeded = needsToken;
  owners(all.map((m) => m.id));
}

// Those that are not taken first, then the oldest; where nobody has events posted there is no section.
function posts(rows) {
  byId("callbacks").closest("section").hidden = !rows;
  const worst = [...(rows || [])].sort((a, b) => (b.state === "failing") - (a.state === "failing") || b.oldestMs - a.oldestMs);
  table("callbacks", ["destination", "state", "to", "broker", "waiting", "oldest", "posted", "tries that failed", "dropped", "last error"],
    worst.slice(0, POSTS).map((c) => [c.destination, { state: c.state }, c.to, c.broker, c.waiting,
      c.oldestMs ? span(c.oldestMs) : null, c.posted, c.failed, c.dropped, c.lastError]));
}

function moment(at) {
  const time = document.createElement("time");
  // Where there is little room the time of day stands below the day.
  time.append(at.slice(0, 11), document.createElement("wbr"), `${at.slice(11, 19)}Z`);
  time.dateTime = at;
  time.title = at;
  return time;
}

function say(text, lost) {
  const live = byId("live");
  if (live.textContent !== text) live.textContent = text;
  live.className = lost ? "lost" : "";
}

// ---- verbs -------------------------------------------------------------------------------------

let tokenNeeded = false;
let token = "";
const words = {
  stop: (d) => ["Stop group", `Group ${d.group} stops on this instance. Where it leads, another instance takes over.`, `groups/${d.group}/stop`],
  start: (d) => ["Start group", `Group ${d.group} starts on this instance again.`, `groups/${d.group}/start`],
  "failover-stop": (d) => ["Stop failover", `Group ${d.group} stops here and NOBODY takes its sessions over, until failover is started.`, `failover/${d.group}/stop`],
  "failover-start": (d) => ["Lead here", `This instance becomes the leader of group ${d.group} and stays it, whatever the priorities.`, `failover/${d.group}/start`],
  "failover-auto": (d) => ["Leave it to priority", `What an operator chose for group ${d.group} ends: priority decides again, and failover is on.`, `failover/${d.group}/auto`],
  switchover: (d) => ["Switch over", `What leads now finishes what is started, then ${d.to} leads. Nothing is lost.`, `switchover?to=${encodeURIComponent(d.to)}`],
  drain: () => ["Drain", "This instance finishes what is started, hands over its sessions and stops consuming. It stays up.", "drain"],
};
let pending = null;

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-verb]");
  if (!button) return;
  const [title, text, path] = words[button.dataset.verb](button.dataset);
  pending = { path, title };
  byId("ask-title").textContent = `${title} on ${byId("instance").firstChild.textContent}?`;
  byId("ask-text").textContent = text;
  byId("yes").textContent = title;
  byId("ask-token").hidden = !tokenNeeded;
  byId("token").value = token;
  byId("reason").value = "";
  byId("ask").showModal();
  byId(tokenNeeded ? "token" : "no").focus();
});
byId("no").addEventListener("click", () => byId("ask").close());
byId("ask-form").addEventListener("submit", () => act(pending));

async function act({ path, title }) {
  token = byId("token").value;
  const headers = tokenNeeded && token ? { authorization: `Bearer ${token}` } : {};
  const said = byId("said");
  said.className = "";
  said.textContent = `${title}: asked`;
  const reason = byId("reason").value.trim();
  const why = reason ? `${path.includes("?") ? "&" : "?"}reason=${encodeURIComponent(reason)}` : "";
  try {
    const answer = await fetch(`/api/v1/${path}${why}`, { method: "POST", headers, signal: AbortSignal.timeout(10000) });
    const body = await answer.json();
    if (answer.status === 401) token = "";
    else if (waiting) listen();
    said.className = answer.ok ? "" : "bad";
    said.textContent = answer.ok ? `${title}: ${body.state ?? "done"}` : `${title} refused (${answer.status}): ${body.error}`;
  } catch (error) {
    said.className = "bad";
    said.textContent = `${title}: no answer (${error.message}); look at the changes before you repeat it`;
  }
}

// ---- sessions ----------------------------------------------------------------------------------

let offset = 0;
let total = 0;
let asking = 0;

function owners(ids) {
  if (!changed("owner", ids)) return;
  const select = byId("owner");
  const chosen = select.value;
  select.replaceChildren(new Option("any", ""), ...ids.map((id) => new Option(id, id)));
  select.value = ids.includes(chosen) ? chosen : "";
}

async function sessions() {
  const mine = ++asking;
  const query = new URLSearchParams({ q: byId("q").value, owner: byId("owner").value, offset, limit: PAGE });
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch(`/api/v1/sessions?${query}`, { headers, signal: AbortSignal.timeout(6000) });
    const body = await answer.json();
    // A later question has been asked meanwhile.
    if (mine !== asking) return;
    if (!answer.ok) throw new Error(answer.status === 401 ? "agents are shown with a token only: use any button once" : body.error);
    total = Number(answer.headers.get("x-total-count") ?? body.length);
    table("sessions", ["agent", "owner", "state", "extension", "destination", "subscribed here", "epoch"],
      body.map((s) => [s.agent, s.owner, s.state, s.extension, s.destination, s.subscribed ? "yes" : "no", s.epoch]));
    range(body.length ? `${offset + 1}–${offset + body.length} of ${total}` : `none of ${total}`);
    if (!body.length && offset > 0) turn(-PAGE);
  } catch (error) {
    if (mine === asking) range(error.message);
  }
  byId("prev").disabled = offset === 0;
  byId("next").disabled = offset + PAGE >= total;
}

function range(text) {
  if (byId("range").textContent !== text) byId("range").textContent = text;
}

function turn(by) {
  offset = Math.max(0, offset + by);
  sessions();
}

let typed;
function anew() {
  offset = 0;
  clearTimeout(typed);
  typed = setTimeout(sessions, 150);
}
byId("q").addEventListener("input", anew);
byId("owner").addEventListener("change", anew);
byId("prev").addEventListener("click", () => turn(-PAGE));
byId("next").addEventListener("click", () => turn(PAGE));
byId("find").addEventListener("submit", (event) => { event.preventDefault(); anew(); });

// ---- the stream --------------------------------------------------------------------------------

let heard = performance.now();
let heardAt = new Date();
let own = location.host;
let peers = [];
let stream = null;
let tried = 0;
let waiting = false;

// Not by EventSource, which cannot send a token. One stream at a time.
async function listen() {
  tried = performance.now();
  if (stream) stream.abort();
  const mine = stream = new AbortController();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch("/api/v1/events", { headers, signal: mine.signal });
    waiting = answer.status === 401;
    byId("enter").hidden = !waiting;
    if (waiting) {
      if (token) say("that is not a token of this instance", true);
      else say("a token is needed to see this instance", true);
      token = "";
      return;
    }
    if (answer.ok) await receive(answer.body.getReader());
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  if (stream !== mine) return;
  stream = null;
  // It ended in order: at once again, but not in a loop.
  if (performance.now() - tried > 1000) listen();
}

async function receive(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data:")) continue;
      heard = performance.now();
      heardAt = new Date();
      contact(false);
      show(JSON.parse(part.slice(5)));
      say("live", false);
    }
  }
}

// Without contact nothing here may look as if it were so now.
let without = false;
function contact(lost) {
  if (lost !== without) {
    without = lost;
    document.body.classList.toggle("lost", lost);
    byId("contact").hidden = !lost;
    byId("ask").close();
    // Painted anew, with buttons that can be used.
    painted.clear();
    const known = byId("verdict").textContent;
    if (lost && known) byId("verdict").textContent = `At ${heardAt.toISOString().slice(11, 19)} UTC it was: ${known}`;
    for (const button of document.querySelectorAll("button[data-verb]")) button.disabled = lost;
  }
  if (!lost) return;
  const since = heardAt.toISOString().slice(11, 19);
  document.title = `✖ ${own} not reached since ${since} UTC`;
  const parts = [`${own} not reached since ${since} UTC, ${span(new Date() - heardAt)} ago. What is shown below is old.`];
  for (const [id, page] of peers) parts.push(" ", link(page, `See ${id}'s page`));
  if (changed("contact", [since, Math.floor((new Date() - heardAt) / 5000), peers])) byId("contact").replaceChildren(...parts);
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("enter-token").value;
  byId("enter-token").value = "";
  listen();
  sessions();
});

setInterval(() => {
  if (waiting) return;
  if (performance.now() - heard > QUIET_MS) {
    say("no answer: what is shown is old", true);
    contact(true);
    if (!stream || performance.now() - tried > 2 * QUIET_MS) listen();
  }
}, 1000);
setInterval(() => { if (!document.hidden && !without) sessions(); }, 3000);
// The drawing has another form then, also out of contact.
slim.addEventListener("change", () => { if (drawn) pairMap(...drawn); });
function openWords() {
  if (location.hash === "#words") byId("words").open = true;
}
addEventListener("hashchange", openWords);
openWords();
learnWords().catch(() => {});
listen();
sessions();
