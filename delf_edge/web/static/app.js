// The kiosk page. It talks to the service that served it and to nobody else.

const $ = (id) => document.getElementById(id);
const session = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
const LONG_SIDE = 800; // pixels of the frames that are sent
const PAUSE = 120; // milliseconds between two frames, at least

let token = sessionStorage.getItem("token") || "";
const inHash = new URLSearchParams(location.hash.slice(1)).get("token");
if (inHash) {
  token = inHash;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname); // so that nobody reads it off the screen
}

// ---------------------------------------------------------------- the service

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, { query = {}, body, raw = false } = {}) {
  const url = path + (Object.keys(query).length ? "?" + new URLSearchParams(query) : "");
  for (let attempt = 0; ; attempt += 1) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(url, { method, body, headers, cache: raw ? "default" : "no-store" });
    } catch {
      throw new Refused(0, "The service does not answer. It is tried again.");
    }
    if (response.status === 401 && attempt === 0 && (await askToken())) continue;
    if (response.ok) return raw ? response.blob() : response.json();
    const problem = await response.json().catch(() => ({ error: response.statusText }));
    throw new Refused(response.status, problem.error);
  }
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text || "";
}

function ask(dialog, yes, no) {
  return new Promise((resolve) => {
    const end = (value) => {
      dialog.onclose = null;
      if (dialog.open) dialog.close();
      resolve(value);
    };
    yes(() => end(true));
    no.onclick = () => end(false);
    dialog.onclose = () => end(false);
    dialog.showModal();
  });
}

let asking = null;
function askToken() {
  asking ??= ask($("ask-token"), (end) => {
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      token = $("token").value.trim();
      sessionStorage.setItem("token", token);
      $("token").value = "";
      end();
    };
  }, $("token-cancel")).finally(() => { asking = null; });
  return asking;
}

// ---------------------------------------------------------------- views

let view = "look";
function show(next) {
  view = next;
  for (const name of ["look", "teach", "places"]) $(name).hidden = name !== next;
  for (const button of document.querySelectorAll("nav button")) {
    if (button.dataset.view === next) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  trouble("");
  if (next === "places") refreshPlaces();
  if (next === "teach" && stream) $("finder").play();
  redraw();
}
for (const button of document.querySelectorAll("nav button")) button.onclick = () => show(button.dataset.view);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const views = { 1: "look", 2: "teach", 3: "places" };
  if (views[event.key]) show(views[event.key]);
  if (event.key === "c" && view === "look") toggleCamera();
});

// ---------------------------------------------------------------- camera

let stream = null;
async function startCamera() {
  if (!navigator.mediaDevices) throw new Error("The browser gives the camera to pages on this machine or over HTTPS only.");
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (e) {
    throw new Error(e.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : "No camera was found. Is it plugged in?");
  }
  stream.getVideoTracks()[0].onended = () => {
    stopCamera();
    trouble("The camera was unplugged. Plug it in and start it again.");
  };
  for (const video of [$("video"), $("finder")]) {
    video.srcObject = stream;
    video.hidden = false;
    await video.play().catch(() => {});
  }
  $("photo").hidden = $("invite").hidden = $("finder-note").hidden = true;
  $("camera").textContent = "Stop camera";
  $("shoot").textContent = "Take photo";
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("video").hidden = $("finder").hidden = true;
  $("finder-note").hidden = $("invite").hidden = false;
  $("camera").textContent = "Start camera";
  $("shoot").textContent = "Start camera";
  clearAnswer();
}

async function toggleCamera() {
  trouble("");
  try {
    if (stream) return stopCamera();
    await startCamera();
    clearAnswer();
    watch(stream);
  } catch (e) {
    trouble(e.message);
  }
}
$("camera").onclick = toggleCamera;
$("shoot").textContent = "Start camera";

