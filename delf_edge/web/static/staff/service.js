// Asking the service as staff: signing in by PIN or token, and what has gone wrong.

import { Refused, request, sleep, thumbnailPath } from "../shared/requests.js";

export { Refused, sleep };
export const $ = (id) => document.getElementById(id);
export const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
export const hash = new URLSearchParams(location.hash.slice(1)); // #token=... signs in

const IDLE = 3 * 60_000; // milliseconds without a touch after which staff are signed out

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

// ---------------------------------------------------------------- signing in

let touched = Date.now();
for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => { touched = Date.now(); }, true);

const signedIn = () => !$("lock").hidden;
function setSignedIn(yes) {
  $("lock").hidden = !yes;
  document.dispatchEvent(new CustomEvent("signed", { detail: yes }));
}

async function signIn(secret) {
  await request("POST", "v1/staff/session", { json: { secret } });
  setSignedIn(true);
}

export async function signOut() {
  await request("DELETE", "v1/staff/session").catch(() => {}); // the service forgets it by itself, too
  setSignedIn(false);
}
$("lock").onclick = () => signOut().then(() => location.reload());

// The session that this browser has, or the one of #token=...
export async function beginSession() {
  const token = hash.get("token");
  if (token) {
    hash.delete("token"); // so that nobody reads it off the screen
    history.replaceState(null, "", location.pathname);
    await signIn(token).catch((e) => trouble("task", e.message));
  } else {
    const session = await request("GET", "v1/staff/session").catch(() => ({ staff: false }));
    setSignedIn(session.staff);
  }
}

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
export function askToSignIn() {
  $("token").value = "";
  $("token-wrong").hidden = true;
  asking ??= ask($("ask-token"), (end) => {
    $("token-form").onsubmit = async (event) => {
      event.preventDefault();
      const secret = $("token").value.trim();
      $("token").value = "";
      try {
        await signIn(secret);
        end();
      } catch (e) {
        $("token-wrong").textContent = e.status === 401 ? "That is neither the PIN nor the token." : e.message;
        $("token-wrong").hidden = false;
        $("token").focus();
      }
    };
  }, $("token-cancel")).finally(() => { asking = null; });
  return asking;
}

// A kiosk may have no keyboard.
$("keypad").append(..."123456789⌫0".split("").map((sign) => {
  const key = Object.assign(document.createElement("button"), { type: "button", textContent: sign });
  if (sign === "⌫") key.ariaLabel = "Delete the last digit";
  key.onclick = () => { $("token").value = sign === "⌫" ? $("token").value.slice(0, -1) : $("token").value + sign; };
  return key;
}));

// Staff have gone: whoever comes next finds nothing open.
setInterval(() => {
  if (Date.now() - touched < IDLE || !signedIn()) return;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  signOut().then(() => location.reload());
}, 5000);

// ---------------------------------------------------------------- requests

// `quiet` neither asks to sign in nor tells of trouble.
export async function call(method, path, { quiet = false, ...options } = {}) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await request(method, path, options);
    } catch (e) {
      if (e.status === 0 && !quiet) gone();
      if (e.status !== 401 || quiet) throw e;
      setSignedIn(false);
      if (attempt === 0 && (await askToSignIn())) continue;
      throw new Refused(401, "Nothing was changed: only staff can do this.");
    }
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
    if (await request("GET", "healthz", { seconds: 5 }).catch(() => null)) break;
  }
  waiting = false;
  trouble("service");
  document.dispatchEvent(new Event("service-back"));
}

const pictures = new Map(); // image id -> promise of an object URL, or null where there is no picture
export function picture(id) {
  if (!pictures.has(id)) {
    const url = call("GET", thumbnailPath(id), { raw: true, quiet: true }).then((b) => URL.createObjectURL(b));
    pictures.set(id, url.catch((e) => {
      if (e.status !== 404) pictures.delete(id); // busy or gone: it is there the next time
      return null;
    }));
  }
  return pictures.get(id);
}
