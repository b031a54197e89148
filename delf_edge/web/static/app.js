// The kiosk page: its three views. It talks to the service that served it and to nobody else.

import { $, hash, trouble, untouched } from "./service.js";
import { arrange } from "./stage.js";
import { clearAnswer, identify, invite, startCamera, stream, toggleCamera } from "./look.js";
import { addShots, suggest } from "./teach.js";
import { refreshPlaces } from "./places.js";

const HOME = 3 * 60_000; // milliseconds without a touch after which a kiosk (#camera) looks again
const VIEWS = ["look", "teach", "places"];
let view = "look";

function show(next) {
  view = document.body.dataset.view = next;
  for (const name of VIEWS) $(name).hidden = name !== next;
  for (const button of document.querySelectorAll("nav button")) {
    if (button.dataset.view === next) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  trouble("task");
  refresh();
}

function refresh() {
  if (view === "look") invite();
  if (view === "teach") suggest();
  if (view === "places") refreshPlaces();
  if (stream) for (const video of [$("video"), $("finder")]) video.play().catch(() => {});
  arrange();
}
document.addEventListener("service-back", refresh);

for (const button of document.querySelectorAll("nav button")) button.onclick = () => show(button.dataset.view);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (VIEWS[event.key - 1]) show(VIEWS[event.key - 1]);
  if (event.key === "c" && view === "look") toggleCamera();
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    const files = [...event.dataTransfer.files];
    if (view === "teach") return addShots(files);
    show("look");
    identify(files[0]);
  });
}

// A visitor has gone: the next one finds the camera looking.
setInterval(() => {
  if (!hash.has("camera") || untouched() < HOME || document.querySelector("dialog[open]")) return;
  if (view !== "look") show("look");
  if (!stream) {
    if (!$("photo").hidden) {
      $("photo").hidden = true;
      clearAnswer();
    }
    startCamera();
  }
}, 5000);

show("look");
window.kioskReady = true;
