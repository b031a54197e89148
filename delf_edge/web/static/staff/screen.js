// The camera of this screen: which one, mirrored, turned. It is kept in this browser, for the visitors' page.

import { forgetSettings, saveSettings, savedSettings } from "../shared/camera.js";
import { $, call, trouble } from "./service.js";
import { startCamera, stream } from "./look.js";

export async function refreshScreen() {
  if (!stream) await startCamera(); // names of cameras are known only where one is allowed
  const found = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
  const saved = savedSettings();
  const labels = found.filter((device) => device.kind === "videoinput").map((device) => device.label);
  $("screen-camera").replaceChildren(new Option("Any camera", ""), ...labels.map((label) => new Option(label, label, false, label === saved.label)));
  $("screen-mirror").checked = saved.mirror ?? false;
  $("screen-rotation").value = String(saved.rotation ?? 0);
  const status = await call("GET", "v1/status", { quiet: true }).catch(() => null);
  if (!status) return;
  const rows = {
    Version: status.version, Database: `${status.database.name}, ${status.database.landmarks} places, ${status.database.images} photos`,
    Bundle: status.bundle, "Last frame": status.last_frame ?? "none yet", Packs: status.packs.join(", ") || "none",
    Today: `${status.today.found} found, ${status.today.unknown} not known`,
  };
  $("screen-status").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }),
  ]));
}

$("screen-form").onsubmit = (event) => {
  event.preventDefault();
  saveSettings({ label: $("screen-camera").value, mirror: $("screen-mirror").checked, rotation: Number($("screen-rotation").value) });
  $("screen-saved").textContent = "Saved. The visitors' page takes it up when it is opened again.";
  trouble("task");
};
$("screen-forget").onclick = () => {
  forgetSettings();
  $("screen-saved").textContent = "The settings of the branding file hold again.";
  refreshScreen();
};