async function grab(video, longSide) {
  const factor = Math.min(1, longSide / Math.max(video.videoWidth, video.videoHeight, 1));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(video.videoWidth * factor));
  canvas.height = Math.max(1, Math.round(video.videoHeight * factor));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function watch(mine) {
  while (stream === mine) {
    if (view !== "look" || document.hidden || !$("video").videoWidth) {
      await sleep(200);
      continue;
    }
    try {
      const answer = await call("POST", "/v1/identify", { query: { session }, body: await grab($("video"), LONG_SIDE) });
      if (stream !== mine || view !== "look") continue;
      trouble("");
      steady(answer);
    } catch (e) {
      if (stream !== mine) return;
      if (e.status !== 503) trouble(e.message);
      await sleep(e.status === 503 ? 400 : 2000);
    }
    await sleep(PAUSE);
  }
}

// ---------------------------------------------------------------- the answer

let proof = null; // of the answer that is shown
let proofNumber = 0;

function clearAnswer() {
  setAnswer("idle", "Ready", "Show me a place", null, "");
  $("others").hidden = true;
  setProof(null);
}

function setAnswer(state, kicker, name, probability, why) {
  $("answer").dataset.state = state;
  $("kicker").textContent = kicker;
  if ($("name").textContent !== name) $("name").textContent = name; // or it would be read aloud again
  $("meter").hidden = probability === null;
  if (probability !== null) $("bar").style.width = `${Math.round(probability * 100)}%`;
  $("why").textContent = why;
}

function runnersUp(matches, name) {
  const rest = matches.filter((m) => m.landmark !== name).slice(0, 3);
  $("others").hidden = rest.length === 0;
  $("runners").replaceChildren(...rest.map((m) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    const value = document.createElement("span");
    label.textContent = m.landmark;
    value.textContent = `${Math.round(m.probability * 100)} %, ${points(m.n_inliers)}`;
    item.append(label, value);
    return item;
  }));
}

const points = (n) => `${n} matched point${n === 1 ? "" : "s"}`;

// A frame of the camera: what counts is what the frames so far amount to.
function steady(answer) {
  const name = answer.present.at(-1);
  if (name) {
    if (answer.landmark === name) {
      setAnswer("present", "This is", name, answer.probability, `${points(answer.n_inliers)}, ${Math.round(answer.probability * 100)} % sure`);
      runnersUp(answer.matches, name);
      setProof(answer.proof);
    } else if (!answer.skipped) setProof(null);
    else if ($("name").textContent !== name) setAnswer("present", "This is", name, null, "");
  } else if (answer.state === "unknown") {
    setAnswer("unknown", "I don't know this place", "Unknown", null, "Try another view, or teach it to me.");
    if (!answer.skipped) runnersUp(answer.matches, null);
    setProof(null);
  } else {
    setAnswer("looking", "Looking", "One moment", null, "");
    $("others").hidden = true;
    setProof(null);
  }
}

function single(answer) {
  if (answer.landmark) {
    setAnswer("present", "This is", answer.landmark, answer.probability, `${points(answer.n_inliers)}, ${Math.round(answer.probability * 100)} % sure`);
  } else {
    setAnswer("unknown", "I don't know this place", "Unknown", null, answer.reason);
  }
  runnersUp(answer.matches, answer.landmark);
  setProof(answer.landmark ? answer.proof : null);
}

async function identify(file) {
  if (!file) return;
  if (stream) stopCamera();
  show("look");
  $("invite").hidden = true;
  $("photo").hidden = false;
  $("photo").src = URL.createObjectURL(file);
  setAnswer("looking", "Looking", "One moment", null, "");
  setProof(null);
  try {
    single(await call("POST", "/v1/identify", { body: file }));
  } catch (e) {
    clearAnswer();
    trouble(e.message);
  }
}
$("file").onchange = (event) => { identify(event.target.files[0]); event.target.value = ""; };

const pictures = new Map(); // image id -> promise of an object URL, or null where there is no picture
function picture(id) {
  if (!pictures.has(id)) {
    if (pictures.size > 300) pictures.clear();
    pictures.set(id, call("GET", `/v1/images/${id}/thumbnail`, { raw: true }).then((b) => URL.createObjectURL(b)).catch(() => null));
  }
  return pictures.get(id);
}

