// The place that was found: its name, text, picture and sound in the visitor's language.

import { mediaPath, request, thumbnailPath } from "../shared/requests.js";
import { language, t } from "../shared/languages.js";
import { $, announce, enter, image, state } from "./page.js";

const READING = 60_000; // milliseconds that a touched page stays, whatever the camera sees
const records = new Map(); // language and slug -> what is known of a place
let shown = null; // {name, slug, image, record, left}
let facts = null; // of the last answer, for engineers
let busy = "";

async function recordOf(slug) {
  const key = `${language()} ${slug}`;
  if (!records.has(key)) {
    if (records.size > 100) records.clear();
    records.set(key, await request("GET", `v1/landmarks/${encodeURIComponent(slug)}`, { language: language(), seconds: 4 }));
  }
  return records.get(key);
}

export async function showPlace(name, answer) {
  const mine = answer.landmark === name ? answer : null;
  if (mine) facts = mine;
  if (shown?.name === name) {
    shown.left = false;
    drawKicker();
    drawDetails();
    if (mine && !shown.record) drawPlace(); // the service was busy when its text was asked for
    enter("place");
    return;
  }
  if (!mine || busy === name) return; // its picture and text come with the next answer that names it
  busy = name;
  const slug = mine.info?.slug ?? null;
  const wanted = language();
  const record = slug === null ? null : await recordOf(slug).catch(() => null);
  busy = "";
  silence();
  shown = { name, slug, image: mine.proof?.image_id ?? mine.matches[0]?.image_id ?? null, record, language: wanted, left: false, open: false };
  drawPlace();
  enter("place");
  announce(`${t("this_is")} ${$("name").textContent}. ${$("summary").textContent}`);
}

// Draw it anew, after a visitor has chosen another language too.
export async function drawPlace() {
  if (!shown) return;
  const mine = shown;
  if (mine.slug !== null && (!mine.record || mine.language !== language())) {
    const wanted = language();
    mine.record = await recordOf(mine.slug).catch(() => mine.record);
    if (shown !== mine || wanted !== language()) return;
    mine.language = wanted;
  }
  const { record } = mine;
  const title = record?.title ?? mine.name;
  $("name").textContent = title;
  $("name").lang = record?.language ?? "";
  $("name").dataset.length = title.length > 70 ? "huge" : title.length > 34 ? "long" : title.length > 16 ? "" : "short";
  drawKicker();
  say("summary", record?.summary);
  drawPicture(record);
  drawSound(record);
  drawBody(record);
  drawDetails();
}

function say(id, words) {
  $(id).hidden = !words;
  $(id).textContent = words ?? "";
  $(id).lang = shown.record?.language ?? "";
}

function drawKicker() {
  const words = t(shown.left ? "last_seen" : "this_is");
  if ($("kicker").textContent !== words) $("kicker").textContent = words;
}

function drawPicture(record) {
  const picture = record?.media.find((item) => item.type.startsWith("image/"));
  const path = picture ? mediaPath(shown.slug, picture.name) : shown.image === null ? null : thumbnailPath(shown.image);
  $("photo").hidden = path === null;
  $("credit").hidden = !picture?.credit;
  $("credit").textContent = picture?.credit ? t("picture_by", { credit: picture.credit }) : "";
  const alt = t("picture_of", { place: $("name").textContent });
  if (path !== null && $("photo-image").getAttribute("src") !== path) {
    const next = image(path, alt);
    next.id = "photo-image";
    next.onerror = () => { $("photo").hidden = true; };
    $("photo-image").replaceWith(next);
  }
  $("photo-image").alt = alt;
}

// The text with its headings and lists: the service has made it from Markdown and let only such tags through.
function drawBody(record) {
  const html = record?.body_html ?? "";
  const parsed = [...new DOMParser().parseFromString(html, "text/html").body.childNodes];
  $("body").replaceChildren(...parsed);
  $("body").lang = record?.language ?? "";
  $("more").hidden = !parsed.length;
  $("body").hidden = !parsed.length || !shown.open;
  $("more").textContent = t(shown.open ? "less" : "more");
  $("more").ariaExpanded = String(shown.open);
}
$("more").onclick = () => {
  shown.open = !shown.open;
  drawBody(shown.record);
};

// ---------------------------------------------------------------- the sound

function drawSound(record) {
  const sound = record?.media.find((item) => item.name === record.audio && item.type.startsWith("audio/"));
  const path = sound ? mediaPath(shown.slug, sound.name) : "";
  if (($("sound").getAttribute("src") ?? "") !== path) {
    silence();
    if (path) $("sound").src = path;
    else $("sound").removeAttribute("src");
  }
  $("listen").hidden = !path;
  drawListen();
}

function drawListen() {
  const playing = !$("sound").paused;
  $("listen").textContent = t(playing ? "stop" : "listen");
  $("listen").ariaPressed = String(playing);
}
for (const kind of ["play", "pause", "ended", "error"]) $("sound").addEventListener(kind, drawListen);
$("listen").onclick = () => {
  if ($("sound").paused) $("sound").play().catch(drawListen);
  else silence();
};

function silence() {
  $("sound").pause();
  if ($("sound").currentTime) $("sound").currentTime = 0;
}

// ---------------------------------------------------------------- for engineers, where the branding file says so

let detailed = false;
export const setDetailed = (wanted) => { detailed = wanted; };
function drawDetails() {
  $("details").hidden = !detailed || !facts;
  if ($("details").hidden) return;
  const next = facts.matches.find((match) => match.landmark !== shown.name)?.landmark ?? "–";
  const words = t("details", { points: facts.n_inliers, percent: Math.round(facts.probability * 100), next });
  if ($("details").textContent !== words) $("details").textContent = words;
}

// ---------------------------------------------------------------- the end

// The picture is gone, but its text can be read on.
export function placeLeft() {
  if (!shown || shown.left) return;
  shown.left = true;
  drawKicker();
}

export const hearingOrReading = (untouched) => state() === "place" && (!$("sound").paused || untouched < READING);

export function hidePlace() {
  silence();
  shown = facts = null;
  $("name").textContent = $("summary").textContent = $("details").textContent = "";
  $("body").replaceChildren();
}

export function resetPlace() {
  silence();
  if (shown?.open) {
    shown.open = false;
    drawBody(shown.record);
  }
}
