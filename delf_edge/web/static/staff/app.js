// The staff's page: its views. It talks to the service that served it and to nobody else.

import { $, beginSession, trouble } from "./service.js";
import { arrange } from "./stage.js";
import { identify, invite, stream, toggleCamera } from "./look.js";
import { addShots, suggest } from "./teach.js";
import { refreshPlaces } from "./places.js";
import { refreshCheck, refreshQuestions, refreshStatistics } from "./reports.js";
import { refreshScreen } from "./screen.js";

const VIEWS = ["look", "teach", "places", "statistics", "check", "questions", "screen"];
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
  if (view === "statistics") refreshStatistics();
  if (view === "check") refreshCheck();
  if (view === "questions") refreshQuestions();
  if (view === "screen") refreshScreen();
  if (stream) for (const video of [$("video"), $("finder")]) video.play().catch(() => {});
  arrange();
}
document.addEventListener("service-back", refresh);

for (const button of document.querySelectorAll("nav button")) button.onclick = () => show(button.dataset.view);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
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

await beginSession();
show("look");
window.kioskReady = true;