async function setProof(next) {
  const number = (proofNumber += 1);
  if (next) {
    const url = await picture(next.image_id);
    if (number !== proofNumber) return; // a newer answer came meanwhile
    if (url) {
      if ($("stored").src !== url) $("stored").src = url;
      $("stored").alt = `Stored photo of ${next.landmark}`;
      $("stored-name").textContent = next.landmark;
    }
    next = url ? next : null;
  }
  proof = next;
  $("known").hidden = !proof;
  redraw();
}

// Where object-fit: contain puts a picture of `size` within its element, in pixels of the stage.
function placed(element, size) {
  const stage = $("stage").getBoundingClientRect();
  const box = element.getBoundingClientRect();
  const factor = Math.min(box.width / size[0], box.height / size[1]);
  return {
    left: box.left - stage.left + (box.width - size[0] * factor) / 2,
    top: box.top - stage.top + (box.height - size[1] * factor) / 2,
    factor,
  };
}

function redraw() {
  const canvas = $("lines");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  if (!proof || view !== "look") return;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const query = placed(stream ? $("video") : $("photo"), proof.query_size);
  const stored = placed($("stored"), proof.stored_size);
  const at = (place, [x, y]) => [place.left + (x + 0.5) * place.factor, place.top + (y + 0.5) * place.factor];
  const total = proof.query_points.length;
  const every = Math.max(1, Math.ceil(total / 60)); // more lines than that hide the photos
  proof.query_points.forEach((from, i) => {
    const a = at(query, from);
    const b = at(stored, proof.stored_points[i]);
    const colour = `hsl(${Math.round((360 * i) / total)} 95% 60%)`;
    context.strokeStyle = context.fillStyle = colour;
    if (i % every === 0) {
      context.globalAlpha = 0.55;
      context.lineWidth = 1.25;
      context.beginPath();
      context.moveTo(...a);
      context.lineTo(...b);
      context.stroke();
    }
    context.globalAlpha = 1;
    for (const [x, y] of [a, b]) {
      context.beginPath();
      context.arc(x, y, 3.2, 0, 2 * Math.PI);
      context.fill();
      context.lineWidth = 1;
      context.strokeStyle = "rgb(0 0 0 / .6)";
      context.stroke();
      context.strokeStyle = colour;
    }
  });
}
new ResizeObserver(redraw).observe($("stage"));
$("stored").onload = redraw;
$("photo").onload = redraw;

// ---------------------------------------------------------------- drop

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    const files = [...event.dataTransfer.files];
    if (view === "teach") addShots(files);
    else identify(files[0]);
  });
}

// ---------------------------------------------------------------- teach

const WANTED = 3;
let shots = []; // {blob, url, quality}

function drawShots() {
  const slots = Math.max(WANTED, shots.length);
  $("shots").replaceChildren(...Array.from({ length: slots }, (_, i) => {
    const item = document.createElement("li");
    const frame = document.createElement("div");
    frame.className = "frame";
    item.append(frame);
    const shot = shots[i];
    if (!shot) {
      frame.textContent = String(i + 1);
      return item;
    }
    const image = document.createElement("img");
    image.src = shot.url;
    image.alt = `Photo ${i + 1}`;
    const score = document.createElement("span");
    score.className = "score";
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.ariaLabel = `Remove photo ${i + 1}`;
    remove.onclick = () => {
      shots = shots.filter((other) => other !== shot);
      drawShots();
    };
    frame.append(image, score, remove);
    const words = document.createElement("span");
    if (shot.quality) {
      score.textContent = `${shot.quality.score}`;
      score.title = "Quality, 0 to 100";
      score.dataset.level = shot.quality.score >= 70 ? "good" : shot.quality.score >= 40 ? "fair" : "poor";
      words.textContent = shot.quality.reasons[0] ?? "A good photo.";
    } else {
      score.textContent = "…";
      words.textContent = shot.problem ?? "Looking at it";
    }
    item.append(words);
    return item;
  }));
  $("save").disabled = shots.length === 0 || shots.some((shot) => !shot.quality);
  $("save").textContent = shots.length ? `Save ${shots.length} photo${shots.length === 1 ? "" : "s"}` : "Save";
}

