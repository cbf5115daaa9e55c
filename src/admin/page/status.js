"use strict";
// Polls the status each second; agent sessions only while their list is open.

const tones = {
  leader: "good", "leader-single-node": "warn", follower: "good", joining: "warn",
  draining: "warn", disabled: "bad", connected: "good", up: "good", alive: "good",
  dialling: "warn", blocked: "warn", unknown: "warn", suspect: "warn", left: "warn",
  down: "bad", lost: "bad", "auth-failed": "bad",
};
const SHOWN = 200;

const byId = (id) => document.getElementById(id);

function cell(name, value) {
  const element = document.createElement(name);
  if (value && value.state !== undefined) {
    element.textContent = value.state;
    element.className = tones[value.state] || "";
  } else {
    element.textContent = value === null || value === undefined ? "–" : String(value);
  }
  return element;
}

function row(values, name) {
  const line = document.createElement("tr");
  for (const value of values) {
    const element = cell(name, value);
    if (name === "th") element.scope = "col";
    line.append(element);
  }
  return line;
}

function table(id, heads, rows) {
  const place = byId(id);
  if (rows.length === 0) {
    const none = cell("p", "none");
    none.className = "empty";
    place.replaceChildren(none);
    return;
  }
  const all = document.createElement("table");
  const head = document.createElement("thead");
  const body = document.createElement("tbody");
  head.append(row(heads, "th"));
  body.append(...rows.map((values) => row(values, "td")));
  all.append(head, body);
  place.replaceChildren(all);
}

function counts(pairs) {
  byId("counts").replaceChildren(...pairs.map(([name, value]) => {
    const box = document.createElement("div");
    box.append(cell("dt", name), cell("dd", value));
    return box;
  }));
}

function show(view) {
  document.title = `${view.instance} · tandem`;
  byId("instance").textContent = view.instance;
  byId("about").textContent = `${view.site} · ${view.cluster} · ${view.mode} · ${view.version}`;
  byId("warnings").replaceChildren(...view.warnings.map((text) => cell("li", text)));
  counts([
    ["in work", view.inflight], ["waiting to publish", view.outbox],
    ["sessions", view.sessions.total], ["owned here", view.sessions.owned],
    ["subscribed", view.sessions.subscribed],
  ]);
  table("groups", ["group", "role", "queue", "broker", "priority", "term", "consumer tag"],
    view.groups.map((g) => [g.name, { state: g.role }, g.queue, g.broker, g.priority, g.term, g.tag]));
  table("peers", ["peer", "site", "state", "role", "last heard", "round trip", "owned", "broker"],
    view.peers.map((p) => [p.instance, p.site, { state: p.state },
      p.groups.map((g) => `${g.name} ${g.role}`).join(", "), `${p.lastSeenMs} ms`,
      p.rttMs === null ? null : `${p.rttMs} ms`, p.owned, p.broker]));
  table("brokers", ["broker", "state", "serves", "preferred"],
    view.brokers.map((b) => [b.url, { state: b.state }, b.attached ? "yes" : "", b.preferred ? "yes" : ""]));
  table("downstreams", ["downstream", "state", "current", "reason"],
    view.downstreams.map((d) => [d.url, { state: d.state }, d.current ? "yes" : "", d.reason || ""]));
}

function showHistory(entries) {
  table("history", ["time", "what", "which", "from", "to", "why"],
    entries.slice(0, 15).map((e) => [e.at, e.kind, e.subject, e.from, e.to, e.reason]));
}

function showSessions(sessions) {
  table("sessions", ["agent", "owner", "state", "extension", "destination", "subscribed", "epoch"],
    sessions.slice(0, SHOWN).map((s) => [s.agent, s.owner, s.state, s.extension, s.destination,
      s.subscribed ? "yes" : "no", s.epoch]));
  if (sessions.length > SHOWN) {
    byId("sessions").append(cell("p", `${sessions.length - SHOWN} more are not shown`));
  }
}

async function read(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(4000) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function say(text, lost) {
  const live = byId("live");
  if (live.textContent !== text) live.textContent = text;
  live.className = lost ? "lost" : "";
}

async function tick() {
  try {
    show(await read("/api/v1/status"));
    showHistory(await read("/api/v1/history"));
    say("live", false);
  } catch {
    say("no answer: what is shown is old", true);
  }
  setTimeout(tick, 1000);
}

async function agents() {
  if (byId("agents").open) {
    try {
      showSessions(await read("/api/v1/sessions"));
    } catch (error) {
      byId("sessions").replaceChildren(cell("p", error.message));
    }
  }
  setTimeout(agents, 3000);
}

tick();
agents();
