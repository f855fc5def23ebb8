// The label queue: one answer at a time, one key a label. A label is held for a moment, or until
// the next one, so that it can be taken back.

const HOLD_MS = 4000;
const LEASE_S = 600;

export function start(page, live) {
  const done = new Set(); // prediction ids that were labelled or skipped here
  let past = []; // of those in this batch, in order: {card, signal, sent}
  let timer = 0;
  let taken = null; // a promise of the ids of this batch that are leased to us, once one is labelled

  const cards = () => page.all("#queue-cards .card");
  const at = () => page.find("#queue-cards .card.at");
  let ahead = 0; // of the service's clock, in seconds
  const settled = (card) => Number(card.dataset.expires) < Date.now() / 1000 - ahead;
  const waits = (card) => !done.has(card.dataset.prediction) && !settled(card);
  live.held.queue = () => Boolean(at() && !settled(at())) || past.some((item) => item.signal && !item.sent);

  function begin() {
    ahead = Date.now() / 1000 - Number(page.panel("queue").dataset.now);
    page.find("#queue-cards")?.setAttribute("data-one", "");
    cards().filter((card) => done.has(card.dataset.prediction)).forEach((card) => card.remove());
    past = past.filter((item) => item.signal && !item.sent);
    taken = null;
    show();
  }

  // Whoever only looks on keeps nothing from others: the first label or skip leases the batch.
  function take() {
    taken ??= lease(cards().filter((card) => card === at() || waits(card)));
    return taken;
  }

  async function lease(batch) {
    const ids = batch.map((card) => card.dataset.prediction);
    try {
      const reply = await page.ask("POST", `${page.path}/queue/lease`, { prediction_ids: ids, seconds: LEASE_S });
      const ours = new Set(reply.queue.map((item) => item.prediction_id));
      for (const card of batch) if (waits(card) && !ours.has(card.dataset.prediction)) card.remove();
      show();
      return ours;
    } catch {
      return new Set(); // a label is taken without a lease as well
    }
  }

  const giveBack = (ids, again, options = {}) => ids.length
    && page.ask("POST", `${page.path}/queue/skip`, { prediction_ids: ids, again }, options).catch(() => {});

  function show() {
    const next = cards().find(waits);
    const focused = at()?.contains(document.activeElement);
    for (const card of cards()) card.classList.toggle("at", card === next);
    const left = page.find("#queue-left .n");
    if (left) left.textContent = cards().filter(waits).length;
    if (focused && next) focus(next);
    if (!next && cards().length) flush();
  }

  const focus = (card) => (page.find(".right, [data-signal]", card) ?? card).focus({ preventScroll: true });

  function label(signal, text) {
    const card = at();
    if (!card) return;
    flush();
    take();
    past.push({ card, signal, sent: false });
    done.add(card.dataset.prediction);
    for (const button of page.all("[data-signal]", card)) button.removeAttribute("data-said");
    page.say(`${text}. Press u to undo.`);
    timer = setTimeout(flush, HOLD_MS);
    show();
  }

  function skip() {
    const card = at();
    if (!card) return;
    const id = card.dataset.prediction;
    take().then((ours) => giveBack([id].filter((one) => ours.has(one)), false));
    done.add(id);
    past.push({ card, signal: null, sent: true });
    show();
  }

  function undo() {
    const last = past.pop();
    if (!last) return page.say("There is nothing to undo.");
    clearTimeout(timer);
    done.delete(last.card.dataset.prediction);
    if (!last.card.isConnected) page.find("#queue-cards")?.prepend(last.card);
    else last.card.parentNode.prepend(last.card);
    show();
    focus(last.card);
    page.say(last.signal && last.sent ? "Back to it: another label takes its place." : "Taken back.");
  }

  async function flush(options = {}) {
    clearTimeout(timer);
    const waiting = past.filter((item) => item.signal && !item.sent);
    for (const item of waiting) {
      item.sent = true;
      const body = { prediction_id: item.card.dataset.prediction, ...item.signal };
      try {
        await page.ask("POST", "/v1/feedback", body, options);
      } catch (error) {
        page.say(`Not accepted: ${error.message}`);
        item.card.append(page.make("p", `Not accepted: ${error.message}`, { class: "wrong" }));
        done.delete(item.card.dataset.prediction);
        past = past.filter((other) => other !== item);
      }
    }
    if (!cards().some(waits)) {
      page.all("#queue-cards .card").forEach((card) => card.classList.remove("at"));
      live.mark(["queue"]);
    } else show();
  }

  function typed(card) {
    const input = page.find(".right", card);
    const value = input.dataset.type === "number" ? Number(input.value) : input.value;
    if (input.value.trim() === "" || Number.isNaN(value)) return input.focus();
    label({ kind: "correction", value }, input.value);
  }

  document.addEventListener("click", (event) => {
    const card = event.target.closest?.("#queue-cards .card");
    if (!card) return;
    const button = event.target.closest("button");
    if (button?.dataset.signal) label(JSON.parse(button.dataset.signal), button.lastChild.textContent.trim());
    else if (button?.classList.contains("say")) typed(card);
    else if (button?.classList.contains("skip-item")) skip();
    else if (button?.classList.contains("undo")) undo();
  });

  function inReach() {
    const place = page.panel("queue");
    if (!place || page.find("dialog[open]")) return false;
    if (place.contains(document.activeElement)) return true;
    const box = place.getBoundingClientRect();
    const seen = Math.min(box.bottom, innerHeight) - Math.max(box.top, 0);
    return seen > 0.5 * Math.min(box.height, innerHeight);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const input = page.typing(event.target);
    if (input) {
      if (event.key === "Enter" && input.closest(".card")) typed(input.closest(".card"));
      return;
    }
    if (!inReach()) return;
    if (/^[1-9]$/.test(event.key)) page.all("[data-signal]", at() ?? document.createElement("i"))[event.key - 1]?.click();
    else if (event.key === "s") skip();
    else if (event.key === "u") undo();
  });
  addEventListener("pagehide", () => {
    flush({ keepalive: true });
    if (taken) giveBack(cards().filter(waits).map((card) => card.dataset.prediction), true, { keepalive: true });
  });
  document.addEventListener("learner:drawn", (event) => { if (event.detail === "queue") begin(); });
  begin();
  return { focus: () => at() && focus(at()) };
}
