// A camera that comes back: it is asked for until it is there, and again when it is lost or hangs.
// Events: "open", "lost" (with detail: "denied", "insecure" or "missing").

const RETRY = 3000; // milliseconds between attempts
const FROZEN = 6000; // milliseconds and
const CHECKS = 30; // looks without a new picture, after which a camera is lost; a sleeping machine's clock jumps
const KEY = "delf-edge camera"; // what staff have set on this machine

export function savedSettings() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}
export const saveSettings = (settings) => localStorage.setItem(KEY, JSON.stringify(settings));
export const forgetSettings = () => localStorage.removeItem(KEY);

export class Camera extends EventTarget {
  // settings: label (part of a name), mirror, rotation (degrees clockwise)
  constructor(video, settings) {
    super();
    this.video = video;
    this.settings = settings;
    this.stream = null;
    this.wanted = false;
    this.timer = 0;
    this.opening = null;
    navigator.mediaDevices?.addEventListener("devicechange", () => this.retry());
    document.addEventListener("visibilitychange", () => { if (this.stream && !document.hidden) this.keepAwake(); });
  }

  get running() {
    return this.stream !== null;
  }

  start() {
    this.wanted = true;
    this.opening ??= this.open().finally(() => { this.opening = null; });
    return this.opening;
  }

  stop() {
    this.wanted = false;
    this.close();
  }

  retry() {
    if (this.wanted && !this.stream) this.start();
  }

  async open() {
    if (this.stream) return;
    let stream;
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "NoMediaDevices");
      stream = await this.choose();
    } catch (e) {
      this.tell({ NotAllowedError: "denied", NoMediaDevices: "insecure" }[e.name] ?? "missing");
      clearTimeout(this.timer);
      if (e.name !== "NoMediaDevices") this.timer = setTimeout(() => this.retry(), e.name === "NotAllowedError" ? 5 * RETRY : RETRY);
      return;
    }
    if (!this.wanted) return stream.getTracks().forEach((track) => track.stop());
    this.stream = stream;
    this.shown = -1;
    stream.getVideoTracks()[0].onended = () => this.lose();
    this.video.srcObject = stream;
    this.video.play().catch(() => {}); // not waited for: a camera that is lost meanwhile never plays
    this.keepAwake();
    this.dispatchEvent(new Event("open"));
  }

  // The camera of the wanted name; names are known only once a camera was allowed.
  async choose() {
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", ...size } });
    const { label } = this.settings;
    if (!label || stream.getVideoTracks()[0].label.includes(label)) return stream;
    const devices = await navigator.mediaDevices.enumerateDevices();
    const wanted = devices.find((device) => device.kind === "videoinput" && device.label.includes(label));
    if (!wanted) return stream; // better another camera than none
    stream.getTracks().forEach((track) => track.stop());
    return navigator.mediaDevices.getUserMedia({ video: { deviceId: { exact: wanted.deviceId }, ...size } });
  }

  lose() {
    this.close();
    this.tell("missing");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.retry(), RETRY);
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
    this.video.srcObject = null;
  }

  tell(why) {
    this.dispatchEvent(new CustomEvent("lost", { detail: why }));
  }

  keepAwake() {
    navigator.wakeLock?.request("screen").catch(() => {}); // a browser may not have it, a battery may be low
  }

  // Whether there is a picture; a camera that shows the same one for long is lost.
  ready() {
    if (!this.stream) return false;
    const { currentTime, videoWidth } = this.video;
    if (currentTime !== this.shown) [this.shown, this.since, this.checks] = [currentTime, performance.now(), 0];
    else this.checks += 1;
    if (this.checks > CHECKS && performance.now() - this.since > FROZEN) this.lose();
    return Boolean(this.stream) && videoWidth > 0;
  }

  // The picture as it stands upright, as a JPEG.
  frame(longSide) {
    const { videoWidth, videoHeight } = this.video;
    const factor = Math.min(1, longSide / Math.max(videoWidth, videoHeight, 1));
    const [width, height] = [Math.max(1, Math.round(videoWidth * factor)), Math.max(1, Math.round(videoHeight * factor))];
    const lying = this.settings.rotation % 180 !== 0;
    const canvas = Object.assign(document.createElement("canvas"), { width: lying ? height : width, height: lying ? width : height });
    const context = canvas.getContext("2d");
    context.translate(canvas.width / 2, canvas.height / 2);
    context.rotate((this.settings.rotation * Math.PI) / 180);
    context.drawImage(this.video, -width / 2, -height / 2, width, height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
  }

  // How the element shows it: turned, and as a mirror where visitors expect one.
  lay(holder) {
    holder.dataset.rotation = String(this.settings.rotation);
    holder.dataset.mirror = String(this.settings.mirror);
  }
}
