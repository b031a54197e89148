// What the modules of the visitors' page share: its elements, and which of its states is shown.

export const $ = (id) => document.getElementById(id);
const STATES = ["attract", "place", "unknown", "break"];

export const state = () => document.body.dataset.state;

// Show one state and hide the others; the picture of the camera never moves.
export function enter(next) {
  if (state() === next) return;
  document.body.dataset.state = next;
  for (const name of STATES) $(name).hidden = name !== next;
  $("panel").scrollTop = 0;
}

// Said by screen readers; the page itself shows it anyway.
export function announce(words) {
  if ($("announce").textContent !== words) $("announce").textContent = words;
}

// An image that stays empty where the service has none.
export function image(path, alt = "") {
  const element = Object.assign(document.createElement("img"), { alt, draggable: false });
  element.onerror = () => { element.hidden = true; };
  element.src = path;
  return element;
}
