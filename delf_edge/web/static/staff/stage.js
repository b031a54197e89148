// The stage: the photo that is asked for and the stored one, as large as they can hang, and the lines between them.

import { $, picture } from "./service.js";

const GAP = 16; // pixels between the two photos
const LINES = 60; // more than that hide the photos; every matched point keeps its dot
let proof = null; // of the answer that is shown
let number = 0;

// Show how the stored photo matches, or (null) that none does.
export async function setProof(next) {
  const mine = (number += 1);
  if (next) {
    const url = await picture(next.image_id);
    if (mine !== number) return; // a newer answer came meanwhile
    if (url) {
      if ($("stored").src !== url) $("stored").src = url;
      $("stored").alt = `Stored photo of ${next.landmark}`;
    }
    next = url ? next : null;
  }
  proof = next;
  $("known").hidden = !proof;
  arrange();
}

function shownSize() {
  if (!$("video").hidden) return [$("video").videoWidth || 4, $("video").videoHeight || 3];
  return $("photo").hidden ? null : [$("photo").naturalWidth || 4, $("photo").naturalHeight || 3];
}

// Side by side or one above the other, whichever lets them be larger; both of one height, or of one width.
export function arrange() {
  const [width, height] = [$("stage").clientWidth, $("stage").clientHeight];
  const seen = shownSize();
  $("invite").hidden = seen !== null;
  $("seen").hidden = seen === null;
  if (seen === null) tile(width, height);
  if (seen === null || !width || !height) return clearLines();
  const shapes = [seen[0] / seen[1]];
  if (proof) shapes.push(proof.stored_size[0] / proof.stored_size[1]);
  const gaps = GAP * (shapes.length - 1);
  const across = shapes.reduce((sum, a) => sum + a, 0);
  const down = shapes.reduce((sum, a) => sum + 1 / a, 0);
  const rowHeight = Math.min(height, (width - gaps) / across);
  const columnWidth = Math.min(width, (height - gaps) / down);
  const inRow = rowHeight ** 2 * across >= columnWidth ** 2 * down;
  let at = inRow ? (width - rowHeight * across - gaps) / 2 : (height - columnWidth * down - gaps) / 2;
  shapes.forEach((a, i) => {
    const [w, h] = inRow ? [rowHeight * a, rowHeight] : [columnWidth, columnWidth / a];
    const [x, y] = inRow ? [at, (height - h) / 2] : [(width - w) / 2, at];
    Object.assign($(i ? "known" : "seen").style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
    at += (inRow ? w : h) + GAP;
  });
  drawLines();
}

// The invitation's pictures in full rows, each as near to 4:3 as can be; what would begin a new row is left out.
function tile(width, height) {
  const tiles = [...$("mosaic").children];
  let best = { score: Infinity, columns: 1, rows: 1 };
  for (let columns = 1; columns <= tiles.length; columns += 1) {
    const rows = Math.floor(tiles.length / columns);
    const shape = (width / columns) / (height / rows || 1);
    const score = Math.abs(Math.log(shape / (4 / 3))) + (tiles.length - rows * columns) / tiles.length;
    if (score < best.score) best = { score, columns, rows };
  }
  $("mosaic").style.gridTemplateColumns = `repeat(${best.columns}, minmax(0, 1fr))`;
  tiles.forEach((image, i) => { image.hidden = i >= best.columns * best.rows; });
}

function clearLines() {
  const canvas = $("lines");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

function drawLines() {
  const context = clearLines();
  if (!proof) return;
  const place = (id, size) => {
    const { offsetLeft, offsetTop, offsetWidth } = $(id);
    const factor = offsetWidth / size[0];
    return ([x, y]) => [offsetLeft + (x + 0.5) * factor, offsetTop + (y + 0.5) * factor];
  };
  const query = place("seen", proof.query_size);
  const stored = place("known", proof.stored_size);
  const total = proof.query_points.length;
  const every = Math.max(1, Math.ceil(total / LINES));
  const size = Math.max(1, $("stage").clientWidth / 900); // readable from two metres on a large screen
  proof.query_points.forEach((from, i) => {
    const ends = [query(from), stored(proof.stored_points[i])];
    const colour = `hsl(${Math.round((360 * i) / total)} 95% 60%)`;
    if (i % every === 0) {
      context.globalAlpha = 0.6;
      context.strokeStyle = colour;
      context.lineWidth = 1.3 * size;
      context.beginPath();
      context.moveTo(...ends[0]);
      context.lineTo(...ends[1]);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.fillStyle = colour;
    context.strokeStyle = "rgb(0 0 0 / .65)";
    context.lineWidth = size;
    for (const [x, y] of ends) {
      context.beginPath();
      context.arc(x, y, 3 * size, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  });
}

new ResizeObserver(arrange).observe($("stage"));
$("photo").onload = $("video").onresize = $("video").onloadedmetadata = arrange;
