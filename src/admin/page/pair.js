"use strict";
// The pair as this instance sees it: in one sentence, in words, and as a drawing. Small parts are
// those of status.js.

// ---- the pair ----------------------------------------------------------------------------------

// A peer may call the same brokers otherwise. The broker that lists its consumer is the one it
// means; where one name is left on both sides, these two are the same as well.
const aliases = new Map();
function learnAliases(view, network) {
  const own = view.brokers.map((b) => b.url);
  for (const { standing } of view.peers) {
    const theirs = ((standing || {}).brokers || []).map((b) => b.url);
    const strange = theirs.filter((url) => !own.includes(url));
    for (const g of strange.length ? standing.groups || [] : []) {
      const at = (network.brokers || []).find((p) => p.consumers.some((c) => c.tag === g.tag));
      if (at && strange.includes(g.broker)) aliases.set(g.broker, at.broker);
    }
    const left = strange.filter((url) => !aliases.has(url));
    const meant = theirs.map((url) => aliases.get(url) ?? url);
    const free = own.filter((url) => !meant.includes(url));
    if (left.length === 1 && free.length === 1) aliases.set(left[0], free[0]);
  }
}
const called = (url) => aliases.get(url) ?? url;
const named = (list, key) => list.map((one) => ({ ...one, [key]: called(one[key]) }));

function members(view) {
  const own = {
    id: view.instance, site: view.site, state: "alive", self: true, owned: view.sessions.owned,
    broker: (view.brokers.find((b) => b.attached) || {}).url || "", version: view.version,
    groups: view.groups, brokers: view.brokers, downstreams: view.downstreams,
    inflight: view.inflight, subscribed: view.sessions.subscribed, finished: view.finished,
    inService: view.inService, heard: null, rtt: null, known: true, page: "", started: view.started,
  };
  const peers = view.peers.map((p) => {
    const s = p.standing || {};
    const full = (s.groups || []).length > 0;
    const groups = p.groups.map((g) => (s.groups || []).find((f) => f.name === g.name) || g);
    return {
      id: p.instance, site: p.site, state: p.state, self: false, owned: p.owned, broker: called(p.broker),
      version: p.version, groups: named(groups, "broker"), brokers: named(s.brokers || [], "url"), downstreams: s.downstreams || [],
      inflight: s.inflight, subscribed: s.subscribed, finished: s.finished,
      inService: s.inService, heard: `${p.lastSeenMs} ms ago`, rtt: p.rttMs, known: full,
      // A page of its own: one that has the own address would lead nowhere else.
      page: s.page && s.page !== view.page ? s.page : "", started: p.started,
    };
  });
  return [own, ...peers].sort((a, b) => (a.id < b.id ? -1 : 1));
}

const present = (m) => m.state === "alive" || m.state === "suspect";

function union(all, key) {
  const names = new Set();
  for (const member of all) for (const one of member[key]) names.add(one.host || one.url);
  if (key === "brokers") for (const m of all) if (m.broker) names.add(m.broker);
  return [...names].sort();
}

// Where commands flow, in words: the drawing says the same. Groups that take the same way share
// a line.
function flows(view, all) {
  const ways = new Map();
  for (const own of view.groups) {
    const at = serving(own.name, all);
    const way = at.length === 0 ? "nobody serves it now; commands wait in the brokers" : at.map(({ m, g }) => {
      const node = (m.downstreams.find((d) => d.current) || {}).host || "no downstream";
      return `${g.broker || m.broker || "no broker"} → ${m.id} (${g.role}) → ${node}`;
    }).join("; ");
    ways.set(way, [...(ways.get(way) || []), own.name]);
  }
  return [...ways].map(([way, names]) => `${names.join(", ")}: ${way}`);
}

function serving(group, all) {
  return all.filter(present).flatMap((m) => m.groups
    .filter((g) => g.name === group && leads(g.role)).map((g) => ({ m, g })));
}

// One sentence for who looks up for a second only.
function verdict(view, all, network) {
  const idle = view.groups.filter((own) => serving(own.name, all).length === 0).map((g) => g.name);
  const leading = all.filter((m) => present(m) && m.groups.some((g) => leads(g.role)));
  const cut = leading.filter((m) => m.inService === false);
  if (idle.length) return ["bad", `No service: nobody serves ${idle.join(", ")}`];
  if (leading.length && cut.length === leading.length) return ["bad", "No service: no downstream can be used"];
  const worries = all.filter((m) => m.state !== "alive").map((m) => `${m.id} is ${m.state}`);
  for (const url of union(all, "brokers")) {
    const { tone, text } = brokerTone(url, all);
    if (tone !== "good") worries.push(`broker ${url}: ${text}`);
  }
  for (const url of union(all, "downstreams")) {
    const { tone, text } = nodeTone(url, all);
    if (tone !== "good") worries.push(`downstream ${url}: ${text}`);
  }
  const asked = (network.brokers || []).filter((p) => !p.problem);
  const down = asked.reduce((sum, p) => sum + p.linksPlanned - p.linksRunning, 0);
  if (down) worries.push(`${down} federation links do not run`);
  if (all.length === 1) worries.push("no other instance is known: nobody can take over");
  for (const g of view.groups) if (["disabled", "draining", "joining"].includes(g.role)) worries.push(`${g.name} is ${g.role} here`);
  const who = leading.map((m) => m.id).join(" and ") || "nobody";
  const serve = leading.length > 1 ? "serve" : "serves";
  if (worries.length) return ["warn", `${who} ${serve}, but: ${worries.join("; ")}`];
  if (view.warnings.length) return ["warn", `${who} ${serve}, with warnings`];
  const ready = all.filter((m) => present(m) && !leading.includes(m)).map((m) => m.id);
  return ["good", ready.length ? `All is well: ${who} ${serve}, ${ready.join(" and ")} can take over` : `All is well: ${who} ${serve}`];
}

