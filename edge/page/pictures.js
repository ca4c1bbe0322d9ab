// Loads a picture only when its address has changed, decodes it off the page, and then swaps it in: no flicker.

const AT_ONCE = 6;
const waiting = new Map();
let loading = 0;

export function show(frame, address) {
  if (frame.dataset.wanted === (address ?? "")) return;
  frame.dataset.wanted = address ?? "";
  waiting.delete(frame);
  if (address) waiting.set(frame, address);
  else frame.querySelector("img")?.remove();
  next();
}

function next() {
  while (loading < AT_ONCE && waiting.size) {
    const [frame, address] = waiting.entries().next().value;
    waiting.delete(frame);
    loading += 1;
    load(frame, address).finally(() => {
      loading -= 1;
      next();
    });
  }
}

async function load(frame, address) {
  const image = new Image();
  image.alt = "";
  image.src = address;
  try {
    await image.decode();
  } catch {
    if (frame.dataset.wanted === address) {
      frame.querySelector("img")?.remove();
      frame.dataset.wanted = "?";
    }
    return;
  }
  if (frame.dataset.wanted !== address) return;
  image.className = isNear(image, frame) ? "near" : "";
  const old = frame.querySelector("img");
  if (old) old.replaceWith(image);
  else frame.prepend(image);
}

// A picture of nearly the frame's shape fills it; any other is shown whole.
function isNear(image, frame) {
  const ratio = (image.naturalWidth / image.naturalHeight) * (frame.clientHeight / frame.clientWidth);
  return ratio > 0.85 && ratio < 1.18;
}
