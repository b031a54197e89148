// Looking: the camera or a photo, and the answer.

import { $, call, picture, plural, sleep, trouble } from "./service.js";
import { arrange, setProof } from "./stage.js";

const session = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
const LONG_SIDE = 800; // pixels of the frames that are sent
const PAUSE = 120; // milliseconds between two frames, at least
const RETRY = 3000; // milliseconds between attempts to start a lost camera
const FROZEN = 6000; // milliseconds without a new picture after which a camera is lost

// ---------------------------------------------------------------- camera

export let stream = null;
let wanted = false; // somebody started it and nobody stopped it
let starting = null;
let again = 0; // the timer of the next attempt; there is never more than one

const WHY = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the address, or choose a photo instead.",
  NotReadableError: "The camera is used by another program. Close that one; it is tried again.",
};

export function startCamera() {
  wanted = true;
  starting ??= open().finally(() => { starting = null; });
  return starting;
}

async function open() {
  if (stream) return;
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "NoMediaDevices");
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (e) {
    const secure = e.name !== "NoMediaDevices";
    trouble("camera", !secure ? "Browsers give the camera to pages on the same machine or over HTTPS only. Choose a photo instead."
      : WHY[e.name] ?? "No camera was found. Plug one in; it is tried again. Or choose a photo.");
    if (secure && e.name !== "NotAllowedError") retryLater();
    else wanted = false;
    return;
  }
  if (!wanted) return stopCamera();
  trouble("camera");
  stream.getVideoTracks()[0].onended = lost;
  for (const video of [$("video"), $("finder")]) {
    video.srcObject = stream;
    video.hidden = false;
    video.play().catch(() => {}); // not waited for: a camera that is lost meanwhile never plays
  }
  $("photo").hidden = $("finder-note").hidden = true;
  $("look-camera").textContent = "Stop camera";
  $("shoot").textContent = "Take photo";
  clearAnswer();
  keepAwake();
  watch(stream);
}

const retry = () => { if (wanted && !stream) startCamera(); };
function retryLater() {
  clearTimeout(again);
  again = setTimeout(retry, RETRY);
}
navigator.mediaDevices?.addEventListener("devicechange", retry);

function lost() {
  close();
  trouble("camera", "The camera is gone. Plug it in again: it starts by itself.");
  retryLater();
}

export function stopCamera() {
  wanted = false;
  trouble("camera");
  close();
}

function close() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("video").hidden = $("finder").hidden = true;
  $("finder-note").hidden = false;
  $("look-camera").textContent = $("shoot").textContent = "Start camera";
  clearAnswer();
}

export const toggleCamera = () => (stream ? stopCamera() : startCamera());
$("look-camera").onclick = toggleCamera;

function keepAwake() {
  navigator.wakeLock?.request("screen").catch(() => {}); // a browser may not have it, a battery may be low
}
document.addEventListener("visibilitychange", () => { if (stream && !document.hidden) keepAwake(); });

export async function grab(video, longSide) {
  const factor = Math.min(1, longSide / Math.max(video.videoWidth, video.videoHeight, 1));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(video.videoWidth * factor));
  canvas.height = Math.max(1, Math.round(video.videoHeight * factor));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
}

async function watch(mine) {
  let shown = -1;
  let since = performance.now();
  while (stream === mine) {
    if ($("look").hidden || document.hidden) {
      since = performance.now();
      await sleep(200);
      continue;
    }
    if ($("video").currentTime !== shown) [shown, since] = [$("video").currentTime, performance.now()];
    else if (performance.now() - since > FROZEN) return lost();
    if (!$("video").videoWidth) {
      await sleep(200);
      continue;
    }
    try {
      const answer = await call("POST", "v1/identify", { query: { session }, body: await grab($("video"), LONG_SIDE) });
      if (stream !== mine || $("look").hidden) continue;
      trouble("task");
      steady(answer);
    } catch (e) {
      if (stream !== mine) return;
      if (e.status && e.status !== 503) trouble("task", e.message);
      await sleep(e.status === 503 ? 400 : 2000);
    }
    await sleep(PAUSE);
  }
}

// ---------------------------------------------------------------- the answer

export function clearAnswer() {
  setAnswer("idle", "Ready", "Show me a place", null, "");
  runnersUp([], null);
  setProof(null);
}

function setAnswer(state, kicker, name, probability, why) {
  $("answer").dataset.state = state;
  $("kicker").textContent = kicker;
  if ($("name").textContent !== name) { // or it would be read aloud again
    $("name").textContent = name;
    $("name").dataset.length = name.length > 70 ? "huge" : name.length > 26 ? "long" : name.length > 12 ? "" : "short";
  }
  $("meter").hidden = probability === null;
  if (probability !== null) $("bar").style.width = `${Math.round(probability * 100)}%`;
  $("why").textContent = why;
  about(null);
}

