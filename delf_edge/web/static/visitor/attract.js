// While nobody asks: places that would be recognised, one after the other, with their names.

import { mediaPath, request, thumbnailPath } from "../shared/requests.js";
import { language, t } from "../shared/languages.js";
import { $, image, state } from "./page.js";

const EACH = 8000; // milliseconds that a picture stays
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let places = [];
let known = 0;
let at = 0;
let moved = 0;
let paused = calm.matches; // pictures change by themselves only for those who do not mind

export const picturePath = (place) => (place.picture ? mediaPath(place.slug, place.picture) : thumbnailPath(place.image));
export const someplaces = (count) => places.filter((place) => place.image !== null).slice(0, count);

export async function loadShowcase() {
  ({ known, places } = await request("GET", "v1/showcase", { query: { count: 24 }, language: language() }));
}

export function drawAttract() {
  $("invite").dataset.text = known ? "invite" : "empty";
  $("invite").textContent = t(known ? "invite" : "empty");
  const lead = $("attract").querySelector(".lead");
  lead.dataset.text = known ? "invite_hint" : "empty_hint";
  lead.textContent = t(lead.dataset.text);
  $("shown").hidden = !places.length;
  $("pause").hidden = places.length < 2;
  drawPause();
  at %= Math.max(1, places.length);
  show();
}

function show() {
  const place = places[at];
  if (!place) return;
  $("shown-name").textContent = place.title;
  $("shown-name").lang = place.language ?? "";
  const path = picturePath(place);
  const last = $("pictures").lastElementChild;
  if (last?.getAttribute("src") === path) return;
  const next = image(path);
  $("pictures").append(next);
  while ($("pictures").children.length > 2) $("pictures").firstElementChild.remove();
}

// Called often; the pictures change while they are seen.
export function moveAttract(now) {
  if (paused || state() !== "attract" || places.length < 2 || now - moved < EACH) return;
  moved = now;
  at = (at + 1) % places.length;
  show();
}

function drawPause() {
  $("pause").dataset.paused = String(paused);
  $("pause-words").textContent = t(paused ? "go_on" : "pause");
}
$("pause").onclick = () => {
  paused = !paused;
  drawPause();
};

export function resetAttract() {
  paused = calm.matches;
  drawPause();
}
