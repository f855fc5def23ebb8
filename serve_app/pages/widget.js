// A form for feedback on one answer, for a page of any origin. No key, no cookie: the signed id is
// all it needs. What a page may set is in docs/widget.md.
(() => {
  const script = document.currentScript;
  const held = new Set(); // widgets with something that is not sent yet

  const TEXT = {
    Ask: "How is this answer?",
    Up: "Good",
    Down: "Bad",
    Yes: "Yes",
    No: "No",
    Star: "{} of 5",
    None: "None of these",
    Right: "The right answer",
    Higher: "Move {} up",
    Lower: "Move {} down",
    Place: "Moved to place {}",
    Why: "What is wrong with it?",
    Comment: "Comment",
    Send: "Send",
    Undo: "Undo",
    Wait: "Will be sent in a moment.",
    Undone: "Not sent.",
    Thanks: "Thank you, this will be learned from.",
    Same: "You have said so already.",
    Late: "Too late: feedback on this is closed.",
    Denied: "Feedback on this is not taken here.",
    Wrong: "This does not fit the answer.",
    Retry: "Not sent yet, trying again.",
    Failed: "This could not be sent.",
  };
  const RESULT = { 202: "Thanks", 401: "Denied", 403: "Denied", 410: "Late", 422: "Wrong" };

  // A constructed sheet: a page's Content-Security-Policy needs no `style-src` for it.
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`:host{display:inline-block;vertical-align:top}:host([hidden]){display:none}
fieldset{border:0;margin:0;padding:0;min-width:0}legend,p{margin:.2em 0;padding:0}
button,input,textarea{font:inherit;color:inherit;background:none;border:1px solid;
border-radius:.4em;padding:.3em .6em;margin:.1em;min-width:2em}button{cursor:pointer}
input{vertical-align:middle}label{display:block}textarea{display:block;min-width:14em}
.on{box-shadow:inset 0 0 0 2px}:focus-visible{outline:2px solid;outline-offset:2px}
svg{width:1.2em;vertical-align:-.2em;fill:none;stroke:currentColor;stroke-width:2}
.on svg{fill:currentColor}`);

  const make = (tag, fields, ...inside) => {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...inside);
    return node;
  };

  // Drawn, since not every machine has a font for it; and by hand, since pages may forbid the rest.
  const draw = (d, transform = "") => {
    const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
    svg.setAttribute("viewBox", "0 0 24 24");
    path.setAttribute("d", d);
    path.setAttribute("transform", transform);
    svg.append(path);
    return svg;
  };
  const THUMB = "M2 10h4v11H2zM9 10l4-8q4 0 2 7h7l-3 12H9z";
  const STAR = "M12 2l3 7h7l-6 5 2 8-6-5-6 5 2-8-6-5h7z";

  // What is chosen with one click: [what the button shows, its name where that is not the same, signal].
  const choices = {
    thumbs: (w) => [
      [[draw(THUMB), " " + w.text("Up")], "", { kind: "thumbs", value: true }],
      [[draw(THUMB, "matrix(1 0 0 -1 0 24)"), " " + w.text("Down")], "", { kind: "thumbs", value: false }],
    ],
    yesno: (w) => [
      [w.text("Yes"), "", { kind: "thumbs", value: true }],
      [w.text("No"), "", { kind: "thumbs", value: false }],
    ],
    stars: (w) =>
      [1, 2, 3, 4, 5].map((value) => [[draw(STAR)], w.text("Star", value), { kind: "rating", value }]),
    labels: (w) => w.list("labels", (value) => ({ kind: "correction", value })),
    category: (w) => w.list("labels", (value) => ({ kind: "category", value })),
    options: (w) => [
      ...w.list("options", (value) => ({ kind: "selection", value })),
      [w.text("None"), "", { kind: "selection", value: null }],
    ],
    pair: (w) => {
      const ids = w.list("options", (id) => id).map(([, , id]) => id);
      return w.list("options", (chosen) => ({
        kind: "preference",
        chosen,
        rejected: ids.find((id) => id != chosen),
      }));
    },
  };

  // What is sent with a button of its own: [what is shown, a function that returns the signal].
  const forms = {
    slider(w, { low = 0, high = 10, step = 1 }) {
      const scale = [+low, +high];
      const shown = make("b");
      const range = { type: "range", min: low, max: high, step, ariaLabel: w.text("Ask") };
      const input = make("input", { ...range, value: (scale[0] + scale[1]) / 2 });
      (input.oninput = () => (shown.textContent = input.value))();
      const signal = () => ({ kind: "rating", value: +input.value, scale });
      return [make("p", {}, low, input, high, " ", shown), signal];
    },
    correction(w, { input, value = "" }) {
      const number = input == "number";
      const field = { value, ariaLabel: w.text("Right"), maxLength: 9999 };
      const box = make(...(number ? ["input", { ...field, type: input, step: "any" }] : ["textarea", field]));
      return [box, () => box.value && { kind: "correction", value: number ? +box.value : box.value }];
    },
    rank(w) {
      const rows = make("ol");
      const button = (row, face, text, move) =>
        make("button", {
          textContent: face,
          ariaLabel: text,
          onclick({ target }) {
            move(row);
            target.focus();
            w.say(w.text("Place", [...rows.children].indexOf(row) + 1));
          },
        });
      for (const [text, , id] of w.list("options", (id) => id)) {
        const row = make("li", { id });
        const up = (r) => r.previousSibling?.before(r);
        const down = (r) => r.nextSibling?.after(r);
        row.append(
          button(row, "▲", w.text("Higher", text), up),
          button(row, "▼", w.text("Lower", text), down),
          " " + text,
        );
        rows.append(row);
      }
      return [rows, () => ({ kind: "ranking", value: [...rows.children].map((row) => row.id) })];
    },
  };

  class FeedbackWidget extends HTMLElement {
    connectedCallback() {
      if (this.shadowRoot) return;
      const { kind = "thumbs" } = this.dataset;
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [sheet];
      this.status = make("p", { role: "status" });
      this.why = make("div");
      const [body, signal] = forms[kind]?.(this, this.dataset) || [this.buttons(choices[kind](this))];
      const form = make("fieldset", {}, make("legend", {}, this.text("Ask")), body);
      if (signal) form.append(this.send(() => signal() && this.hold(signal())));
      root.append(form, this.why, this.status);
      const seen = new IntersectionObserver(([entry]) => {
        if (!entry.isIntersecting) return;
        seen.disconnect();
        this.post({ kind: "implicit", event: "feedback_shown", idempotency_key: "shown" });
      });
      seen.observe(form);
    }

    disconnectedCallback() {
      this.flush();
    }

    text(name, value) {
      return (this.dataset["text" + name] ?? TEXT[name]).replace("{}", () => value);
    }

    // Read a list: `a,b` or JSON, `["a", ["b", "what is shown for b"]]`.
    list(name, signal) {
      const given = this.dataset[name] || "";
      const found = given[0] == "[" ? JSON.parse(given) : given.split(",").map((part) => part.trim());
      return found.map((item) => {
        const [value, text = `${value}`] = [].concat(item);
        return [text, "", signal(value)];
      });
    }

    send(onclick) {
      return make("button", { textContent: this.text("Send"), onclick });
    }

    buttons(found) {
      const stars = this.dataset.kind == "stars";
      const all = found.map(([face, name, signal], index) => {
        const onclick = () => {
          this.mark(index);
          this.hold(signal);
          if (signal.kind == "thumbs" && !signal.value) this.ask(signal);
        };
        return make("button", { ariaLabel: name || null, onclick }, ...[].concat(face));
      });
      this.mark = (chosen) => {
        this.why.replaceChildren();
        all.forEach((button, index) => {
          button.ariaPressed = index == chosen;
          button.className = index == chosen || (stars && index < chosen) ? "on" : "";
        });
      };
      this.mark(-1);
      return make("div", {}, ...all);
    }

    // Ask why, for as long as what was said is held: it is longer now, and anew with each answer.
    ask(signal) {
      const patience = (this.dataset.hold ?? 5) * 6;
      if (!+patience) return;
      const boxes = this.dataset.reasons
        ? this.list("reasons", (value) => make("input", { type: "checkbox", value }))
        : [];
      const note = make("textarea", { maxLength: 9999, ariaLabel: this.text("Comment") });
      const rows = boxes.map(([text, , box]) => make("label", {}, box, text));
      const legend = make("legend", {}, this.text("Why"));
      const form = make("fieldset", {}, legend, ...rows, note, this.send(() => this.flush()));
      form.oninput = () => {
        const reasons = boxes.filter(([, , box]) => box.checked).map(([, , box]) => box.value);
        this.later({ ...signal, reasons, comment: note.value || null }, patience);
      };
      this.later(signal, patience);
      this.why.append(form);
    }

    say(text, ...more) {
      this.status.replaceChildren(text, " ", ...more);
    }

    // Keep it back for as long as one may think better of it.
    hold(signal) {
      const undo = () => {
        this.later();
        this.mark?.(-1);
        this.say(this.text("Undone"));
      };
      this.tries = 0;
      this.later(signal, this.dataset.hold ?? 5);
      this.say(this.text("Wait"), make("button", { textContent: this.text("Undo"), onclick: undo }));
    }

    later(signal, seconds) {
      clearTimeout(this.timer);
      this.signal = signal;
      held[signal ? "add" : "delete"](this);
      // One after the other: what arrives last is the last word.
      const turn = async () => {
        await this.sending;
        if (this.signal == signal) this.flush();
      };
      if (signal) this.timer = setTimeout(turn, seconds * 1000);
    }

    flush() {
      if (this.signal) this.sending = this.deliver(this.signal);
    }

    async deliver(signal) {
      this.later();
      this.sent = signal;
      this.why.replaceChildren();
      this.say(this.text("Wait")); // it is too late to undo
      const reply = await this.post(signal);
      if (this.signal || this.sent != signal) return; // something else was said meanwhile
      const status = reply?.status || 0;
      if ((!status || status == 429 || status >= 500) && this.tries++ < 5) {
        // The same again: the service tells a second copy by what is in it.
        this.later(signal, reply?.headers.get("retry-after") || 2 ** this.tries);
        return this.say(this.text("Retry"));
      }
      const same = status == 202 && !this.tries && (await reply.json().catch(() => ({}))).status == "duplicate";
      this.say(this.text(same ? "Same" : RESULT[status] || "Failed"));
    }

    // `keepalive`: it arrives even where the page is left at this moment.
    async post(signal) {
      const { prediction, server, interface: id = "widget" } = this.dataset;
      try {
        return await fetch(new URL("v1/feedback", server || script.src), {
          method: "POST",
          keepalive: true,
          signal: AbortSignal.timeout(3e4),
          credentials: "omit",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ prediction_id: prediction, interface: { id }, ...signal }),
        });
      } catch {}
    }
  }

  for (const leaving of ["pagehide", "visibilitychange"])
    addEventListener(leaving, () => {
      if (leaving == "pagehide" || document.hidden) held.forEach((widget) => widget.flush());
    });
  if (!customElements.get("feedback-widget")) customElements.define("feedback-widget", FeedbackWidget);
  if (script?.dataset.prediction) {
    const widget = make("feedback-widget");
    Object.assign(widget.dataset, { server: script.src }, script.dataset);
    script.after(widget);
  }
})();
