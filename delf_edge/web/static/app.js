// The visitors' page: a camera, an answer, and a way back to the start. It has no function of staff, no link and no
// dialog. It talks to the service that served it and to nobody else.

import { Refused, request, sleep } from "./shared/requests.js";
import { Camera, savedSettings } from "./shared/camera.js";
import { preferred, setHouseTexts, t, texts, useLanguage } from "./shared/languages.js";
import { $, announce, enter, state } from "./visitor/page.js";
import { drawAttract, loadShowcase, moveAttract, resetAttract } from "./visitor/attract.js";
import { closeMenu, drawMenu, resetMenu } from "./visitor/menu.js";
import { drawPlace, hearingOrReading, hidePlace, placeLeft, resetPlace, setDetailed, showPlace } from "./visitor/place.js";
import { drawUnknown, setQuestion, resetUnknown } from "./visitor/unknown.js";
import { drawPoints } from "./visitor/points.js";

const LONG_SIDE = 800; // pixels of the frames that are sent
const PAUSE = 120; // milliseconds between two frames, at least
const LINGER = 30_000; // milliseconds that a place stays readable when its picture is gone
const UNKNOWN_FIRST = 800; // milliseconds of unknown views before the page says so: a hand passes by
const UNKNOWN_LONG = 20_000; // milliseconds after which the page invites again, whatever the camera sees
const REFRESH = 10 * 60_000; // milliseconds after which places and settings are asked for again
const STALE = 4000; // milliseconds without an answer after which no name stays on the screen

const hash = new URLSearchParams(location.hash.slice(1)); // #camera starts it by itself, #token=... is one
const session = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
let settings;
let camera;
let touched = Date.now();
let refreshed = Date.now();
let unknownSince = 0;
let placeSeen = 0;

// ---------------------------------------------------------------- the start

async function begin() {
  await takePass();
  settings = await insist(() => request("GET", "kiosk.json"));
  if (settings.questions) $("private").dataset.text = "private_asked";
  settings.kiosk ||= hash.has("camera");
  setHouseTexts(settings.texts);
  setDetailed(settings.details);
  $("logo").src = settings.logo ?? "icon.svg";
  if (!settings.kiosk) settings.language = preferred(settings.languages, settings.language);
  await insist(() => speak(settings.language));
  drawMenu(settings.languages, await insist(names), speak);
  camera = new Camera($("live"), { ...settings.camera, ...savedSettings() });
  camera.lay($("picture"));
  camera.addEventListener("open", () => { if (state() === "break") goHome(); });
  camera.addEventListener("lost", (event) => cameraBreak(event.detail));
  $("start").onclick = $("try-again").onclick = () => camera.start();
  goHome();
  await showcase();
  if (settings.kiosk || (await allowed())) camera.start();
  else $("start").hidden = false;
  camera.addEventListener("open", () => { $("start").hidden = true; });
  $("phone-code").onload = () => { $("phone").hidden = false; };
  if (settings.visit) $("phone-code").src = "visit/qr.svg";
  watch();
}

const names = async () => Promise.all(settings.languages.map(async (tag) => [tag, (await texts(tag)).name]));
const allowed = async () => (await navigator.permissions?.query({ name: "camera" }).catch(() => null))?.state === "granted";

// Somebody who has the token opens the page once with it; the browser may read from then on.
async function takePass() {
  const token = hash.get("token");
  if (!token) return;
  hash.delete("token"); // so that nobody reads it off the screen
  history.replaceState(null, "", location.pathname + (hash.has("camera") ? "#camera" : ""));
  await request("POST", "v1/pass", { headers: { authorization: `Bearer ${token}` } }).catch(() => {});
}

// The same until it works: a kiosk may be on before its service is.
async function insist(work) {
  for (;;) {
    try {
      return await work();
    } catch (e) {
      if (!(e instanceof Refused)) throw e;
      await sleep(1500);
    }
  }
}

async function speak(wanted) {
  await useLanguage(wanted);
  document.title = $("house-title").textContent = settings.title ?? t("title");
  drawBreak();
  drawPlace();
  drawUnknown(settings.questions);
  await showcase();
}

async function showcase() {
  try {
    await loadShowcase();
    drawAttract();
    drawUnknown(settings.questions);
  } catch (e) {
    if (e.status === 401) takeBreak("locked");
  }
}

// ---------------------------------------------------------------- looking

