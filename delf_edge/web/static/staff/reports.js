// What a day was like: counts, the check of all photos, and the pictures that visitors have left.

import { $, call, insist, plural, sleep, trouble } from "./service.js";
import { addShots } from "./teach.js";

const cell = (name, words) => Object.assign(document.createElement(name), { textContent: String(words) });
function row(...cells) {
  const line = document.createElement("tr");
  line.append(...cells);
  return line;
}

async function told(work) {
  try {
    return await work();
  } catch (e) {
    if (e.status) trouble("task", e.message);
    return null;
  }
}

// ---------------------------------------------------------------- statistics

export async function refreshStatistics() {
  const days = Number($("days").value);
  const first = new Date(Date.now() - (days - 1) * 86_400_000);
  const day = `${first.getFullYear()}-${String(first.getMonth() + 1).padStart(2, "0")}-${String(first.getDate()).padStart(2, "0")}`;
  const found = await told(() => insist("GET", "v1/staff/statistics", { query: { first: day } }));
  if (!found) return;
  $("csv").href = `v1/staff/statistics.csv?first=${day}`;
  $("days-rows").replaceChildren(...found.days.toReversed().map((d) => row(cell("th", d.day), cell("td", d.asked), cell("td", d.found), cell("td", d.unknown))));
  const hours = found.days.reduce((sum, d) => sum.map((n, i) => n + d.hours[i]), Array(24).fill(0));
  const most = Math.max(1, ...hours);
  $("hours").replaceChildren(...hours.map((n, hour) => {
    const item = document.createElement("li");
    const bar = Object.assign(document.createElement("meter"), { max: most, value: n, ariaLabel: `${hour} to ${hour + 1}: ${n}` });
    item.append(cell("span", `${hour}`), bar, cell("b", n));
    return item;
  }));
  $("ranking").replaceChildren(...found.landmarks.map((place) => row(cell("th", place.landmark), cell("td", place.found))));
}
$("days").onchange = refreshStatistics;

// ---------------------------------------------------------------- the check of all photos

let looking = false;
export async function refreshCheck() {
  if (looking) return;
  looking = true;
  for (;;) {
    const found = await told(() => call("GET", "v1/staff/lint"));
    if (!found) break;
    drawCheck(found);
    if (!found.running || $("check").hidden) break;
    await sleep(2000);
  }
  looking = false;
}

function drawCheck(found) {
  $("check-start").disabled = found.running;
  $("check-stop").disabled = !found.running;
  $("check-done").max = Math.max(1, found.total);
  $("check-done").value = found.done;
  $("check-words").textContent = found.total ? `${found.done} of ${plural(found.total, "photo")}` : "Not started since the service began.";
  const worth = found.findings.filter((finding) => finding.reasons.length);
  $("check-rows").replaceChildren(...worth.map((f) => row(cell("td", f.score), cell("th", f.name), cell("td", f.reasons.join(". ")))));
}
$("check-start").onclick = async () => { if (await told(() => insist("POST", "v1/staff/lint"))) refreshCheck(); };
$("check-stop").onclick = async () => { if (await told(() => insist("DELETE", "v1/staff/lint"))) refreshCheck(); };

// ---------------------------------------------------------------- pictures that visitors have left

export async function refreshQuestions() {
  let found;
  try {
    found = await call("GET", "v1/staff/questions");
  } catch (e) {
    $("question-list").replaceChildren();
    $("question-words").textContent = e.status === 404 ? "This kiosk keeps no pictures: it was started without --keep-questions." : "";
    if (e.status && e.status !== 404) trouble("task", e.message);
    return;
  }
  $("question-words").textContent = `${plural(found.questions.length, "picture")}. Visitors have agreed that each is kept for ${found.days} days.`;
  $("question-list").replaceChildren(...found.questions.map(drawQuestion));
}

function drawQuestion(question) {
  const path = `v1/staff/questions/${question.id}`;
  const item = document.createElement("li");
  const image = Object.assign(document.createElement("img"), { alt: `Left at ${new Date(question.time).toLocaleString()}`, src: path });
  const teach = Object.assign(document.createElement("button"), { type: "button", textContent: "Teach it", className: "main" });
  teach.onclick = async () => {
    const photo = await told(() => call("GET", path, { raw: true }));
    if (!photo) return;
    document.querySelector("nav [data-view=teach]").click();
    addShots([photo]);
  };
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Delete" });
  remove.onclick = async () => { if (await told(() => insist("DELETE", path))) refreshQuestions(); };
  item.append(image, cell("p", new Date(question.time).toLocaleString()), teach, remove);
  return item;
}
