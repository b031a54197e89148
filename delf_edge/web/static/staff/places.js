// The places that are known: open one, or delete it.

import { closePlace, openPlace } from "./editor.js";
import { $, ask, call, insist, picture, plural, trouble } from "./service.js";

let known = { landmarks: [], read_only: false };
export async function refreshPlaces() {
  closePlace();
  try {
    known = await insist("GET", "v1/landmarks");
    drawPlaces();
  } catch (e) {
    if (e.status) trouble("task", e.message);
  }
}

function drawPlaces() {
  const wanted = $("search").value.trim().toLowerCase();
  const shown = known.landmarks.filter((place) => place.name.toLowerCase().includes(wanted));
  $("count").textContent = String(known.landmarks.length);
  $("none").hidden = shown.length > 0;
  $("none").textContent = known.landmarks.length ? "No place has this name." : "No place yet. Teach the first one.";
  $("search").hidden = known.landmarks.length === 0;
  $("list").replaceChildren(...shown.map(drawPlace));
}

function drawPlace(place) {
  const item = document.createElement("li");
  const frame = Object.assign(document.createElement("div"), { className: "picture" });
  const row = Object.assign(document.createElement("div"), { className: "row" });
  const words = document.createElement("div");
  const name = Object.assign(document.createElement("strong"), { textContent: place.name, title: place.name, dir: "auto" });
  words.append(name, Object.assign(document.createElement("small"), { textContent: plural(place.images.length, "photo") }));
  row.append(words);
  const open = Object.assign(document.createElement("button"), { type: "button", textContent: "Open", className: "open" });
  open.ariaLabel = `Open ${place.name}`;
  open.onclick = () => openPlace(place.slug, known.landmarks);
  row.append(open);
  if (!known.read_only) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Delete" });
    button.ariaLabel = `Delete ${place.name}`;
    button.onclick = () => removePlace(place);
    row.append(button);
  }
  item.append(frame, row);
  if (place.images.length) visible.observe(Object.assign(frame, { imageId: place.images[0].id, placeName: place.name }));
  return item;
}

// Pictures are fetched when they come into sight.
const visible = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    visible.unobserve(target);
    picture(target.imageId).then((url) => {
      if (url) target.replaceChildren(Object.assign(document.createElement("img"), { src: url, alt: target.placeName }));
    });
  }
}, { rootMargin: "200px" });

async function removePlace(place) {
  $("delete-title").textContent = `Delete ${place.name}?`;
  if (!(await ask($("ask-delete"), (end) => { $("delete-yes").onclick = end; }, $("delete-no")))) return;
  try {
    await insist("DELETE", `v1/landmarks/${encodeURIComponent(place.slug)}`);
    trouble("task");
  } catch (e) {
    if (e.status) trouble("task", e.message);
  }
  refreshPlaces();
}
$("search").oninput = drawPlaces;