// What the catalogue says of the place, always as text: whatever is in it came from somebody's table.
function about(info) {
  const words = info ? [info.title !== info.name ? info.title : "", info.summary ?? ""].filter(Boolean).join(". ") : "";
  $("about").hidden = !words;
  $("about").textContent = words;
  $("about").lang = info?.language ?? "";
}

function found(name, a) {
  setAnswer("present", "This is", name, a.probability, `${plural(a.n_inliers, "matched point")}, ${sure(a.probability)}`);
  about(a.info);
}
const sure = (p) => (p > 0.99 ? "more than 99\u00a0% sure" : `${Math.round(p * 100)}\u00a0% sure`);

const faces = new Map(); // image id -> its small picture, kept so that it does not blink
function face(id) {
  if (!faces.has(id)) {
    if (faces.size > 200) faces.clear();
    const image = Object.assign(document.createElement("img"), { alt: "" });
    faces.set(id, image);
    picture(id).then((url) => { if (url) image.src = url; });
  }
  return faces.get(id);
}

// Other places that some points agree with; those that share none are no runners-up.
function runnersUp(matches, name) {
  const rest = matches.filter((m) => m.landmark !== name && m.n_inliers > 0).slice(0, 3);
  rest.sort((a, b) => b.n_inliers - a.n_inliers);
  $("others").hidden = rest.length === 0;
  $("others-title").textContent = name ? "Next best" : "Not close enough";
  $("runners").replaceChildren(...rest.map((m) => {
    const item = document.createElement("li");
    const label = Object.assign(document.createElement("bdi"), { textContent: m.landmark, title: m.landmark });
    const value = Object.assign(document.createElement("small"), { textContent: plural(m.n_inliers, "matched point") });
    item.append(face(m.image_id), label, value);
    return item;
  }));
}

const SKIPPED = { // what the camera sees while nothing can be told, and what to do
  black: ["Too dark", "Turn on a light, or uncover the camera."],
  "blown out": ["Too bright", "Turn the camera away from the light."],
  flat: ["Nothing to see", "Point the camera at a place."],
  blurred: ["Blurred", "Hold still for a moment."],
};

// A frame of the camera: what counts is what the frames so far amount to.
function steady(answer) {
  const name = answer.present.at(-1);
  if (name) {
    if (answer.landmark === name) {
      found(name, answer);
      runnersUp(answer.matches, name);
      setProof(answer.proof);
    } else if (!answer.skipped) setProof(null);
    else if ($("name").textContent !== name) setAnswer("present", "This is", name, null, "");
  } else if (answer.skipped && SKIPPED[answer.verdict]) {
    setAnswer("looking", "Looking", SKIPPED[answer.verdict][0], null, SKIPPED[answer.verdict][1]);
    runnersUp([], null);
    setProof(null);
  } else if (answer.state === "unknown") {
    setAnswer("unknown", "I don't know this place", "Unknown", null, "Try another view, or teach it: Teach.");
    if (!answer.skipped) runnersUp(answer.matches, null);
    setProof(null);
  } else {
    setAnswer("looking", "Looking", "One moment", null, "");
    runnersUp([], null);
    setProof(null);
  }
}

export async function identify(file) {
  if (!file) return;
  if (stream || wanted) stopCamera();
  trouble("task");
  URL.revokeObjectURL($("photo").src);
  $("photo").src = URL.createObjectURL(file);
  $("photo").hidden = false;
  setAnswer("looking", "Looking", "One moment", null, "");
  runnersUp([], null);
  setProof(null);
  try {
    const answer = await call("POST", "v1/identify", { body: file });
    if (answer.landmark) found(answer.landmark, answer);
    else setAnswer("unknown", "I don't know this place", "Unknown", null, "Try another view, or teach it: Teach.");
    $("why").title = answer.reason;
    runnersUp(answer.matches, answer.landmark);
    setProof(answer.landmark ? answer.proof : null);
  } catch (e) {
    $("photo").hidden = true;
    clearAnswer();
    if (e.status) trouble("task", e.message);
  }
}
$("file").onchange = (event) => { identify(event.target.files[0]); event.target.value = ""; };

// ---------------------------------------------------------------- the invitation

const TILES = 12;
// While nobody asks: some of the places that would be recognised.
export async function invite() {
  let known;
  try {
    known = (await call("GET", "v1/landmarks", { quiet: true })).landmarks.filter((place) => place.images.length);
  } catch {
    return; // from another machine, without the token: the plain invitation
  }
  $("invite").dataset.known = known.length ? "some" : "none";
  $("invite-words").textContent = known.length
    ? `Point the camera at one of ${plural(known.length, "place")}, or drop a photo here.`
    : "I know no place yet. Teach me the first one.";
  const tiles = [];
  for (let i = 0; i < Math.min(TILES, known.length); i += 1) {
    const place = known[Math.floor((i * known.length) / Math.min(TILES, known.length))];
    const url = await picture(place.images[0].id);
    if (url) tiles.push(Object.assign(document.createElement("img"), { src: url, alt: "" }));
  }
  $("mosaic").replaceChildren(...tiles);
  arrange();
}
arrange();
