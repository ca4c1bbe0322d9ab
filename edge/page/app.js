// Asks the worker once a second how it is, and draws the answer. Text from outside only ever goes in as text.

import { ago, bytes, count, headline, ms, rate, span, sum } from "./format.js";
import { drawLarge, list, openCamera, openVisit } from "./large.js";
import { show } from "./pictures.js";
import { drawTruth, drawVerdict, icon, put, spoken } from "./verdict.js";

const EVERY_MS = 1000;
const HIDDEN_MS = 5000;
const SILENT_S = 5;
const $ = (id) => document.getElementById(id);
const tiles = new Map();
const inView = new IntersectionObserver(seen, { rootMargin: "200px" });
const started = performance.now();
let answer = null; // the last answer
let answered = null; // when it came, on the page's own clock
let timer = 0;

async function ask() {
  clearTimeout(timer);
  try {
    const response = await fetch("api/status", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (response.ok) {
      answer = await response.json();
      answered = performance.now();
      draw();
    }
  } catch {
    // Silence is what tick() tells of.
  }
  tick();
  timer = setTimeout(ask, document.hidden ? HIDDEN_MS : EVERY_MS);
}

function draw() {
  drawHeader();
  drawFigures();
  drawTiles();
  drawPositives();
  drawEngineer();
  drawLarge(answer);
}

function drawHeader() {
  const { state, broker, worker } = answer;
  put($("worker"), worker);
  const word = !state.live ? "Stuck" : state.ready ? "Ready" : { ready: "Not ready", "not-ready": "Not ready" }[state.name];
  const shown = word ?? state.name[0].toUpperCase() + state.name.slice(1);
  const tone = !state.live ? "error" : state.ready ? "ready" : state.name === "ready" ? "not-ready" : state.name;
  $("state").dataset.state = tone;
  icon($("state").querySelector("svg"), { ready: "positive", error: "error", "not-ready": "error" }[tone] ?? "uncertain");
  put($("state-word"), shown);
  put($("state-why"), sentence(state.live ? state.ready_reason : state.live_reason, shown));
  $("broker").dataset.connected = broker.connected;
  const where = broker.url ?? "broker";
  put($("broker-text"), broker.connected ? `${where}, connected for ${span(broker.since_s)}` : `${where}, not connected`);
  document.title = `${worker}: ${shown.toLowerCase()} – Parrotgate`;
}

// "ready: engines warm" beside the word "Ready" needs saying once; "ready" alone needs no saying at all.
function sentence(reason, word) {
  const start = reason.slice(0, word.length).toLowerCase() === word.toLowerCase();
  return start ? reason.slice(word.length).replace(/^[:,;. ]+/, "") : reason;
}

function drawFigures() {
  const { counters, latency_ms: latency, fps, cameras } = answer;
  const total = latency.total ?? {};
  put($("f-fps"), rate(fps));
  put($("f-latency"), total.count ? `${ms(total.p50)} / ${ms(total.p99)} ms` : "–");
  put($("f-positive"), count(counters.positive));
  put($("f-judged"), count(counters.positive + counters.negative + counters.uncertain + counters.error));
  put($("f-dropped"), count(counters.dropped));
  put($("f-error"), count(counters.error));
  $("f-error-box").dataset.tone = counters.error ? "error" : "";
  const right = cameras.reduce((n, row) => n + row.right, 0);
  const known = right + cameras.reduce((n, row) => n + row.wrong, 0);
  $("f-right-box").hidden = known === 0;
  if (known) put($("f-right"), `${((100 * right) / known).toFixed(1)} %`);
}

function drawTiles() {
  const rows = answer.cameras;
  $("empty").hidden = rows.length > 0;
  put($("cameras-count"), rows.length ? count(rows.length) : "");
  $("find-box").hidden = rows.length < 9;
  $("tiles").dataset.many = rows.length > 24 ? "many" : rows.length > 4 ? "some" : String(rows.length);
  const size = rows.find((row) => row.last?.image)?.last.image;
  if (size) $("tiles").style.setProperty("--aspect", Math.min(1.8, Math.max(1.2, size.width / size.height)));
  const here = new Set(rows.map((row) => row.camera));
  for (const [camera, tile] of tiles) if (!here.has(camera)) forget(camera, tile);
  rows.forEach((row, i) => drawTile(tiles.get(row.camera) ?? addTile(row.camera, i), row));
}

function addTile(camera, place) {
  const item = $("tile").content.cloneNode(true).firstElementChild;
  const button = item.firstElementChild;
  button.dataset.camera = camera;
  put(button.querySelector(".name"), camera);
  button.addEventListener("click", () => {
    openCamera(camera, button);
    drawLarge(answer);
  });
  $("tiles").insertBefore(item, $("tiles").children[place] ?? null);
  inView.observe(item);
  const tile = { item, button, row: null, visible: false };
  tiles.set(camera, tile);
  filter();
  return tile;
}

function forget(camera, tile) {
  inView.unobserve(tile.item);
  tile.item.remove();
  tiles.delete(camera);
}

function drawTile(tile, row) {
  tile.row = row;
  const { button } = tile;
  drawVerdict(button.querySelector(".verdict"), row.last, row.truth);
  const dropped = sum(row.dropped);
  const errors = row.verdicts.error;
  const parts = [`${count(row.received)} frame${row.received === 1 ? "" : "s"}`, `${count(row.verdicts.positive)} positive`];
  if (dropped) parts.push(`${count(dropped)} dropped`);
  if (errors) parts.push(`${count(errors)} error${errors === 1 ? "" : "s"}`);
  put(button.querySelector(".tally"), parts.map((part) => part.replace(" ", "\u00a0")).join(" · "));
  if (tile.visible) drawPicture(tile);
}

function drawPicture({ button, row }) {
  const address = `api/cameras/${encodeURIComponent(row.camera)}/frame?v=${row.picture}`;
  show(button.querySelector(".frame"), row.picture === null ? null : address);
}

function seen(entries) {
  for (const { target, isIntersecting } of entries) {
    const tile = tiles.get(target.firstElementChild.dataset.camera);
    if (!tile) continue;
    tile.visible = isIntersecting;
    if (isIntersecting && tile.row) drawPicture(tile);
  }
}

function drawPositives() {
  const visits = answer.positives;
  $("latest").hidden = visits.length === 0;
  const box = $("positives");
  const known = new Map([...box.children].map((item) => [item.dataset.key, item]));
  const keys = visits.map((visit) => `${visit.camera} ${visit.judged_at} ${visit.id}`);
  for (const [key, item] of known) if (!keys.includes(key)) item.remove();
  visits.forEach((visit, i) => {
    const item = known.get(keys[i]) ?? addVisit(visit, keys[i]);
    if (box.children[i] !== item) box.insertBefore(item, box.children[i] ?? null);
    item.visit = visit;
  });
}

function addVisit(visit, key) {
  const item = $("positive").content.cloneNode(true).firstElementChild;
  item.dataset.key = key;
  show(item.querySelector(".frame"), visit.picture === null ? null : `api/positives/${visit.picture}/frame`);
  const [name, latin] = headline(visit);
  put(item.querySelector("b"), name);
  put(item.querySelector("i"), latin);
  drawTruth(item.querySelector(".truth"), visit.truth?.right === false ? visit.truth : null);
  const button = item.firstElementChild;
  button.addEventListener("click", () => {
    openVisit(item.visit, button);
    drawLarge(answer);
  });
  return item;
}

function drawEngineer() {
  const { counters, models, latency_ms: latency } = answer;
  list($("models"), Object.entries(models).map(([role, facts]) => [role, aboutModel(facts)]));
  const body = $("stages");
  const stages = Object.entries(latency);
  while (body.rows.length > stages.length) body.deleteRow(-1);
  stages.forEach(([stage, one], i) => {
    const row = body.rows[i] ?? body.insertRow();
    [stage, ms(one.p50), ms(one.p99), count(one.count)].forEach((text, j) => put(row.cells[j] ?? row.insertCell(), text));
  });
  const reasons = (counts) => Object.entries(counts).map(([why, n]) => `${count(n)} ${why}`).join(", ") || "none";
  list($("counters"), [
    ["Received", `${count(counters.received)} frames, ${bytes(counters.received_bytes)}`],
    ["Published", `${count(counters.published)} verdicts confirmed, ${count(counters.acked)} frames acknowledged`],
    ["Refused by the broker", reasons(answer.publish_failures)],
    ["Dropped", reasons(answer.dropped)],
    ["Not taken as frames", reasons(answer.refused)],
    ["Dead letters", `${count(counters.deadletters)}${answer.last_deadletter ? `, last: ${answer.last_deadletter}` : ""}`],
    ["Waiting", `${count(answer.waiting.frames)} frames, ${bytes(answer.waiting.bytes)}, oldest ${answer.waiting.oldest_s.toFixed(1)} s`],
    ["Connections", count(answer.broker.connects)],
    ["Running for", span(answer.uptime_s)],
  ]);
}

function aboutModel({ name, sha256, origin, ...others }) {
  const more = Object.entries(others).filter(([, value]) => value !== null && typeof value !== "object");
  const lines = [[name, ...more.map(([key, value]) => `${key} ${value}`)].filter(Boolean).join(", ")];
  if (sha256) lines.push(`sha256 ${sha256}`);
  if (origin && origin !== sha256) lines.push(`origin ${origin}`);
  return lines.join("\n");
}

// Ages go on between answers, and silence is told.
function tick() {
  const silence = (performance.now() - (answered ?? started)) / 1000;
  const silent = silence >= SILENT_S;
  document.body.classList.toggle("is-silent", silent);
  $("silent").hidden = !silent;
  put($("silent-what"), silent ? "No answer from the worker" : "");
  if (silent) put($("silent-since"), `for ${span(silence)}${answer ? "; what you see is old." : "."}`);
  if (!answer) return;
  for (const { button, row } of tiles.values()) {
    const age = row.age_s === null ? null : row.age_s + silence;
    put(button.querySelector(".age"), age === null ? "" : ago(age));
    button.classList.toggle("quiet", age !== null && age > 15);
    button.setAttribute("aria-label", `${row.camera}: ${spoken(row.last, row.truth)}${age === null ? "" : `, ${ago(age)}`}`);
  }
  for (const item of $("positives").children) {
    put(item.querySelector(".when"), `${item.visit.camera}, ${ago(item.visit.age_s + silence)}`);
  }
}

function filter() {
  const wanted = $("find").value.trim().toLowerCase();
  for (const [camera, { item }] of tiles) item.hidden = !camera.toLowerCase().includes(wanted);
}

$("find").addEventListener("input", filter);
document.addEventListener("visibilitychange", () => document.hidden || ask());
setInterval(tick, 500);
ask();
