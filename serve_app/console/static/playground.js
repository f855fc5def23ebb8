// The playground: ask, then say every kind of thing about the answer, and follow what becomes of it.

const FOLLOW_S = 60;

export function start(page) {
  const form = page.find("#ask");
  if (!form) return;
  const answer = page.find("#answer");
  const logs = page.panel("playground").dataset.task === "generation";
  let id = "";

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    wrong("");
    try {
      const made = await page.ask("POST", `${page.path}/${logs ? "log" : "predict"}`, request());
      if (made.prediction_id === null) return answer.replaceChildren(page.make("p", `${made.output}: not logged, the store is away.`, { class: "output" }));
      id = made.prediction_id;
      answer.innerHTML = await page.ask("GET", `/console/${encodeURIComponent(page.model)}/answers/${id}`);
    } catch (error) {
      wrong(error.message);
    }
  });

  function request() {
    const raw = page.find("#ask-raw");
    if (raw.open) return JSON.parse(page.find("#ask-json").value);
    const features = {};
    for (const input of page.all("#ask-fields [data-name]")) {
      if (input.dataset.type === "boolean") features[input.dataset.name] = input.checked;
      else if (input.value.trim() !== "") features[input.dataset.name] = value(input);
    }
    return { features };
  }

  function value(input) {
    if (input.dataset.type !== "number") return input.value;
    const number = Number(input.value);
    if (Number.isNaN(number)) throw new Error(`${input.dataset.name} is no number`);
    return number;
  }

  function wrong(words) {
    page.find("#ask-error").hidden = !words;
    page.find("#ask-error").textContent = words;
  }

  answer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.move) return move(button);
    const signal = said(button);
    if (signal) tell(signal, button);
  });

  /** Return the signal that a button stands for, with what is written or chosen beside it. */
  function said(button) {
    const data = button.dataset;
    if (data.signal) return JSON.parse(data.signal);
    if ("pair" in data) {
      const part = (name) => page.find(`#say-pair [data-part="${name}"]`).value;
      return { kind: "preference", chosen: part("chosen"), rejected: part("rejected") };
    }
    if ("order" in data) return { kind: "ranking", value: page.all("#say-order li").map((li) => li.dataset.name) };
    if (data.typed) {
      const text = document.getElementById(data.typed).value;
      if (text.trim() === "") return document.getElementById(data.typed).focus();
      const right = data.type === "number" ? Number(text) : text;
      if (Number.isNaN(right)) return page.say(`${text} is no number.`);
      return { kind: "correction", value: right };
    }
  }

  function move(button) {
    const item = button.closest("li");
    const other = button.dataset.move === "-1" ? item.previousElementSibling : item.nextElementSibling;
    if (!other) return;
    if (button.dataset.move === "-1") other.before(item);
    else other.after(item);
    button.focus();
    page.say(`${item.dataset.name} moved`);
  }

  async function tell(signal, button) {
    const comment = page.find("#say-comment").value.trim();
    const body = { prediction_id: id, ...signal, ...(comment ? { comment } : {}) };
    const row = page.make("li");
    const fate = page.make("span", "sending", { class: "fate accepted" });
    const more = page.make("span", "", { class: "quiet" });
    const what = signal.event ?? signal.severity ?? signal.chosen ?? signal.value;
    row.append(page.make("strong", signal.kind), ` ${what === undefined ? "" : JSON.stringify(what)} `, fate, " ", more);
    page.find("#receipts").prepend(row);
    page.find("#receipts-none")?.remove();
    for (const other of page.all("[data-said]", answer)) if (other.closest("fieldset") === button.closest("fieldset")) other.removeAttribute("data-said");
    button.setAttribute("data-said", "");
    try {
      const receipt = await page.ask("POST", "/v1/feedback", body);
      show(fate, receipt.status);
      more.textContent = receipt.durability;
      row.dataset.feedback = receipt.feedback_id;
      await follow(receipt.feedback_id, fate, more);
    } catch (error) {
      show(fate, "refused");
      more.textContent = error.message;
    }
  }

  function show(fate, status) {
    fate.className = `fate ${status}`;
    fate.textContent = status.replace("_", " ");
  }

  /** Follow a signal until an answer rests on it, or until it is clear that none will. */
  async function follow(feedback, fate, more) {
    const started = performance.now();
    for (let wait = 100; performance.now() - started < FOLLOW_S * 1000; wait = Math.min(2000, wait * 1.4)) {
      await new Promise((go) => setTimeout(go, wait));
      if (!fate.isConnected) return;
      const now = await page.ask("GET", `/v1/feedback/${feedback}`);
      show(fate, now.served ? "served" : now.status);
      if (now.served) {
        const ms = Math.max(0, Math.round(1000 * (now.served.at - now.learned_at)));
        more.textContent = `learned at step ${now.step}, served by version ${now.served.version}, ${ms} ms later`;
        return;
      }
      if (now.status === "learned") more.textContent = `step ${now.step}; served once the champion has it, and is asked`;
      else if (now.status !== "accepted") {
        more.textContent = now.reason ?? "";
        return;
      }
    }
  }
}