async function addShots(blobs) {
  $("saved").textContent = "";
  for (const blob of blobs) {
    const shot = { blob, url: URL.createObjectURL(blob), quality: null };
    shots.push(shot);
    drawShots();
    for (let attempt = 0; attempt < 5; attempt += 1) {
      try {
        shot.quality = await call("POST", "/v1/quality", { body: blob, query: $("landmark").value.trim() ? { landmark: $("landmark").value.trim() } : {} });
        break;
      } catch (e) {
        if (e.status === 503) { await sleep(800); continue; }
        shots = shots.filter((other) => other !== shot);
        trouble(e.message);
        break;
      }
    }
    drawShots();
  }
}

$("shoot").onclick = async () => {
  trouble("");
  try {
    if (!stream) {
      await startCamera();
      watch(stream);
      return;
    }
    await addShots([await grab($("finder"), 1600)]);
  } catch (e) {
    trouble(e.message);
  }
};
$("files").onchange = (event) => { addShots([...event.target.files]); event.target.value = ""; };

$("enrol").onsubmit = async (event) => {
  event.preventDefault();
  const landmark = $("landmark").value.trim();
  if (!landmark || !shots.length) return;
  $("save").disabled = true;
  trouble("");
  const all = shots.length;
  let done = 0;
  try {
    while (shots.length) { // one by one: what is stored stays stored, whatever comes
      try {
        await call("POST", "/v1/images", { query: { landmark }, body: shots[0].blob });
      } catch (e) {
        if (e.status !== 503) throw e;
        await sleep(800);
        continue;
      }
      shots.shift();
      done += 1;
      drawShots();
      $("save").disabled = true;
    }
    $("saved").textContent = `${landmark} is known now (${all} photo${all === 1 ? "" : "s"}). Try it: Look.`;
    $("landmark").value = "";
  } catch (e) {
    trouble(`${done} of ${all} photos are saved. ${e.message}`);
  }
  drawShots();
};

// ---------------------------------------------------------------- places

let known = { landmarks: [], read_only: false };
async function refreshPlaces() {
  try {
    known = await call("GET", "/v1/landmarks");
    drawPlaces();
  } catch (e) {
    trouble(e.message);
  }
}

function drawPlaces() {
  const wanted = $("search").value.trim().toLowerCase();
  const shown = known.landmarks.filter((place) => place.name.toLowerCase().includes(wanted));
  $("count").textContent = String(known.landmarks.length);
  $("none").hidden = known.landmarks.length > 0;
  $("list").replaceChildren(...shown.map((place) => {
    const item = document.createElement("li");
    const frame = document.createElement("div");
    frame.className = "picture";
    const row = document.createElement("div");
    row.className = "row";
    const words = document.createElement("div");
    const name = document.createElement("strong");
    name.textContent = name.title = place.name;
    const count = document.createElement("small");
    count.textContent = `${place.images.length} photo${place.images.length === 1 ? "" : "s"}`;
    words.append(name, count);
    row.append(words);
    if (!known.read_only) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Delete";
      button.ariaLabel = `Delete ${place.name}`;
      button.onclick = () => removePlace(place);
      row.append(button);
    }
    item.append(frame, row);
    if (place.images.length) visible.observe(Object.assign(frame, { imageId: place.images[0].id, placeName: place.name }));
    return item;
  }));
}

// Pictures are fetched when they come into sight.
const visible = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    visible.unobserve(target);
    picture(target.imageId).then((url) => {
      if (!url) return;
      const image = document.createElement("img");
      image.src = url;
      image.alt = target.placeName;
      target.replaceChildren(image);
    });
  }
}, { rootMargin: "200px" });

async function removePlace(place) {
  $("delete-title").textContent = `Delete ${place.name}?`;
  if (!(await ask($("ask-delete"), (end) => { $("delete-yes").onclick = end; }, $("delete-no")))) return;
  try {
    if (place.images.length) await call("DELETE", "/v1/images", { query: { landmark: place.name } });
  } catch (e) {
    trouble(e.message);
  }
  refreshPlaces();
}
$("search").oninput = drawPlaces;

drawShots();
show("look");
window.kioskReady = true;
