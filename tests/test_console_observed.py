"""The console on what observers found: who answers, raters, alarms, quality, served scores."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from the_observers import RAISED, REPORTS, report

from online_learner.ids import Keyring
from online_learner.registry import Registry
from online_learner.store import open_store
from serve_app.console import observed
from serve_app.console.scene import PANELS

EVIL = "<script>alert(1)</script>"
SHOWN = ("quality", "alarms", "bias", "raters", "calibration")


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service; nobody asks its models anything."""
    return start_service(web={}, topic={}, rent={}, pages={}, llm={"observe": {"response": None}})


async def keep(service: Any, model: str, reports: dict[str, Any], **more: Any) -> None:
    """Keep what observers report of a model."""
    async with await open_store(service.server.url) as store:
        await report(Registry(store, Keyring.load(service.data_dir), model), reports, **more)


def panels(http: httpx2.Client, model: str) -> dict[str, str]:
    """Return what is to be read in the panels."""
    page = http.get(f"/console/{model}/{','.join(SHOWN)}").raise_for_status().text
    found = re.findall(r'<section[^>]* data-panel="(\w+)"(.*?)</section>', page, flags=re.DOTALL)
    return {name: text(part) for name, part in found}


def text(part: str) -> str:
    """Return what is to be read of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())


def test_the_panels_stand_on_the_page(service: Any, http: httpx2.Client) -> None:
    """Before anything was observed each says what it is for, and what to type."""
    assert set(SHOWN) <= set(PANELS)
    shown = panels(http, "web")
    assert "online-learner bias web" in shown["bias"]
    assert "online-learner raters web" in shown["raters"]
    assert "online-learner watch web --events alarm" in shown["alarms"]
    assert "online-learner label web" in shown["quality"]
    assert "observe: {response: null}" in panels(http, "llm")["bias"]


async def test_what_is_reported_is_shown(service: Any, http: httpx2.Client) -> None:
    """Rates, estimates, raters, alarms and scores stand there with their bounds, and why."""
    await keep(service, "topic", REPORTS, alarms=[RAISED])
    shown = panels(http, "topic")
    bias = shown["bias"]
    assert "3.0 % of 2,000 answers were spoken of (95 %: 2.4 % to 3.6 %)" in bias
    assert re.search(r"50 % to 75 % 8.0 % 6.4 % to 9.6 % 500", bias)
    assert "plan free" in bias
    assert "mail/b" in bias
    assert "5 times as readily" in bias
    assert re.search(r"the same, corrected 79.0 % 76.0 % to 82.0 % 60", bias)
    assert "weighing off auto It takes more audits to tell." in bias
    assert "raw 0.810, corrected 0.830, 120 times. Evidence 5 of 20." in bias
    assert re.search("human:mallory inverted 90 10 % . . 0.05", shown["raters"])
    assert "17 others say less" in shown["raters"]
    assert "weighing on auto" in shown["raters"]
    assert "click 3,000 38 % 50 % disagrees" in shown["raters"]
    assert "In force until 2027-01-15 08:00 UTC : ask 2" in shown["alarms"]
    assert RAISED.sentence in shown["alarms"]
    assert "0.3 alarms in 100,000" in shown["alarms"]
    assert "Since then: ask x 2" in shown["alarms"]
    assert re.search(
        r"champion 82.0 % 79.0 % to 85.0 % 86.0 % 85.0 % 0.44 0.8 500", shown["quality"]
    )
    assert shown["quality"].index("champion 82") < shown["quality"].index("anchor 70")
    assert "the label before 40.0 %" in shown["quality"]
    assert "the most frequent label 50.0 %" in shown["quality"]
    assert "plan paid 91.0 %" in shown["quality"]
    assert "thumbs up 60.0 %, corrected 70.0 %, of 40" in shown["quality"]


async def test_what_came_before_any_window_was_over_is_shown(
    service: Any, http: httpx2.Client
) -> None:
    """While nobody could be silent yet, what audits say stands below the word that it is early."""
    audited = {"n": 40, "score": 0.5, "low": 0.3, "high": 0.7}
    rate = {"n": 0, "k": 0, "share": None, "low": 0.0, "high": 1.0}
    told = {"rate": rate, "estimates": {"audited": audited}}
    await keep(service, "rent", {"response": told})
    bias = panels(http, "rent")["bias"]
    assert "Looked at 10 min after each answer" in bias
    assert "online-learner bias rent" in bias
    assert "audits 50.0 % 30.0 % to 70.0 % 40" in bias


async def test_bars_lie_where_the_shares_are(service: Any, http: httpx2.Client) -> None:
    """The highest bound is where all bars end; the rest lies in proportion to it."""
    rates = [
        {"value": "a", "n": 100, "k": 10, "share": 0.1, "low": 0.05, "high": 0.2},
        {"value": "b", "n": 100, "k": 4, "share": 0.04, "low": 0.0, "high": 0.1},
        {"value": "c", "n": 0, "k": 0, "share": None, "low": None, "high": None},
    ]
    told = {"rate": rates[0], "by": {"output": rates}}
    await keep(service, "rent", {"response": told})
    part = http.get("/console/rent/bias").text
    found = re.findall(r'class="range" x="([\d.]+)" width="([\d.]+)"', part)
    assert found == [("25.00", "75.00"), ("0.00", "50.00")]
    assert re.findall(r'class="point" x="([\d.]+)"', part) == ["50.00", "20.00"]


async def test_reports_of_other_forms_break_nothing(service: Any, http: httpx2.Client) -> None:
    """Whatever an observer of a team's own reports, the page is drawn, and nothing is HTML."""
    odd: dict[str, Any] = {
        "response": {"rate": EVIL},
        "raters": [EVIL],
        "implicit": {"events": [{"event": EVIL}], "sentence": EVIL},
        "drift": {"watched": [{"what": EVIL}], "effects": {EVIL: EVIL}},
        "scores": "none",
        "quality": {"roles": {EVIL: {"accuracy": "good"}, "champion": 0.5}, "segments": [1]},
    }
    raised = RAISED.model_copy(
        update={"about": EVIL, "sentence": EVIL, "effects": [EVIL], "numbers": {EVIL: EVIL}}
    )
    await keep(service, "pages", odd, alarms=[raised])
    page = http.get("/?model=pages").raise_for_status().text
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    shown = panels(http, "pages")
    assert "As the observer puts it" in shown["bias"]
    assert "champion 50.0 %" in shown["quality"]
    for reports in ({"quality": 1}, {"quality": {"roles": None, "said": {"x": {"raw": True}}}}, {}):
        await keep(service, "pages", reports)
        http.get(f"/console/pages/{','.join(SHOWN)}").raise_for_status()


async def test_what_is_damaged_does_not_take_the_page_along(
    service: Any, http: httpx2.Client
) -> None:
    """Where reports carry no seal of ours these panels say so, and all the others are there."""
    await keep(service, "llm", REPORTS)
    async with await open_store(service.server.url) as store:
        await store.call("HSET", "ol:{llm}:observer", "memory", b"{}")
    page = http.get("/?model=llm").raise_for_status().text
    assert "damaged or gone: see `online-learner doctor`" in html.unescape(page)
    assert all(f'data-panel="{name}"' in page for name in PANELS)
    assert "Clicks do not mean" not in page


def test_served_scores_lie_beside_the_raw_ones() -> None:
    """Of scores that are served there are bins where any answer was judged, and none before."""
    told = observed.reliability(REPORTS)
    assert told["served"]["error"] == 0.02
    assert [row["place"] for row in told["places"]] == ["champion:3"]
    nothing = {"scores": {"served": {"n": 0, "bins": []}}}
    for reports in (nothing, {}):
        assert observed.reliability(reports) == {"places": [], "served": None, "weighing": None}
