const at = (id) => document.getElementById(id);
const WHY = { disagreement: "Folder and gate disagree", near: "Among the nearest to the threshold", random: "Refused, picked at random" };
const state = { items: [], families: [], place: 0, twin: 0, history: [], busy: false };

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const answered = (item) => item.pictures.every((picture) => picture.given);
const current = () => state.items[state.place];
const source = (number, size) => `api/pictures/${number}/${size}`;

async function load() {
  const answer = await fetch("api/queue");
  const queue = await answer.json();
  Object.assign(state, { items: queue.items, families: queue.families, by: queue.by, threshold: queue.threshold });
  at("gate").textContent = queue.gate;
  at("command").textContent = queue.command;
  const first = state.items.findIndex((item) => !answered(item));
  state.place = first < 0 ? state.items.length : first;
  show();
}

function show() {
  const open = state.items.filter((item) => !answered(item)).length;
  at("count").textContent = `${state.items.length - open} of ${state.items.length}`;
  at("bar").value = state.items.length ? (state.items.length - open) / state.items.length : 1;
  const over = state.place >= state.items.length;
  at("main").hidden = over;
  at("done").hidden = !over;
  if (over) return showDone(open);
  const item = current();
  state.twin = Math.min(state.twin, item.pictures.length - 1);
  showPicture(item.pictures[state.twin]);
  at("why").textContent = WHY[item.why];
  at("why").dataset.why = item.why;
  showTwins(item);
  showFamilies(item);
  preload();
}

function showDone(open) {
  const labelled = state.items.flatMap((item) => item.pictures).filter((picture) => picture.given).length;
  at("done").querySelector("h2").textContent = open ? `The end; ${open} questions were passed over` : "All questions are answered";
  at("done-what").textContent = `${labelled} pictures are labelled.`;
  at("done").focus();
}

function showPicture(picture) {
  const shown = at("picture");
  at("gone").hidden = true;
  shown.hidden = false;
  shown.src = source(picture.number, "large");
  shown.alt = `${picture.name}, to be labelled`;
  at("value").textContent = picture.decisive.toFixed(3);
  at("says").textContent = `${state.by === "probability" ? "Probability" : "p-value"}; the gate ${picture.accepted ? "accepts" : "refuses"} it`;
  document.querySelector(".gauge").dataset.accepted = picture.accepted;
  at("fill").style.setProperty("--value", picture.decisive);
  at("mark").style.setProperty("--mark", state.threshold);
  at("folder").textContent = picture.family ?? picture.folder;
  at("name").textContent = picture.name;
  at("given").textContent = picture.given ? picture.given.family ?? "of no use" : "none yet";
}

function showTwins(item) {
  const many = item.pictures.length > 1;
  at("twins").hidden = !many;
  at("split").hidden = !many;
  at("twins-what").textContent = `${item.pictures.length} pictures that are nearly the same: one label for all.`;
  at("twin-list").replaceChildren(...(many ? item.pictures : []).map((picture, i) => {
    const button = element("button", { type: "button", onclick: () => { state.twin = i; show(); } },
      element("img", { src: source(picture.number, "small"), alt: picture.name }));
    button.setAttribute("aria-current", i === state.twin);
    return element("li", {}, button);
  }));
}

function showFamilies(item) {
  const given = item.pictures[0].given;
  at("families").replaceChildren(...state.families.map((family, i) => {
    const button = element("button", { type: "button", onclick: () => label(family) });
    if (i < 9) button.append(element("kbd", { textContent: i + 1 }));
    button.append(family.name, element("span", { textContent: family.positive ? "accept" : "refuse" }));
    button.dataset.positive = family.positive;
    button.setAttribute("aria-pressed", given?.family === family.name);
    return element("li", {}, button);
  }));
}

function preload() {
  const next = state.items[state.place + 1];
  if (next) new Image().src = source(next.pictures[0].number, "large");
}

async function post(body) {
  at("fault").hidden = true;
  try {
    const answer = await fetch("api/labels", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    state.families = said.families;
    return true;
  } catch (error) {
    at("fault").textContent = `Not saved: ${error.message}. Is the command still running?`;
    at("fault").hidden = false;
    return false;
  }
}

async function label({ name, positive }) {
  if (state.busy || state.place >= state.items.length) return;
  state.busy = true;
  const item = current();
  const before = item.pictures.map((picture) => picture.given);
  const pictures = item.pictures.map((picture) => picture.number);
  if (await post({ pictures, family: name, positive })) {
    for (const picture of item.pictures) picture.given = { family: name, positive };
    state.history.push({ item, before });
    step(1, true);
  }
  state.busy = false;
}

async function undo() {
  if (state.busy) return;
  const last = state.history.pop() ?? (answered(current() ?? { pictures: [{}] }) ? { item: current(), before: [] } : null);
  if (!last) return;
  state.busy = true;
  const { item, before } = last;
  const given = before[0] ?? null;
  const pictures = item.pictures.map((picture) => picture.number);
  const body = given ? { pictures, family: given.family, positive: given.positive } : { pictures, take_back: true };
  if (await post(body)) {
    for (const picture of item.pictures) picture.given = given;
    state.place = Math.max(0, state.items.indexOf(item));
    show();
  } else state.history.push(last);
  state.busy = false;
}

function split() {
  const item = current();
  if (!item || item.pictures.length < 2) return;
  state.items.splice(state.place, 1, ...item.pictures.map((picture) => ({ why: item.why, pictures: [picture] })));
  state.history = state.history.filter((entry) => entry.item !== item);
  state.twin = 0;
  show();
}

function step(by, toOpen = false) {
  let place = state.place + by;
  while (toOpen && place < state.items.length && answered(state.items[place])) place += by;
  state.place = Math.min(Math.max(0, place), state.items.length);
  state.twin = 0;
  show();
}

function askNew() {
  if (state.place >= state.items.length) return;
  at("new-name").value = "";
  at("new-positive").checked = false;
  at("new").showModal();
}

const KEYS = {
  n: askNew, u: undo, s: split, x: () => label({ name: null, positive: false }), "?": () => at("help").showModal(),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1),
};

function press(key) {
  const family = /^[1-9]$/.test(key) ? state.families[Number(key) - 1] : null;
  if (family) return label(family);
  return KEYS[key]?.();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (/^[1-9]$/.test(event.key) || event.key in KEYS) {
    event.preventDefault();
    press(event.key);
  }
});
for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", () => press(button.dataset.key));
at("help-open").addEventListener("click", () => at("help").showModal());
at("new-close").addEventListener("click", () => at("new").close());
at("new-form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("new").close();
  label({ name: at("new-name").value.trim(), positive: at("new-positive").checked });
});
at("picture").addEventListener("error", () => {
  at("picture").hidden = true;
  at("gone").hidden = false;
});
load().catch((error) => {
  at("fault").textContent = `The questions cannot be had: ${error.message}. Is the command still running?`;
  at("fault").hidden = false;
});
