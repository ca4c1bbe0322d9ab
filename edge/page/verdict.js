// One verdict as a block: badge, truth where it is known, species, probability with the threshold's mark.

import { WORDS, chance, headline } from "./format.js";

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function icon(svg, name) {
  const use = svg.querySelector("use");
  if (use.getAttribute("href") !== `#i-${name}`) use.setAttribute("href", `#i-${name}`);
}

export function drawVerdict(block, last, truth) {
  if (!block.firstElementChild) block.append(document.getElementById("verdict").content.cloneNode(true));
  block.dataset.verdict = last?.verdict ?? "none";
  icon(block.querySelector(".badge svg"), last?.verdict ?? "uncertain");
  put(block.querySelector(".badge b"), last ? WORDS[last.verdict] : "Waiting");
  const [name, latin] = last ? headline(last) : ["No frame judged yet", ""];
  put(block.querySelector(".kind b"), name);
  put(block.querySelector(".kind i"), latin);
  drawGauge(block.querySelector(".gauge"), last);
  drawTruth(block.querySelector(".truth"), truth);
}

function drawGauge(gauge, last) {
  const value = last?.probability ?? last?.p_value ?? null;
  gauge.classList.toggle("off", value === null);
  if (value === null) return;
  const threshold = last.threshold;
  gauge.style.setProperty("--value", value);
  gauge.querySelector(".mark").hidden = threshold === null;
  if (threshold !== null) gauge.style.setProperty("--mark", threshold);
  put(gauge.querySelector(".value"), `${last.probability === null ? "p-value " : ""}${chance(value, threshold)}`);
  put(gauge.querySelector(".limit"), threshold === null ? "" : `threshold ${chance(threshold)}`);
}

export function drawTruth(element, truth) {
  element.hidden = !truth;
  if (!truth) return;
  const word = { true: "right", false: "wrong", null: "open" }[truth.right];
  element.dataset.right = word;
  icon(element.querySelector("svg"), word === "open" ? "uncertain" : word);
  put(element.querySelector("span"), word === "open" ? `truth: ${truth.text}` : `${word}, truth: ${truth.text}`);
}

export function spoken(last, truth) {
  if (!last) return "no frame judged yet";
  const parts = [WORDS[last.verdict].toLowerCase(), headline(last)[0]];
  if (last.probability !== null) parts.push(`probability ${chance(last.probability, last.threshold)}`);
  if (truth) parts.push(`truth ${truth.text}${truth.right === null ? "" : truth.right ? ", right" : ", wrong"}`);
  return parts.join(", ");
}
