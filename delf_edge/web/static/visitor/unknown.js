// A view that is not known: what to try, and whether the picture may be kept for staff.

import { request } from "../shared/requests.js";
import { t } from "../shared/languages.js";
import { picturePath, someplaces } from "./attract.js";
import { $, announce, image } from "./page.js";

let question = null; // the picture that was not recognised
let asked = null; // how long it would be kept, or null where none are
let done = false;

export function drawUnknown(questions) {
  asked = questions;
  $("tips").replaceChildren(...someplaces(3).map((place) => {
    const item = document.createElement("li");
    const name = Object.assign(document.createElement("bdi"), { textContent: place.title, lang: place.language ?? "" });
    item.append(image(picturePath(place)), name);
    return item;
  }));
  $("keep-words").textContent = asked ? t("keep", { days: asked.days }) : "";
  drawKeep();
}

function drawKeep() {
  $("keep").hidden = !asked || !question || done;
}

// The visitor decides about this very picture: a newer one does not take its place while they read.
export function setQuestion(frame) {
  question ??= frame;
  drawKeep();
}

$("keep-yes").onclick = async () => {
  const picture = question;
  done = true;
  drawKeep();
  try {
    await request("POST", "v1/questions", { body: picture });
    $("kept").hidden = false;
    announce(t("kept"));
  } catch {
    done = false; // the service is busy or its disk is full: the picture may be left again
    drawKeep();
  }
};
$("keep-no").onclick = () => {
  done = true;
  question = null;
  drawKeep();
};

export function resetUnknown() {
  question = null;
  done = false;
  $("kept").hidden = true;
  drawKeep();
}
