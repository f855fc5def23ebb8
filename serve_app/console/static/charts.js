// Charts from the tables of numbers beside them. A chart outlives its panel: it only gets new data.

const ROLES = { champion: [], challenger: [9, 5], latest: [9, 4, 2, 4], anchor: [2, 4] };
const NAMES = { latest: "learner" };
const plots = new Map(); // by the id of the host
const moment = (_, at) => (at == null ? "–" : `${new Date(1000 * at).toISOString().slice(11, 19)} UTC`);

/** Resolve light-dark(), which canvas does not know. */
function paint(name, alpha = 1) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return alpha === 1 ? found : found.replace(/^rgba?\(([^)]+?)\)$/, `rgba($1, ${alpha})`);
}

function rows(host) {
  const table = document.getElementById(host.dataset.from);
  return [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent));
}

const shapes = {
  score(host) {
    const found = rows(host);
    const ats = [...new Set(found.map((row) => Number(row[0])))].sort((a, b) => a - b);
    const place = new Map(ats.map((at, n) => [at, n]));
    const roles = Object.keys(ROLES).filter((role) => found.some((row) => row[1] === role));
    const data = [ats];
    const series = [{ label: "at", value: moment }];
    const bands = [];
    for (const role of roles) {
      const curves = [0, 1, 2].map(() => Array(ats.length).fill(null));
      for (const row of found.filter((row) => row[1] === role))
        [3, 4, 5].forEach((column, n) => { curves[n][place.get(Number(row[0]))] = 100 * row[column]; });
      const stroke = paint(role);
      const n = series.length;
      const edge = { stroke, width: 0.5, class: "edge", spanGaps: true, points: { show: false } };
      series.push({ label: NAMES[role] ?? role, stroke, width: 2.2, dash: ROLES[role], spanGaps: true,
        points: { show: ats.length < 3 }, value: (_, v) => (v == null ? "–" : `${v.toFixed(1)} %`) });
      series.push({ ...edge, label: "low", value: (_, v) => (v == null ? "–" : v.toFixed(1)) });
      series.push({ ...edge, label: "high", value: (_, v) => (v == null ? "–" : v.toFixed(1)) });
      bands.push({ series: [n + 2, n + 1], fill: paint(role, 0.13) });
      data.push(...curves);
    }
    return { data, series, bands, unit: " %", marks: marks(), range: range(data) };
  },
  traffic(host) {
    const found = rows(host);
    const data = [0, 1, 2, 3].map((n) => found.map((row) => Number(row[n])));
    const names = [["answers", "champion", []], ["feedback", "challenger", [9, 5]], ["learned", "anchor", [2, 4]]];
    const series = names.map(([label, name, dash]) => ({
      label, stroke: paint(name), width: 1.6, dash, points: { show: false } }));
    return { data, series: [{ label: "at", value: moment }, ...series], bands: [], unit: "", marks: [] };
  },
};

/** Return what of the scale to show: where the ranges ended up, not how wide they began. */
function range(data) {
  const late = data.slice(1).flatMap((curve) => curve.slice(-Math.ceil(curve.length / 2))).filter((v) => v !== null);
  return late.length ? [Math.max(0, Math.min(...late) - 3), Math.min(100, Math.max(...late) + 3)] : [0, 100];
}

/** Tell times as the rest of the page does: in UTC, with the date where they span days. */
function times(plot, ticks) {
  const days = plot.scales.x.max - plot.scales.x.min > 86400;
  const seconds = ticks.length > 1 && ticks[1] - ticks[0] < 60;
  return ticks.map((at) => {
    const text = new Date(1000 * at).toISOString();
    return days ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(11, seconds ? 19 : 16);
  });
}

function marks() {
  const signs = { promote: "▲", bless: "▲", follow: "▲", pull: "▼", rollback: "▼", freeze: "❄" };
  return [...document.querySelectorAll("#marks-score [data-at]")].map((mark) => ({
    at: Number(mark.dataset.at), sign: signs[mark.dataset.action] ?? "·" }));
}

/** Draw what has to be seen beside the curves: who was promoted, or rolled back, and when. */
function drawMarks(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = paint("text");
  ctx.font = `${12 * devicePixelRatio}px system-ui`;
  ctx.textAlign = "center";
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of plot.marks ?? []) {
    const x = plot.valToPos(mark.at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(mark.sign, x, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}

function options(host, shape) {
  const axis = { stroke: paint("quiet"), grid: { stroke: paint("line"), width: 1 }, ticks: { show: false },
    font: "11px system-ui" };
  return {
    width: host.clientWidth, height: host.clientHeight - 34, series: shape.series, bands: shape.bands,
    axes: [{ ...axis, size: 28, values: times, space: 70 }, { ...axis, size: 52, values: (_, ticks) => ticks.map((v) => `${v}${shape.unit}`) }],
    scales: shape.range ? { y: { range: () => plots.get(host.id)?.range ?? shape.range } } : {},
    cursor: { drag: { x: false, y: false } }, hooks: { draw: [drawMarks] },
  };
}

function forget(id) {
  plots.get(id)?.plot.destroy();
  plots.delete(id);
}

/** Put the charts of an old panel into the new one that takes its place. */
export function keep(old, fresh) {
  for (const host of old.querySelectorAll("[data-plot]")) {
    const place = fresh.querySelector(`#${host.id}`);
    if (place) place.replaceWith(host);
    else forget(host.id);
  }
}

/** Draw, or redraw with new numbers, every chart of a panel that is in the page. */
export function draw(root) {
  for (const host of root.querySelectorAll("[data-plot]")) {
    host.classList.add("drawn"); // it has a size from here on
    const shape = shapes[host.dataset.plot](host);
    const kind = shape.series.map((s) => s.label).join();
    if (plots.get(host.id)?.kind !== kind) {
      forget(host.id);
      host.replaceChildren();
      plots.set(host.id, { kind, range: shape.range, plot: new uPlot(options(host, shape), shape.data, host) });
    } else {
      plots.get(host.id).range = shape.range;
      plots.get(host.id).plot.setData(shape.data);
    }
    const { plot } = plots.get(host.id);
    plot.marks = shape.marks; // the plot draws in a microtask, with the marks of now
  }
}

/** Begin anew, in other colours or another width. */
export function redraw() {
  for (const id of [...plots.keys()]) forget(id);
  draw(document);
}

let width = innerWidth;
addEventListener("resize", () => {
  if (width === innerWidth) return;
  width = innerWidth;
  for (const [id, { plot }] of plots) {
    const host = document.getElementById(id);
    plot.setSize({ width: host.clientWidth, height: host.clientHeight - 34 });
  }
});
