// Numbers, ages and names as people read them. Pure functions.

export const WORDS = { positive: "Positive", negative: "Negative", uncertain: "Uncertain", error: "Error" };

const whole = new Intl.NumberFormat("en");

export const count = (n) => (n < 1e6 ? whole.format(n) : `${(n / 1e6).toFixed(n < 1e7 ? 2 : 1)} M`);

export const rate = (n) => (n >= 100 ? n.toFixed(0) : n.toFixed(1));

export const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const ago = (seconds) => (seconds < 2 ? "just now" : `${span(seconds)} ago`);

// Local time of epoch seconds, as 2026-11-21 04:05:20.
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace("T", " ");
}

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? value.toFixed(0) : value.toFixed(1);
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit += 1) n /= 1024;
  return `${unit && n < 100 ? n.toFixed(1) : n.toFixed(0)} ${units[unit]}`;
}

// As many digits as it takes to show on which side of the threshold the value lies.
export function chance(value, threshold = null) {
  for (let digits = 2; digits < 5; digits += 1) {
    const text = value.toFixed(digits);
    if (threshold === null || value === threshold || text !== threshold.toFixed(digits)) return text;
  }
  return value.toFixed(5);
}

// "Ara macao (Scarlet Macaw)" -> ["Scarlet Macaw", "Ara macao"]; any other label stays as it is.
export function names(label) {
  const both = /^([A-Z][a-z]+(?: [a-z][a-z-]*)+) \((.+)\)$/.exec(label);
  return both ? [both[2], both[1]] : [label, ""];
}

export function headline(last) {
  if (last.verdict === "error") return [last.error, ""];
  if (last.species.length) return names(last.species[0].label);
  if (last.verdict === "positive") return ["Ours, species not asked", ""];
  return [last.verdict === "uncertain" ? "Too close to call" : "Not ours", ""];
}
