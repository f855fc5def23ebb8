// Promote, roll back, freeze, thaw: first what it would do, then, once confirmed, that. And diffs.

const WHAT = {
  promote: (version) => `Promote version ${version}`,
  rollback: () => "Roll back",
  freeze: () => "Freeze",
  thaw: () => "Thaw",
};
const TOLD = ["champion", "following", "anchor", "previous", "challengers", "frozen", "lineage"];

export function start(page, live) {
  const dialog = page.find("#confirm");
  let body = {};
  let action = "";

  document.addEventListener("click", (event) => {
    const operate = event.target.closest?.("[data-operate]");
    const diff = event.target.closest?.("[data-diff]");
    if (operate) preview(operate.dataset.operate, operate.dataset.version);
    if (diff) compare(diff.dataset.diff);
  });
  page.find("#confirm-yes").addEventListener("click", apply);

  async function preview(what, version) {
    action = what;
    body = version === undefined ? {} : { version: Number(version) };
    page.find("#confirm-title").textContent = `${WHAT[what](version)}?`;
    page.find("#confirm-changes").replaceChildren();
    page.find("#confirm-what").textContent = "…";
    page.find("#confirm-yes").textContent = WHAT[what](version);
    wrong("");
    dialog.showModal();
    page.find("#confirm-no").focus();
    try {
      const now = (await page.ask("GET", page.path)).aliases;
      const would = await page.ask("POST", `${page.path}/${what}`, { ...body, dry_run: true });
      page.find("#confirm-what").textContent = would.verdict.sentence;
      page.find("#confirm-changes").replaceChildren(...changes(now, would.aliases));
      page.find("#confirm-yes").disabled = false;
    } catch (error) {
      page.find("#confirm-what").textContent = "";
      page.find("#confirm-yes").disabled = true;
      wrong(error.message);
    }
  }

  function changes(now, then) {
    const text = (value) => (value === null || value?.length === 0 ? "none" : String(value));
    return TOLD.filter((name) => text(now[name]) !== text(then[name])).map((name) => {
      const row = page.make("div");
      row.append(page.make("dt", name), page.make("dd", `${text(now[name])} → ${text(then[name])}`));
      return row;
    });
  }

  async function apply() {
    page.find("#confirm-yes").disabled = true;
    try {
      const done = await page.ask("POST", `${page.path}/${action}`, body);
      dialog.close();
      page.say(done.verdict.sentence);
      live.mark(["tiles", "score", "verdicts", "versions"], true);
    } catch (error) {
      wrong(error.message);
      page.find("#confirm-yes").disabled = false;
    }
  }

  function wrong(words) {
    page.find("#confirm-error").hidden = !words;
    page.find("#confirm-error").textContent = words;
  }

  async function compare(pair) {
    const place = page.find("#diff-body");
    place.replaceChildren(page.make("h2", "Comparing …", { id: "diff-title" }));
    page.find("#diff").showModal();
    try {
      place.innerHTML = await page.ask("GET", `/console/${encodeURIComponent(page.model)}/diff/${pair}`);
    } catch (error) {
      place.replaceChildren(page.make("h2", "No diff", { id: "diff-title" }), page.make("p", error.message, { class: "wrong" }));
    }
  }
}
