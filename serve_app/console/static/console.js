// The page comes alive: fresh panels, charts, keys. Each part is a module of its own.

const version = new URL(import.meta.url).search;
const load = (name) => import(`./${name}.js${version}`);
const [page, charts, { Live }, operate, queue, playground] = await Promise.all(
  ["page", "charts", "live", "operate", "queue", "playground"].map(load));
const { find, all } = page;

// --- colours ---------------------------------------------------------------------------------

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
const button = find("#theme");

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("theme", name);
  } catch { /* it lasts until the page is left */ }
  button.textContent = THEMES[name][0];
  button.setAttribute("aria-label", `Colours: ${THEMES[name][1]}`);
  button.title = `Colours: ${THEMES[name][1]}`;
}

const themes = Object.keys(THEMES);
const chosen = () => document.documentElement.dataset.theme ?? "";
theme(themes.includes(chosen()) ? chosen() : "");
button.hidden = false;
button.addEventListener("click", () => {
  theme(themes[(themes.indexOf(chosen()) + 1) % themes.length]);
  charts.redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts.redraw);

// --- parts -----------------------------------------------------------------------------------

page.enable(document);
charts.draw(document);
const live = new Live(page, charts);
const labels = queue.start(page, live);
operate.start(page, live);
playground.start(page);
const models = find("#model-switch");
models?.addEventListener("change", () => models.form.submit());

// --- keys ------------------------------------------------------------------------------------

const GO = { s: "score", v: "verdicts", f: "funnel", c: "calibration", d: "drift", l: "quality", a: "alarms", b: "bias", r: "raters", q: "queue", t: "versions", p: "playground" };
let going = false;

function go(name) {
  const place = page.panel(name);
  place.scrollIntoView({ block: "start" });
  place.tabIndex = -1;
  place.focus({ preventScroll: true });
  if (name === "queue") labels.focus();
}

function nextModel() {
  const links = all(".models a");
  const at = links.findIndex((link) => link.hasAttribute("aria-current"));
  if (links.length > 1) links[(at + 1) % links.length].click();
}

// Before the queue hears it: after g, a letter names a place.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || page.typing(event.target)) return;
  if (find("dialog[open]")) return;
  const was = going;
  going = event.key === "g";
  if (was && GO[event.key]) {
    event.preventDefault();
    go(GO[event.key]);
  } else if (event.key === "?") find("#help").showModal();
  else if (event.key === "m") nextModel();
}, true);
find("#help-open").hidden = false;
find("#help-open").addEventListener("click", () => find("#help").showModal());
document.documentElement.dataset.ready = "";
