"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const steps = data.steps.map(([t, recall, recallCi, hits, fpr, fprCi, falses]) => ({ t, recall, recallCi, hits, fpr, fprCi, falses }));
const at = (id) => document.getElementById(id);
const share = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const count = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const range = ([low, high], show) => `${show(low)}–${show(high)}`;
const precision = (right, wrong) => (right + wrong > 0 ? right / (right + wrong) : null);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function use() {
  const prior = clamp(Number(at("prior").value) / 100 || data.use.prior, 1e-6, 0.999999);
  const frames = Math.max(1, Number(at("frames").value) || data.use.frames_a_day);
  return { positives: prior * frames, negatives: (1 - prior) * frames, prior };
}

function implied(step, { positives, negatives }) {
  const right = positives * step.recall;
  const numbers = { right, missed: positives - right, missedCi: [positives * (1 - step.recallCi[1]), positives * (1 - step.recallCi[0])] };
  if (step.fpr === null) return numbers;
  const wrong = negatives * step.fpr;
  const wrongCi = step.fprCi.map((end) => negatives * end);
  return {
    ...numbers, wrong, wrongCi, accepted: right + wrong, precision: precision(right, wrong),
    acceptedCi: [positives * step.recallCi[0] + wrongCi[0], positives * step.recallCi[1] + wrongCi[1]],
    precisionCi: [precision(positives * step.recallCi[0], wrongCi[1]) ?? 0, precision(positives * step.recallCi[1], wrongCi[0]) ?? 0],
  };
}

// How many of the n positives may be missed for `recall` to hold for fresh ones with confidence 0.95: as many as a
// binomial of n and 1 - recall exceeds in 95 % of draws; -1 where n cannot promise it.
function missable(n, recall) {
  let term = n * Math.log(recall);
  let below = Math.exp(term);
  let k = 0;
  while (k < n && below <= 0.05 + 1e-12) {
    term += Math.log((n - k) / (k + 1)) + Math.log((1 - recall) / recall);
    below += Math.exp(term);
    k += 1;
  }
  return k - 1;
}

const RULES = {
  own: () => steps.findIndex((step) => step.t === data.threshold),
  promise: (wish) => {
    const share = wish / 100;
    const most = share > 0 && share < 1 ? missable(data.positives, share) : -1;
    return most < 0 ? -1 : steps.findLastIndex((step) => data.positives - step.hits <= most);
  },
  recall: (wish) => steps.findLastIndex((step) => step.recall >= wish / 100 - 1e-12),
  precision: (wish, now) => steps.findIndex((step) => (implied(step, now).precision ?? 0) >= wish / 100 - 1e-12),
  false_a_day: (wish, now) => steps.findIndex((step) => implied(step, now).wrong <= wish),
  cost: (wish, now) => {
    const costs = steps.map((step) => wish * implied(step, now).missed + implied(step, now).wrong);
    return costs.indexOf(Math.min(...costs));
  },
};
const PROMISE = "Fresh pictures of kinds such as these keep this recall in 95 of 100 draws of as many pictures.";
const UNMET = {
  promise: "So few pictures cannot promise this recall with confidence 95 %.",
  recall: "No threshold on this page recalls so much of these pictures.",
  precision: "No threshold reaches this precision where the animal is so rare; more negatives, or better ones, would have to show it.",
  false_a_day: "No threshold keeps the false alarms so few on these pictures.",
};

function put(id, text, ci = "") {
  at(id).textContent = text;
  at(`${id}-ci`).textContent = ci;
}

function show(said = "", more = "") {
  const step = steps[Number(at("threshold").value)];
  const now = use();
  const numbers = implied(step, now);
  const name = Number(step.t.toPrecision(4)).toString();
  at("t").textContent = name;
  at("o-config").textContent = Number(step.t.toPrecision(6)).toString();
  put("o-recall", share(step.recall), `${range(step.recallCi, (v) => (100 * v).toFixed(1))} · ${step.hits} of ${data.positives}`);
  put("o-missed", count(numbers.missed), range(numbers.missedCi, count));
  if (step.fpr !== null) {
    put("o-fpr", share(step.fpr, 2), `${range(step.fprCi, (v) => (100 * v).toFixed(2))} · ${step.falses} of ${data.negatives}`);
    put("o-precision", numbers.precision === null ? "–" : share(numbers.precision), range(numbers.precisionCi, (v) => (100 * v).toFixed(1)));
    put("o-accepted", count(numbers.accepted), range(numbers.acceptedCi, count));
    put("o-false", count(numbers.wrong), range(numbers.wrongCi, count));
  }
  const alone = step.fpr === null ? "" : ` Of ${count(numbers.accepted)} accepted a day, ${count(numbers.wrong)} would be false.`;
  at("said").textContent = said || `At ${name} the gate would miss ${count(numbers.missed)} of ${count(now.positives)} a day.${alone}${more}`;
  at("o-shift").textContent = data.calibrated ? shift(step.t, now.prior) : "";
}

function shift(t, prior) {
  const here = data.positives / (data.positives + data.negatives);
  const odds = (t / (1 - t)) * (prior / (1 - prior)) * ((1 - here) / here);
  if (!Number.isFinite(odds)) return "";
  return `A probability of ${Number(t.toPrecision(3))} among these pictures (${share(here, 0)} positive) is one of ${Number((odds / (1 + odds)).toPrecision(2))} where ${share(prior, 2)} are.`;
}

function apply() {
  const rule = document.querySelector("input[name=rule]:checked")?.value;
  if (!rule) return show();
  const wish = at(`w-${rule}`) ? Number(at(`w-${rule}`).value) : 0;
  const index = RULES[rule](wish, use());
  if (index >= 0) at("threshold").value = index;
  return show(index < 0 ? UNMET[rule] : "", index >= 0 && rule === "promise" ? ` ${PROMISE}` : "");
}

at("threshold").addEventListener("input", () => {
  for (const radio of document.querySelectorAll("input[name=rule]")) radio.checked = false;
  show();
});
at("chooser").addEventListener("input", (event) => {
  if (event.target.id === "threshold") return;
  const own = document.querySelector(`input[name=rule][value="${event.target.id.slice(2)}"]`);
  if (own) own.checked = true;
  apply();
});
at("family").addEventListener("change", (event) => {
  for (const mark of document.querySelectorAll(".map [data-family]")) {
    mark.classList.toggle("dim", event.target.value !== "" && mark.dataset.family !== event.target.value);
  }
});
apply();
