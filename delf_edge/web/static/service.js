// Asking the service that served this page, the token, and what has gone wrong.

export const $ = (id) => document.getElementById(id);
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
export const hash = new URLSearchParams(location.hash.slice(1)); // #camera starts it by itself, #token=... is one

const FORGET = 10 * 60_000; // milliseconds without a touch after which a kiosk forgets the token
const HERE = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// ---------------------------------------------------------------- trouble

const troubles = new Map(); // about what ("camera", "service", "task") -> words; the last one is shown
export function trouble(about, words = "") {
  if (troubles.get(about) === words) return;
  troubles.delete(about);
  if (words) troubles.set(about, words);
  const last = [...troubles.values()].at(-1);
  $("trouble").hidden = !last;
  $("trouble-words").textContent = last ?? "";
}
$("trouble-close").onclick = () => {
  for (const about of [...troubles.keys()]) trouble(about);
};

// ---------------------------------------------------------------- the token

let token = "";
let touched = Date.now();
setToken(hash.get("token") || sessionStorage.getItem("token") || "");
if (hash.has("token")) {
  hash.delete("token"); // so that nobody reads it off the screen
  history.replaceState(null, "", location.pathname + (hash.has("camera") ? "#camera" : ""));
}

function setToken(next) {
  token = next;
  if (token) sessionStorage.setItem("token", token);
  else sessionStorage.removeItem("token");
  $("lock").hidden = !token;
}
$("lock").onclick = () => setToken("");
for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => { touched = Date.now(); }, true);
export const untouched = () => Date.now() - touched;
setInterval(() => { if (HERE && untouched() > FORGET) setToken(""); }, 5000);

// A dialog's answer: true after `yes` has called its argument, false after the `no` button or Escape.
export function ask(dialog, yes, no) {
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
      setToken($("token").value.trim());
      $("token").value = "";
      end();
    };
  }, $("token-cancel")).finally(() => { asking = null; });
  return asking;
}

// ---------------------------------------------------------------- requests

// `quiet` neither asks for the token nor tells of trouble.
export async function call(method, path, { query = {}, body, raw = false, quiet = false } = {}) {
  const url = path + (Object.keys(query).length ? "?" + new URLSearchParams(query) : "");
  for (let attempt = 0; ; attempt += 1) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(url, { method, body, headers, cache: raw ? "default" : "no-store" });
    } catch {
      if (!quiet) gone();
      throw new Refused(0, "The service does not answer.");
    }
    if (response.status === 401 && !quiet) {
      if (attempt === 0 && (await askToken())) continue;
      const wrong = attempt > 0;
      setToken("");
      throw new Refused(401, wrong ? "That token is not the right one." : "Nothing was changed: only staff can do this.");
    }
    if (response.ok) return raw ? response.blob() : response.json();
    const problem = await response.json().catch(() => ({ error: response.statusText }));
    throw new Refused(response.status, problem.error);
  }
}

// The same again while the service is busy (503): for work that must not be lost.
export async function insist(method, path, options, tries = 30) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call(method, path, options);
    } catch (e) {
      if (e.status !== 503 || attempt === tries) throw e;
      await sleep(800);
    }
  }
}

let waiting = false;
async function gone() {
  if (waiting) return;
  waiting = true;
  trouble("service", "The service does not answer. Please wait a moment, it is tried again.");
  for (;;) {
    await sleep(1500);
    const answer = await fetch("/healthz", { cache: "no-store" }).catch(() => null);
    if (answer?.ok) break;
  }
  waiting = false;
  trouble("service");
  document.dispatchEvent(new Event("service-back"));
}

const pictures = new Map(); // image id -> promise of an object URL, or null where there is no picture
export function picture(id) {
  if (!pictures.has(id)) {
    const url = call("GET", `/v1/images/${id}/thumbnail`, { raw: true, quiet: true }).then((b) => URL.createObjectURL(b));
    pictures.set(id, url.catch((e) => {
      if (e.status !== 404) pictures.delete(id); // busy or gone: it is there the next time
      return null;
    }));
  }
  return pictures.get(id);
}