async function watch() {
  let answered = Date.now();
  for (;;) {
    try {
      tend();
      if (document.hidden || !camera.ready()) {
        answered = Date.now();
        await sleep(200);
        continue;
      }
      const frame = await camera.frame(LONG_SIDE);
      const answer = await request("POST", "v1/identify", { query: { session }, body: frame, seconds: 10 });
      answered = Date.now();
      if (camera.running) await take(answer, frame);
    } catch (e) {
      if (!(e instanceof Refused)) console.error(e);
      else if (e.status === 401) takeBreak("locked");
      else if (e.status !== 503 && e.status !== 0) console.warn(e.message);
      if (Date.now() - answered > STALE || e.status === 0) takeBreak("service_lost");
      await sleep(e.status === 503 ? 400 : 1500);
    }
    await sleep(PAUSE);
  }
}

// What the frames so far amount to.
async function take(answer, frame) {
  const now = Date.now();
  const name = answer.present.at(-1);
  if (state() === "break") goHome();
  if (name) {
    unknownSince = 0;
    placeSeen = now;
    hint("");
    await showPlace(name, answer);
    if (settings.details) drawPoints(answer.landmark === name ? answer.proof : null);
    return;
  }
  drawPoints(null);
  const unknown = answer.state === "unknown";
  unknownSince = unknown ? unknownSince || now : 0;
  if (state() === "place") {
    placeLeft();
    if (now - placeSeen < LINGER || hearingOrReading(now - touched)) return hint(why(answer));
    hidePlace();
    goHome();
  }
  hint(why(answer));
  const long = unknown ? now - unknownSince : 0;
  if (unknown && long > UNKNOWN_FIRST && long < UNKNOWN_LONG) {
    if (state() !== "unknown") announce(t("unknown"));
    if (!answer.skipped) setQuestion(frame);
    enter("unknown");
  } else if (state() === "unknown" && (!unknown || long >= UNKNOWN_LONG) && !$("unknown").contains(document.activeElement)) {
    resetUnknown();
    enter("attract");
  }
}

const SKIPPED = { black: "too_dark", "blown out": "too_bright", blurred: "blurred" };
function why(answer) {
  if (answer.skipped && SKIPPED[answer.verdict]) return t(SKIPPED[answer.verdict]);
  if (answer.state === "unknown") return state() === "unknown" ? "" : t("unknown_view");
  return !answer.skipped && answer.landmark ? t("one_moment") : "";
}

function hint(words) {
  $("hint").hidden = !words;
  if ($("hint").textContent !== words) $("hint").textContent = words;
}

// ---------------------------------------------------------------- breaks

let breakReason = "";
function takeBreak(why) {
  if (state() === "break" && breakReason === why) return;
  breakReason = why;
  hint("");
  drawPoints(null);
  hidePlace();
  resetUnknown();
  drawBreak();
  enter("break");
  announce(`${$("break-title").textContent}. ${$("break-hint").textContent}`);
}

function drawBreak() {
  if (!breakReason) return;
  const title = breakReason === "camera_insecure" ? "camera_denied" : breakReason;
  $("break-title").textContent = t(title);
  $("break-hint").textContent = t(`${breakReason}_hint`);
  $("try-again").hidden = breakReason !== "camera_denied";
}

function cameraBreak(detail) {
  takeBreak({ denied: "camera_denied", insecure: "camera_insecure" }[detail] ?? "camera_lost");
}

function goHome() {
  breakReason = "";
  unknownSince = 0;
  hint("");
  enter("attract");
}

// ---------------------------------------------------------------- what happens by itself

for (const kind of ["pointerdown", "keydown", "wheel"]) {
  document.addEventListener(kind, () => { touched = Date.now(); }, { capture: true, passive: true });
}
// Nothing of the browser's own: no menu, no dragging, no dropped file that replaces the page.
for (const kind of ["contextmenu", "dragstart", "dragover", "drop"]) {
  document.addEventListener(kind, (event) => { if (settings?.kiosk !== false || kind !== "contextmenu") event.preventDefault(); });
}

function tend() {
  const now = Date.now();
  moveAttract(now);
  if (now - touched > 10_000) closeMenu();
  if (touched && now - touched > settings.idle_seconds * 1000) reset();
  if (now - refreshed > REFRESH) refresh(now);
}

// A visitor has gone: the next one finds the page as it was at the start.
function reset() {
  touched = 0;
  closeMenu();
  resetMenu();
  resetPlace();
  resetUnknown();
  resetAttract();
  document.activeElement?.blur();
  getSelection()?.removeAllRanges();
  scrollTo(0, 0);
  $("panel").scrollTop = 0;
  if (document.documentElement.lang !== settings.language) speak(settings.language).catch(() => {});
  if (settings.kiosk) camera.start();
}

// New places are shown, and a new page is taken up, while nobody is there.
async function refresh(now) {
  refreshed = now;
  try {
    const latest = await request("GET", "kiosk.json");
    if (latest.build !== settings.build && !touched && state() === "attract") return location.reload();
    await showcase();
  } catch { /* the service is away: it is tried again */ }
}

begin().then(() => { window.kioskReady = true; });
