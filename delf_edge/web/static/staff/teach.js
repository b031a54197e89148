// Teaching: three photos, how good they are, and a name.

import { $, call, insist, plural, trouble } from "./service.js";
import { grab, startCamera, stream } from "./look.js";

const WANTED = 3;
const GOOD = 70; // the score from which on a photo needs no advice
let shots = []; // {blob, url, quality}
let saving = false;

function drawShots() {
  const slots = Math.max(WANTED, shots.length);
  $("shots").replaceChildren(...Array.from({ length: slots }, (_, i) => (shots[i] ? drawShot(shots[i], i) : drawSlot(i))));
  $("save").disabled = saving || shots.length === 0 || shots.some((shot) => !shot.quality);
  $("save").textContent = saving ? "Saving" : shots.length ? `Save ${plural(shots.length, "photo")}` : "Save";
}

function drawSlot(i) {
  const item = document.createElement("li");
  item.append(Object.assign(document.createElement("div"), { className: "frame", textContent: String(i + 1) }));
  return item;
}

function drawShot(shot, i) {
  const item = document.createElement("li");
  const frame = Object.assign(document.createElement("div"), { className: "frame" });
  const image = Object.assign(document.createElement("img"), { src: shot.url, alt: `Photo ${i + 1}` });
  const score = Object.assign(document.createElement("span"), { className: "score", textContent: "…" });
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  remove.ariaLabel = `Remove photo ${i + 1}`;
  remove.disabled = saving;
  remove.onclick = () => forget(shot);
  const words = Object.assign(document.createElement("span"), { textContent: "Looking at it" });
  if (shot.quality) {
    score.textContent = String(shot.quality.score);
    score.title = "Quality, 0 to 100";
    score.dataset.level = shot.quality.score >= GOOD ? "good" : shot.quality.score >= 40 ? "fair" : "poor";
    const advice = shot.quality.reasons[0] ?? "a good photo";
    words.textContent = `${advice[0].toUpperCase()}${advice.slice(1)}.`;
  }
  frame.append(image, score, remove);
  item.append(frame, words);
  return item;
}

function forget(shot) {
  URL.revokeObjectURL(shot.url);
  shots = shots.filter((other) => other !== shot);
  drawShots();
}

async function judge(shot) {
  const landmark = $("landmark").value.trim();
  try {
    shot.quality = await insist("POST", "v1/quality", { body: shot.blob, query: landmark ? { landmark } : {} });
  } catch (e) {
    forget(shot);
    trouble("task", e.message);
  }
  drawShots();
}

export async function addShots(blobs) {
  $("saved").textContent = "";
  trouble("task");
  for (const blob of blobs) {
    const shot = { blob, url: URL.createObjectURL(blob), quality: null };
    shots.push(shot);
    drawShots();
    await judge(shot);
  }
}

// A photo that resembles the very place it is of is not confused with another one.
$("landmark").onchange = async () => {
  const name = $("landmark").value.trim();
  for (const shot of shots.filter((s) => s.quality?.confused_with === name)) await judge(shot);
};

$("shoot").onclick = async () => (stream ? addShots([await grab($("finder"), 1600)]) : startCamera());
$("files").onchange = (event) => { addShots([...event.target.files]); event.target.value = ""; };

$("enrol").onsubmit = async (event) => {
  event.preventDefault();
  const landmark = $("landmark").value.trim();
  if (!landmark || !shots.length || saving) return;
  saving = true;
  trouble("task");
  const all = shots.length;
  let done = 0;
  drawShots();
  try {
    while (shots.length) { // one by one: what is stored stays stored, whatever comes; again is the same photo
      await insist("POST", "v1/images", { query: { landmark }, body: shots[0].blob });
      done += 1;
      forget(shots[0]);
    }
    $("saved").textContent = `${landmark} is known now (${plural(all, "photo")}). Try it: Look.`;
    $("landmark").value = "";
  } catch (e) {
    const saved = done ? `${done} of ${all} photos are saved.` : "Nothing is saved yet.";
    trouble("task", `${saved} ${e.status ? e.message : "The service stopped; save the rest when it answers again."}`);
  }
  saving = false;
  drawShots();
};

// The names that are known already, to add photos to one of them.
export async function suggest() {
  const { landmarks } = await call("GET", "v1/landmarks", { quiet: true }).catch(() => ({ landmarks: [] }));
  $("names").replaceChildren(...landmarks.map(({ name }) => Object.assign(document.createElement("option"), { value: name })));
}

drawShots();
