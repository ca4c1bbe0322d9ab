// The large view of one camera or of one positive; Esc closes it, the arrows walk through the cameras.

import { ago, chance, clock, count, ms, sum } from "./format.js";
import { show } from "./pictures.js";
import { drawVerdict, put } from "./verdict.js";

const dialog = document.getElementById("large");
const facts = document.getElementById("large-facts");
let opener = null;
let subject = null; // { camera } follows a camera, { visit } stays with a positive

export function openCamera(camera, from) {
  open({ camera }, from);
}

export function openVisit(visit, from) {
  open({ visit, since: performance.now() }, from);
}

function open(what, from) {
  subject = what;
  opener = from;
  if (!dialog.open) dialog.showModal();
}

export function drawLarge(status) {
  if (!subject || !dialog.open) return;
  if (subject.visit) {
    const age = subject.visit.age_s + (performance.now() - subject.since) / 1000;
    draw(subject.visit, subject.visit, age, `api/positives/${subject.visit.picture}/frame`);
    return;
  }
  const row = status.cameras.find((one) => one.camera === subject.camera);
  if (row) draw(row, row.last, row.age_s, `api/cameras/${encodeURIComponent(row.camera)}/frame?v=${row.picture}`);
}

function draw(row, last, age, address) {
  put(document.getElementById("large-title"), row.camera);
  document.getElementById("large-hint").hidden = Boolean(subject.visit);
  show(dialog.querySelector(".frame"), row.picture === null ? null : address);
  drawVerdict(dialog.querySelector(".verdict"), last, row.truth);
  list(facts, [...aboutVerdict(last, age), ...(subject.visit ? [] : aboutCamera(row))]);
}

function aboutVerdict(last, age) {
  if (!last) return [];
  const stages = Object.entries(last.latency_ms).filter(([stage, time]) => stage !== "total" && time !== null);
  return [
    ["Judged", `${ago(age)}, at ${clock(last.judged_at)}`],
    ["Species", last.species.map((one) => `${chance(one.probability)}  ${one.label}`).join("\n")],
    ["Score", last.score === null ? null : last.score.toFixed(2)],
    ["Frame", [last.frame_id, last.image && `${last.image.width} × ${last.image.height}`].filter(Boolean).join(", ")],
    ["Latency", last.latency_ms.total === undefined ? null : `${ms(last.latency_ms.total)} ms`],
    ["Stages", stages.map(([stage, time]) => `${stage} ${ms(time)}`).join(", ")],
    ["Notes", [last.reused && "verdict reused, the frame has not changed", last.redelivered && "delivered again"].filter(Boolean).join("; ")],
    ["Id", last.id],
  ];
}

function aboutCamera(row) {
  const judged = Object.entries(row.verdicts).filter(([, n]) => n);
  return [
    ["Received", `${count(row.received)} frames, judging ${row.fps.toFixed(1)} per second`],
    ["Verdicts", judged.map(([verdict, n]) => `${count(n)} ${verdict}`).join(", ")],
    ["Dropped", Object.entries(row.dropped).map(([why, n]) => `${count(n)} (${why})`).join(", ") || String(sum(row.dropped))],
    ["Dead letters", row.deadletters ? count(row.deadletters) : null],
    ["Right", row.right + row.wrong ? `${count(row.right)} of ${count(row.right + row.wrong)} where the truth is known` : null],
  ];
}

// Draws pairs as <dt>/<dd>, reusing the nodes that are there; pairs without a value are left out.
export function list(dl, pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  while (dl.children.length > shown.length) dl.lastElementChild.remove();
  shown.forEach(([term, value], i) => {
    const pair = dl.children[i] ?? dl.appendChild(document.createElement("div"));
    if (!pair.firstElementChild) pair.append(document.createElement("dt"), document.createElement("dd"));
    put(pair.firstElementChild, term);
    put(pair.lastElementChild, String(value));
  });
}

dialog.addEventListener("close", () => {
  subject = null;
  opener?.focus();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest(".close")) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !subject?.camera) return;
  const tiles = [...document.querySelectorAll("#tiles > li:not([hidden]) > .tile")];
  const here = tiles.findIndex((tile) => tile.dataset.camera === subject.camera);
  const there = tiles[(here + step + tiles.length) % tiles.length];
  if (there) there.click();
});
