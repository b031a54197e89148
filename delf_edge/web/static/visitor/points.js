// For engineers: some of the matched points on the camera's picture, few enough to see what is behind them.

import { $ } from "./page.js";

const MOST = 40;

export function drawPoints(proof) {
  const canvas = $("points");
  if (!proof && !canvas.width) return;
  const ratio = devicePixelRatio || 1;
  const holder = $("picture");
  canvas.width = proof ? Math.round(holder.clientWidth * ratio) : 0;
  canvas.height = proof ? Math.round(holder.clientHeight * ratio) : 0;
  if (!proof) return;
  const context = canvas.getContext("2d");
  const [width, height] = proof.query_size;
  const factor = Math.max(canvas.width / width, canvas.height / height); // as object-fit: cover does
  const [left, top] = [(canvas.width - width * factor) / 2, (canvas.height - height * factor) / 2];
  const every = Math.max(1, Math.ceil(proof.query_points.length / MOST));
  const radius = Math.max(3, canvas.width / 220);
  context.fillStyle = "#ffc95c";
  context.strokeStyle = "#000";
  context.lineWidth = radius / 3;
  proof.query_points.forEach(([x, y], i) => {
    if (i % every) return;
    const across = left + (x + 0.5) * factor;
    context.beginPath();
    context.arc(holder.dataset.mirror === "true" ? canvas.width - across : across, top + (y + 0.5) * factor, radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  });
}
