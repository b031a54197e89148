// The choice of a language, and of larger text. Both are back at their start when a visitor has gone.

import { language } from "../shared/languages.js";
import { $ } from "./page.js";

const SIZES = ["1", "1.3", "1.7"];
let names = new Map();
let choose = () => {};

// languages: tags; pairs: [tag, its name in itself]; speak: called with the tag that is chosen
export function drawMenu(languages, pairs, speak) {
  names = new Map(pairs);
  choose = speak;
  $("language").hidden = languages.length < 2;
  $("languages").replaceChildren(...languages.map((tag) => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: names.get(tag), lang: tag });
    button.onclick = () => pick(tag);
    item.append(button);
    return item;
  }));
  drawChoice();
}

function drawChoice() {
  $("language-name").textContent = names.get(language()) ?? "";
  $("language-name").lang = language();
  for (const button of $("languages").querySelectorAll("button")) button.ariaCurrent = String(button.lang === language());
}
new MutationObserver(drawChoice).observe(document.documentElement, { attributeFilter: ["lang"] });

async function pick(tag) {
  closeMenu();
  $("language").focus();
  await choose(tag).catch(() => {}); // the service is away: the page stays as it is
}

export function closeMenu() {
  if ($("languages").hidden) return;
  $("languages").hidden = true;
  $("language").ariaExpanded = "false";
}

$("language").onclick = () => {
  const open = $("languages").hidden;
  $("languages").hidden = !open;
  $("language").ariaExpanded = String(open);
  if (open) $("languages").querySelector("[aria-current=true]")?.focus();
};
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("languages").hidden) return;
  closeMenu();
  $("language").focus();
});
document.addEventListener("pointerdown", (event) => {
  if (!$("languages").contains(event.target) && !$("language").contains(event.target)) closeMenu();
});

$("text-size").onclick = () => {
  const { dataset } = document.documentElement;
  dataset.zoom = SIZES[(SIZES.indexOf(dataset.zoom ?? "1") + 1) % SIZES.length];
};
export function resetMenu() {
  delete document.documentElement.dataset.zoom;
}
