// Events of the service, and the panels that they make stale. One request draws all of them anew.

const EVENTS = "metrics,feedback,verdict,swap,alarm,quality";
const STALE = { // panel -> events, and the least time between two drawings in ms
  tiles: [["metrics", "verdict", "swap"], 1000],
  score: [["metrics", "verdict"], 3000],
  verdicts: [["metrics", "verdict"], 2000],
  funnel: [["metrics"], 1000],
  calibration: [["metrics"], 5000],
  drift: [["metrics", "verdict"], 5000],
  quality: [["metrics", "verdict", "quality"], 3000],
  alarms: [["metrics", "alarm"], 5000],
  bias: [["metrics", "quality"], 5000],
  raters: [["metrics", "quality"], 5000],
  queue: [["metrics", "feedback"], 2000],
  versions: [["verdict"], 1000],
};
const AT_ONCE = new Set(["verdict", "swap", "alarm"]);
const TICK_MS = 5000; // ages move, and what is wrong is seen, where nothing happens
const RETRY_MS = 2000;

export class Live {
  constructor(page, charts) {
    this.page = page;
    this.charts = charts;
    this.stale = new Set();
    this.drawn = {};
    this.held = {}; // panel -> whether it may be replaced now
    this.timer = 0;
    this.busy = false;
    this.lost = false;
    this.connect();
    setInterval(() => this.mark(["tiles"]), TICK_MS);
    document.addEventListener("visibilitychange", () => {
      this.lost = true;
      if (document.hidden) this.source?.close(); // a browser has few connections for all its tabs
      else this.connect();
    });
  }

  connect() {
    if (document.hidden) return;
    this.source?.close();
    const model = encodeURIComponent(this.page.model);
    this.source = new EventSource(`/v1/stream?model=${model}&events=${EVENTS}`);
    this.source.onopen = () => {
      if (this.lost) this.mark(Object.keys(STALE));
      this.lost = false;
      this.tell("live", "live");
    };
    this.source.onerror = () => this.broken();
    for (const kind of EVENTS.split(",")) {
      this.source.addEventListener(kind, () => {
        this.mark(Object.keys(STALE).filter((name) => STALE[name][0].includes(kind)), AT_ONCE.has(kind));
      });
    }
  }

  broken() {
    this.lost = true;
    this.tell("lost", "reconnecting");
    if (this.source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    this.source.close();
    this.mark(Object.keys(STALE)); // and where the session has ended, it is found out
    setTimeout(() => this.connect(), RETRY_MS);
  }

  tell(state, words) {
    const place = this.page.find("#live");
    place.hidden = false;
    place.dataset.state = state;
    this.page.find("#live-text").textContent = words;
  }

  /** Draw panels anew: at once, or as soon as they may be. */
  mark(names, atOnce = false) {
    for (const name of names) {
      this.stale.add(name);
      if (atOnce) this.drawn[name] = 0;
    }
    this.plan();
  }

  plan() {
    if (this.busy || document.hidden || !this.stale.size) return;
    clearTimeout(this.timer);
    const now = performance.now();
    const waits = [...this.stale].map((name) => (this.drawn[name] ?? 0) + STALE[name][1] - now);
    const wait = Math.max(0, Math.min(...waits));
    this.timer = setTimeout(() => this.fetch(), wait);
  }

  async fetch() {
    const now = performance.now();
    const due = [...this.stale].filter((name) => (this.drawn[name] ?? 0) + STALE[name][1] <= now + 50);
    for (const name of due) {
      this.stale.delete(name);
      this.drawn[name] = now;
    }
    const names = due.filter((name) => this.held[name]?.() !== true);
    this.busy = true;
    try {
      if (names.length) {
        const url = `/console/${encodeURIComponent(this.page.model)}/${names.join(",")}`;
        this.swap(await this.page.ask("GET", url));
      }
      this.offline("");
    } catch (error) {
      this.offline(`The service does not answer (${error.message}): what you see is of a while ago.`);
      names.forEach((name) => this.stale.add(name));
    } finally {
      this.busy = false;
      this.plan();
    }
  }

  offline(words) {
    const place = this.page.find("#offline");
    place.hidden = !words;
    if (place.textContent !== words) place.textContent = words;
  }

  swap(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const fresh of [...template.content.children]) {
      const old = this.page.panel(fresh.dataset.panel);
      if (!old) continue;
      carry(old, fresh);
      const focus = focused(old);
      this.charts.keep(old, fresh);
      const scrolls = [...old.querySelectorAll(".scroll, .decided")].map((part) => part.scrollTop);
      old.replaceWith(fresh);
      [...fresh.querySelectorAll(".scroll, .decided")].forEach((part, n) => { part.scrollTop = scrolls[n] ?? 0; });
      this.page.enable(fresh);
      this.charts.draw(fresh);
      focus(fresh);
      document.dispatchEvent(new CustomEvent("learner:drawn", { detail: fresh.dataset.panel }));
    }
  }
}

/** Return what puts the focus where it is now, in the panel that takes this one's place. */
function focused(old) {
  const at = document.activeElement;
  const stops = (panel) => [panel, ...panel.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
  const place = stops(old).indexOf(at);
  return (fresh) => {
    if (place < 0) return;
    if (place === 0) fresh.tabIndex = -1;
    const next = at.id ? document.getElementById(at.id) : stops(fresh)[place];
    next?.focus({ preventScroll: true });
  };
}

/** Keep open what was opened. */
function carry(old, fresh) {
  for (const part of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(part.id)}`);
    if (same) same.open = true;
  }
}