// All groups of an instance in a few words.
function roles(m) {
  if (m.groups.length < 3) return m.groups.map((g) => `${g.name} ${g.role}`).join(", ") || "no group";
  const by = new Map();
  for (const g of m.groups) by.set(g.role, [...(by.get(g.role) || []), g.name]);
  return [...by].map(([role, names]) => `${role}: ${names.length === m.groups.length ? `all ${names.length} groups` : names.join(", ")}`).join(" · ");
}

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const BOX = { width: 230, height: 84 };
// On a narrow screen boxes stand two in a row, and the row's name above them.
const slim = matchMedia("(max-width: 640px)");
// Widths of the three rows' letters, pixels: what does not fit is cut, and told when pointed at.
const LETTER = { name: 7.6, small: 6.3, other: 7.1 };
const ROWS = { brokers: 24, instances: 158, nodes: 296 };

function places(names, y) {
  if (slim.matches) {
    return new Map(names.map((name, i) => [name, {
      x: names.length === 1 ? 190 : 95 + 190 * (i % 2), y: y + (BOX.height + 12) * Math.floor(i / 2),
    }]));
  }
  const step = 800 / Math.max(names.length, 1);
  BOX.width = Math.min(BOX.width, step - 14);
  return new Map(names.map((name, i) => [name, { x: 90 + step * (i + 0.5), y }]));
}

// The tops of the three rows, by how many boxes each has; and the height of all.
function tops(counts) {
  if (!slim.matches) return [[ROWS.brokers, ROWS.instances, ROWS.nodes], 400];
  const all = [];
  let y = 24;
  for (const count of counts) {
    all.push(y);
    y += Math.max(1, Math.ceil(count / 2)) * (BOX.height + 12) + 56;
  }
  return [all, y - 56];
}

function box(at, tone, lines, led, href) {
  const there = /^https?:\/\//.test(href || "");
  const group = draw(there ? "a" : "g", there ? { href, rel: "noreferrer" } : {});
  group.append(draw("title", {}, lines.map(([text]) => text).filter(Boolean).join("\n")));
  group.append(draw("rect", {
    class: `box ${tone}${led ? " leads" : ""}`, rx: 8, x: at.x - BOX.width / 2, y: at.y,
    width: BOX.width, height: BOX.height,
  }));
  lines.forEach(([text, kind], i) => {
    const most = Math.floor((BOX.width - 12) / (LETTER[kind] || LETTER.other));
    const cut = text.length > most ? `${text.slice(0, most - 1)}…` : text;
    group.append(draw("text", { class: kind, x: at.x, y: at.y + 21 + i * 17, "text-anchor": "middle" }, cut));
  });
  return group;
}

const curve = (a, b) => `M${a.x},${a.y} C${a.x},${(a.y + b.y) / 2} ${b.x},${(a.y + b.y) / 2} ${b.x},${b.y}`;

function brokerTone(url, all) {
  const words = all.filter(present).flatMap((m) => m.brokers.filter((b) => b.url === url)
    .map((b) => ({ who: m.id, state: b.state })));
  const bad = words.filter((w) => tones[w.state] !== "good");
  const tone = bad.length === 0 ? "good" : bad.length < words.length ? "warn" : "bad";
  const text = bad.length === 0 ? "connected" : bad.map((w) => `${w.who}: ${w.state}`).join(", ");
  return { tone: words.length ? tone : "warn", text: words.length ? text : "unknown" };
}

function nodeTone(url, all) {
  const words = all.filter(present).flatMap((m) => m.downstreams.filter((d) => d.host === url)
    .map((d) => ({ who: m.id, state: d.state })));
  const bad = words.filter((w) => w.state !== "up");
  const tone = bad.length === 0 ? "good" : bad.length < words.length ? "warn" : "bad";
  const text = bad.length === 0 ? "up" : bad.map((w) => `${w.who}: ${w.state}`).join(", ");
  return { tone: words.length ? tone : "warn", text: words.length ? text : "unknown" };
}

// The list of a broker that nobody reaches is an old one.
function fresh(all, network) {
  const reached = (url) => all.some((m) => present(m) && m.brokers.some((b) => b.url === url && tones[b.state] === "good"));
  return { brokers: (network.brokers || []).filter((p) => reached(p.broker)) };
}

