// One place: its photos with their quality, its name and texts, and what makes two places one.

import { $, ask, insist, picture, plural, trouble } from "./service.js";
import { refreshPlaces } from "./places.js";

const FIELDS = ["title", "summary", "body", "link"];
const input = (field) => $(field === "title" ? "editor-title-text" : `editor-${field}`);
let place = null;
let others = []; // {name, slug} of the other places
let language = "en";

export async function openPlace(slug, all) {
  others = all.filter((other) => other.slug !== slug);
  try {
    place = await insist("GET", `v1/staff/landmarks/${encodeURIComponent(slug)}`);
  } catch (e) {
    if (e.status) trouble("task", e.message);
    return;
  }
  $("all-places").hidden = true;
  $("editor").hidden = false;
  language = place.texts[language] ? language : (Object.keys(place.texts)[0] ?? "en");
  draw();
  $("editor-title").focus();
}

export function closePlace() {
  place = null;
  $("editor").hidden = true;
  $("all-places").hidden = false;
}
$("editor-back").onclick = () => { closePlace(); refreshPlaces(); };

function draw() {
  $("editor-title").textContent = place.name;
  $("editor-name").value = place.name;
  $("editor-photos").replaceChildren(...place.photos.map(drawPhoto));
  const tags = [...new Set([...Object.keys(place.texts), language, "en"])].sort();
  $("editor-languages").replaceChildren(...tags.map((tag) => new Option(tag, tag, false, tag === language)));
  for (const field of FIELDS) input(field).value = place.texts[language]?.[field] ?? "";
  $("editor-media").textContent = place.media.length
    ? `Pictures and sounds: ${place.media.map((item) => item.name).join(", ")}` : "No picture or sound yet.";
  $("editor-into").replaceChildren(new Option("", ""), ...others.map((other) => new Option(other.name, other.slug)));
  for (const element of $("editor").querySelectorAll("input, textarea, select, button")) {
    if (element.id !== "editor-back" && element.id !== "editor-languages") element.disabled = place.read_only;
  }
}

function drawPhoto(photo) {
  const item = document.createElement("li");
  const image = Object.assign(document.createElement("img"), { alt: photo.name });
  picture(photo.id).then((url) => { if (url) image.src = url; });
  const words = document.createElement("p");
  const advice = photo.quality ? `Quality ${photo.quality.score}. ${photo.quality.reasons[0] ?? "A good photo"}.` : "Quality: not checked yet (Check).";
  words.textContent = `${photo.width} × ${photo.height}. ${advice}`;
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove photo" });
  remove.ariaLabel = `Remove photo ${photo.name}`;
  remove.onclick = async () => {
    const sure = `Remove the photo ${photo.name}?`;
    if (await confirmed(sure)) change("DELETE", `v1/images/${photo.id}`);
  };
  item.append(image, words, remove);
  return item;
}

async function confirmed(words) {
  $("delete-title").textContent = words;
  return ask($("ask-delete"), (end) => { $("delete-yes").onclick = end; }, $("delete-no"));
}

// Do it, and show what is there then; true where it was done.
async function change(method, path, options) {
  try {
    const answer = await insist(method, path, options);
    trouble("task");
    $("editor-saved").textContent = "Saved.";
    await openPlace(answer.slug ?? place.slug, others);
    return true;
  } catch (e) {
    trouble("task", e.message);
    return false;
  }
}

const here = (more = "") => `v1/landmarks/${encodeURIComponent(place.slug)}${more}`;
$("editor-languages").onchange = (event) => { language = event.target.value; draw(); };
$("editor-add").onclick = () => {
  const tag = $("editor-new").value.trim();
  if (!tag) return;
  language = tag;
  $("editor-new").value = "";
  draw();
};
$("editor-form").onsubmit = (event) => {
  event.preventDefault();
  const texts = Object.fromEntries(FIELDS.map((field) => [field, input(field).value.trim() || null]));
  change("PATCH", here(), { json: { name: $("editor-name").value, texts: { [language]: texts } } });
};
$("editor-file").onchange = async (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (!file) return;
  const audio = file.type.startsWith("audio/");
  if (await change("PUT", here(`/media/${encodeURIComponent(file.name)}`), { body: file }) && audio) {
    change("PATCH", here(), { json: { texts: { [language]: { audio: file.name } } } });
  }
};
$("editor-merge").onclick = async () => {
  const into = others.find((other) => other.slug === $("editor-into").value);
  if (!into) return;
  if (!(await confirmed(`Make ${place.name} a part of ${into.name}? Its ${plural(place.photos.length, "photo")} go there`))) return;
  if (await change("POST", here("/merge"), { query: { into: into.slug, prefer: "new" } })) $("editor-back").click();
};
