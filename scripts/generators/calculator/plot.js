// Required MB over max_bs as one SVG, up to the largest batch of the path.

function plotOf(answer, maxBs, have, words) {
  const [width, height, left, right, top, bottom] = [560, 300, 56, 16, 16, 40];
  const last = Number(answer.batchMax);
  const count = Math.min(last, 128);
  const xs = Array.from({ length: count }, (_, index) => Math.max(1, Math.round(((index + 1) * last) / count)));
  const points = [...new Set([1, ...xs])].map((x) => [x, Number(answer.megabytesAt(BigInt(x)))]);
  const yTicks = ticks(Math.max(points.at(-1)[1], Math.min(Number(have), 1.2 * points.at(-1)[1])));
  const xTicks = ticks(last);
  const at = (x, y) => [
    left + (x / xTicks.at(-1)) * (width - left - right),
    height - bottom - (y / yTicks.at(-1)) * (height - top - bottom),
  ];
  const text = (x, y, anchor, content) =>
    `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" fill="currentColor">${content}</text>`;
  const line = (from, to, style) =>
    `<path d="M${from.map((n) => n.toFixed(1))}L${to.map((n) => n.toFixed(1))}" fill="none" ${style}/>`;
  const body = [];
  for (const tick of yTicks) {
    const [x, y] = at(0, tick);
    body.push(line([x, y], [width - right, y], 'stroke="var(--line)" stroke-opacity="0.4"'), text(x - 6, y + 4, "end", tick));
  }
  for (const tick of xTicks) body.push(text(at(tick, 0)[0], height - bottom + 18, "middle", tick));
  body.push(text(left - 6, 10, "end", "MB"), text((left + width - right) / 2, height - 4, "middle", "max_bs"));
  if (Number(have) <= yTicks.at(-1)) {
    const [x, y] = at(0, Number(have));
    body.push(line([x, y], [width - right, y], 'stroke="var(--warn)" stroke-width="2" stroke-dasharray="6 3"'));
    body.push(text(width - right, y - 5, "end", `${words.have_line} ${have} MB`));
  }
  const path = points.map(([x, y]) => at(x, y).map((n) => n.toFixed(1)).join()).join("L");
  body.push(`<path d="M${path}" fill="none" stroke="var(--accent)" stroke-width="2.5"/>`);
  if (maxBs <= last) {
    const [x, y] = at(Number(maxBs), Number(answer.mb));
    body.push(`<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="5" fill="var(--accent)"/>`);
  }
  const says = `${words.plot}: ${points[0][1]} MB (max_bs 1) - ${points.at(-1)[1]} MB (max_bs ${last})`;
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${says}" font-size="12">${body.join("")}</svg>`;
}

// Round numbers from 0 to just beyond the largest value.
function ticks(largestValue) {
  let step = 1;
  for (let power = 1; ; power *= 10) {
    const fitting = [1, 2, 5].find((base) => largestValue / (base * power) <= 8);
    if (fitting) {
      step = fitting * power;
      break;
    }
  }
  return Array.from({ length: Math.ceil(largestValue / step) + 1 }, (_, index) => index * step);
}