function federation(brokers, at, network, parts) {
  for (let i = 0; i + 1 < brokers.length; i += 1) {
    const [a, b] = [at.get(brokers[i]), at.get(brokers[i + 1])];
    const ends = (network.brokers || []).filter((p) => [brokers[i], brokers[i + 1]].includes(p.broker));
    const asked = ends.filter((p) => !p.problem);
    const running = asked.reduce((sum, p) => sum + p.linksRunning, 0);
    const planned = asked.reduce((sum, p) => sum + p.linksPlanned, 0);
    const whole = asked.length === 2 && running === planned;
    const text = asked.length === 0 ? "federation: not known" : `federation ${running} of ${planned} links`;
    const kind = asked.length === 0 ? "spare" : whole ? "link" : "down";
    const y = a.y + 25;
    const tone = kind === "down" ? "small bad" : "small";
    if (slim.matches) {
      if (a.y === b.y) parts.push(draw("path", { class: kind, d: `M${a.x + BOX.width / 2},${y} H${b.x - BOX.width / 2}` }));
      if (i === 0) parts.push(draw("text", { class: tone, x: 374, y: a.y - 8, "text-anchor": "end" }, text));
      continue;
    }
    parts.push(draw("path", { class: kind, d: `M${a.x + BOX.width / 2},${y} H${b.x - BOX.width / 2}` }));
    parts.push(draw("text", { class: tone, x: (a.x + b.x) / 2, y: y - 8, "text-anchor": "middle" }, text));
  }
}

let drawn = null;
function pairMap(view, all, told) {
  drawn = [view, all, told];
  const network = fresh(all, told);
  const brokers = union(all, "brokers");
  const nodes = union(all, "downstreams");
  const facts = all.map((m) => [m.id, m.site, m.state, m.broker, m.owned, m.inflight, m.brokers, m.downstreams,
    m.groups.map((g) => [g.name, g.role, g.priority])]);
  if (!changed("map", [facts, network.brokers, slim.matches, meanings.size])) return;
  BOX.width = slim.matches ? 176 : 230;
  const [rows, height] = tops([brokers.length, all.length, nodes.length]);
  byId("map").setAttribute("viewBox", slim.matches ? `0 0 380 ${height}` : "0 0 900 400");
  const b = places(brokers, rows[0]);
  const s = places(all.map((m) => m.id), rows[1]);
  const n = places(nodes, rows[2]);
  const lines = [];
  const boxes = [];
  ["brokers", "instances", "downstream"].forEach((text, i) => {
    const at = slim.matches ? { x: 7, y: rows[i] - 8 } : { x: 8, y: rows[i] + 40 };
    boxes.push(draw("text", { class: "row", ...at }, text));
  });
  federation(brokers, b, network, lines);
  for (const m of all) {
    const from = s.get(m.id);
    const led = m.groups.filter((g) => leads(g.role));
    for (const broker of present(m) ? m.brokers : []) {
      const kind = broker.attached ? (led.length ? "flow" : "line") : tones[broker.state] === "good" ? "spare" : "down";
      const to = b.get(broker.url);
      // Commands run down from the broker.
      lines.push(draw("path", { class: kind, d: curve({ x: to.x, y: to.y + BOX.height }, from) }));
    }
    for (const node of present(m) ? m.downstreams : []) {
      const kind = node.current ? (led.length ? "flow" : "line") : node.state === "up" ? "spare" : "down";
      const to = n.get(node.host);
      lines.push(draw("path", { class: kind, d: curve({ x: from.x, y: from.y + BOX.height }, to) }));
    }
    const here = m.self ? " (this one)" : "";
    const roleTones = m.groups.map((g) => tones[g.role]);
    const tone = m.state !== "alive" ? tones[m.state] : ["bad", "warn"].find((t) => roleTones.includes(t)) || "good";
    const state = m.state === "alive" ? roles(m) : m.state;
    boxes.push(box(from, tone, [[`${m.id}${here}`, "name"], [m.site, "small"], [state, tone],
      [present(m) ? `owns ${m.owned} · in work ${m.inflight ?? "?"}` : `owned ${m.owned}`, "small"]], present(m) && led.length > 0, m.page));
  }
  for (const url of brokers) {
    const { tone, text } = brokerTone(url, all);
    const proof = (network.brokers || []).find((p) => p.broker === url);
    const known = proof && !proof.problem;
    const listed = known ? `${proof.consumers.length} command consumers` : "";
    const deep = known ? `${proof.queued ?? "?"} queued · ${proof.deadLetters ?? "?"} dead letters` : "";
    boxes.push(box(b.get(url), tone, [[url, "name"], [text, tone], [listed, "small"],
      [deep, proof && proof.deadLetters ? "small warn" : "small"]], false, (proof || {}).page));
  }
  for (const url of nodes) {
    const { tone, text } = nodeTone(url, all);
    boxes.push(box(n.get(url), tone, [[url, "name"], [text, tone]]));
  }
  byId("map").replaceChildren(...lines, ...boxes);
}
