"""Implicit signals: whether they agree with what people say, and that they change nothing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.loop import Loop
from online_learner.schema import Ask, Feedback, Prediction, Signal, Task
from online_learner.settings import ModelSpec, Settings
from online_learner.stages import make_lenses
from policies.implicit import MOST_JUDGED, MOST_OPEN, MUTED, Agreement
from policies.opinion import goodness
from policies.signals import Signals

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

LABELS: dict[Task, Any] = {"classification": ["ham", "spam"]}
OFF: dict[str, Any] = dict.fromkeys(("response", "raters", "drift", "scores"))


class Users:
    """What people do and say of answers, one signal a second, and what the lens makes of it."""

    def __init__(self, task: Task = "classification", **options: Any) -> None:
        self.table = Signals(task, LABELS.get(task))
        self.lens = Agreement(task, LABELS.get(task), **options)
        self.now_ms = 1_000_000
        self.answers = 0

    def answer(self, output: Any = "spam", **fields: Any) -> Prediction:
        """Return another answer."""
        self.answers += 1
        place = {"model": "mail", "version": 1, "lineage": 1, "step": 0}
        return Prediction(features={"n": self.answers}, output=output, **place, **fields)

    def signal(self, answer: Prediction, kind: str, value: Any, **fields: Any) -> Signal:
        """Return a signal on an answer, a second after the last."""
        self.now_ms += 1000
        fields = {"source": "human:ada", **fields}
        feedback = Feedback(kind=kind, value=value, prediction_id="", **fields)
        said = self.table.said(feedback, answer)
        return Signal(feedback, answer, said, f"{answer.features['n']}-0", self.now_ms)

    def hear(self, answer: Prediction, kind: str, value: Any, **fields: Any) -> None:
        """Have the lens hear a signal."""
        self.lens.hear(self.signal(answer, kind, value, **fields))

    def does(self, answer: Prediction, event: str, value: float | None = None) -> None:
        """Have somebody do something."""
        self.hear(answer, "implicit", {"event": event, "value": value})

    def crowd(self, n: int, event: str, chances: dict[bool, float], *, seed: int = 0) -> None:
        """Have thumbs given on answers, of which half are good, and an event come by chance."""
        rng = random.Random(seed)
        for _ in range(n):
            answer, good = self.answer(), rng.random() < 0.5
            came, first = rng.random() < chances[good], rng.random() < 0.5
            if came and first:
                self.does(answer, event)
            self.hear(answer, "thumbs", good)
            if came and not first:
                self.does(answer, event)

    def told(self, event: str) -> dict[str, Any]:
        """Return what is reported of an event."""
        events: list[dict[str, Any]] = self.lens.report()["events"]
        return next(found for found in events if found["event"] == event)


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "chances", "verdict"),
    [
        ("click", {True: 0.1, False: 0.6}, "disagrees"),
        ("click", {True: 0.6, False: 0.1}, "agrees"),
        ("click", {True: 0.3, False: 0.3}, "unclear"),
        ("undo", {True: 0.6, False: 0.1}, "disagrees"),
        ("undo", {True: 0.1, False: 0.6}, "agrees"),
    ],
)
def test_whether_an_event_agrees_is_found(
    event: str, chances: dict[bool, float], verdict: str
) -> None:
    """A click on what people call bad misleads, an undo of what they call good does too."""
    users = Users()
    users.crowd(600, event, chances)
    told = users.told(event)
    assert told["verdict"] == verdict
    agreement, expected = told["agreement"]["share"], told["expected"]
    assert expected == pytest.approx(0.5, abs=0.06)
    assert {"agrees": agreement > 0.7, "disagrees": agreement < 0.3}.get(verdict, True)
    assert told["agreement"]["low"] < agreement < told["agreement"]["high"]
    assert told["n"] >= told["with_explicit"] == told["agreement"]["n"]


def test_an_event_that_misleads_is_raised_once() -> None:
    """One alarm with the numbers, however long it goes on; the report says it in words."""
    users = Users()
    users.crowd(2000, "click", {True: 0.1, False: 0.6})
    [alarm] = users.lens.alarms()
    assert (alarm.by, alarm.about, alarm.effects) == ("implicit", "click", [])
    assert alarm.numbers["agreement"] < alarm.numbers["expected"]  # type: ignore[operator]
    assert "'click' misleads" in alarm.sentence
    assert "never evidence; they change no weight" in users.lens.report()["sentence"]
    assert users.lens.alarms() == []


def test_an_honest_event_raises_nothing() -> None:
    """To agree, or to tell nothing, is no alarm."""
    users = Users()
    users.crowd(600, "click", {True: 0.6, False: 0.1})
    users.crowd(600, "save", {True: 0.3, False: 0.3}, seed=1)
    assert users.lens.alarms() == []
    assert "No event is found to mislead" in users.lens.report()["sentence"]


def test_what_comes_to_mislead_is_found_and_so_is_what_recovers() -> None:
    """The newest verdict stands: it is taken back by as much evidence for the opposite."""
    users, honest, false = Users(), {True: 0.6, False: 0.1}, {True: 0.1, False: 0.6}
    verdicts = []
    for chances in (honest, false, honest):
        users.crowd(1200, "click", chances)
        verdicts.append(users.told("click")["verdict"])
    assert verdicts == ["agrees", "disagrees", "agrees"]
    assert [alarm.about for alarm in users.lens.alarms()] == ["click"]


def test_who_judges_an_answer_again_later_does_not_count_it_twice() -> None:
    """Second opinions come after an answer was counted: it is no further one without the event."""
    users, rng = Users(wait_s=5.0), random.Random(4)
    for _ in range(500):
        answer = users.answer()
        users.does(answer, "click")
        users.hear(answer, "thumbs", rng.random() < 0.9)
        other = users.answer()
        users.hear(other, "thumbs", rng.random() < 0.9)
        users.now_ms += 60_000
        users.hear(answer, "thumbs", value=False, source="human:bob")  # who likes nothing
    told = users.told("click")
    assert told["verdict"] == "unclear"
    assert told["expected"] == pytest.approx(0.9, abs=0.05)
    assert told["with_explicit"] in {499, 500}


def test_a_change_of_the_whole_is_not_taken_for_the_event() -> None:
    """Clicks come when all answers are worse, clicked on or not: that is not their doing."""
    users, rng = Users(), random.Random(2)
    for block in range(10):
        good, clicks = ((0.9, 0.1), (0.3, 0.6))[block % 2]
        for _ in range(300):
            answer = users.answer()
            if rng.random() < clicks:
                users.does(answer, "click")
            users.hear(answer, "thumbs", rng.random() < good)
    told = users.told("click")
    assert told["agreement"]["high"] < told["expected"]
    assert told["verdict"] == "unclear"


# --- what is joined -------------------------------------------------------------------------------


def joined(users: Users) -> tuple[int, float | None]:
    """Return on how many judged answers clicks came, and how they agree, once time has passed."""
    users.now_ms += 3_600_000
    users.does(users.answer(), "share")
    told = users.told("click")
    return told["with_explicit"], (told["agreement"] or {}).get("share")


@pytest.mark.parametrize("order", ["before", "after"])
def test_what_is_said_may_come_before_or_after(order: str) -> None:
    """A click is joined to what people say of the same answer in either order."""
    users = Users()
    answer = users.answer()
    for kind in ("does", "says") if order == "before" else ("says", "does"):
        if kind == "does":
            users.does(answer, "click")
        else:
            users.hear(answer, "correction", "spam")
    assert joined(users) == (1, 1.0)


def test_an_event_that_comes_much_later_is_another_matter() -> None:
    """After `wait_s` an answer that was judged has been counted, as one without the event."""
    users = Users(wait_s=5.0)
    answer = users.answer()
    users.hear(answer, "thumbs", value=True)
    users.now_ms += 10_000
    users.does(answer, "click")
    assert joined(users) == (0, None)
    assert users.told("click")["verdict"] == "no explicit"


def test_the_last_word_counts_and_an_auditors_before_all() -> None:
    """Somebody who changes their mind is taken by the last word; an auditor's stands."""
    users = Users()
    answer = users.answer()
    users.does(answer, "click")
    users.hear(answer, "thumbs", value=True)
    users.hear(answer, "correction", "ham", auditor=True)
    users.hear(answer, "thumbs", value=True)
    assert joined(users) == (1, 0.0)


def test_an_event_counts_once_on_each_answer() -> None:
    """Two clicks on one answer are two signals, and one thing to compare."""
    users = Users()
    answer = users.answer()
    users.does(answer, "click")
    users.does(answer, "click")
    users.hear(answer, "thumbs", value=False)
    assert users.told("click")["n"] == 2
    assert joined(users) == (1, 0.0)


def test_only_long_reading_likes_and_unknown_events_tell_nothing() -> None:
    """A glance neither likes nor dislikes; what is not in the table is counted as others."""
    users = Users()
    users.does(users.answer(), "dwell", 45.0)
    users.does(users.answer(), "dwell", 2.0)
    users.does(users.answer(), "feedback_shown")
    report = users.lens.report()
    assert [(e["event"], e["n"]) for e in report["events"]] == [("dwell", 1)]
    assert report["others"] == 2


# --- what is said, as a number --------------------------------------------------------------------


STARS = {"value": 4.0, "scale": [1, 5]}


@pytest.mark.parametrize(
    ("task", "output", "kind", "value", "found"),
    [
        ("classification", "spam", "correction", "spam", 1.0),
        ("classification", "spam", "correction", "ham", 0.0),
        ("classification", "spam", "thumbs", False, 0.0),
        ("classification", "spam", "rating", STARS, 0.75),
        ("classification", True, "correction", 1, 0.0),
        ("classification", "spam", "flag", {"severity": "block", "rule": "r"}, None),
        ("classification", "spam", "implicit", {"event": "click", "value": None}, None),
        ("regression", 3.0, "correction", 4.0, None),
        ("regression", 3.0, "rating", STARS, 0.75),
        ("ranking", ["a", "b"], "selection", "a", 1.0),
        ("ranking", ["a", "b"], "selection", "b", 0.0),
        ("ranking", ["a", "b"], "ranking", ["b", "a"], 0.0),
        ("ranking", ["a", "b"], "thumbs", True, 1.0),
    ],
)
def test_how_good_an_answer_was_by_any_kind(
    task: Task, output: Any, kind: str, value: Any, found: float | None
) -> None:
    """What people say of an answer is one number from 0 to 1, or nothing."""
    users = Users(task)
    assert goodness(users.signal(users.answer(output), kind, value)) == found


def test_what_is_not_said_of_the_models_answer_is_no_opinion() -> None:
    """A fallback, a planted question and a rule of the system tell nothing of the answer."""
    users = Users()
    planted = users.answer(ask=Ask(reason="gold", probability=1.0))
    found = [
        goodness(users.signal(users.answer(blocked=True), "thumbs", value=True)),
        goodness(users.signal(planted, "thumbs", value=True)),
        goodness(users.signal(users.answer(), "thumbs", value=True, source="system:rule")),
    ]
    assert found == [None] * 3


# --- what follows ---------------------------------------------------------------------------------


def test_by_default_nothing_follows() -> None:
    """Not even an event that misleads reaches the learner."""
    users = Users()
    users.crowd(600, "click", {True: 0.1, False: 0.6})
    assert users.told("click")["verdict"] == "disagrees"
    assert users.lens.table() == {}


def test_what_misleads_can_be_muted() -> None:
    """With `mute` the learner's instance leaves such an event next to no weight, and others all."""
    users, learner = Users(mute=True), Users(mute=True)
    users.crowd(600, "click", {True: 0.1, False: 0.6})
    assert users.lens.table() == {"muted": ["click"]}
    learner.lens.adopt(users.lens.table())
    answer = learner.answer()
    click, save = ({"event": event, "value": None} for event in ("click", "save"))
    factor = learner.lens.factor
    assert factor(learner.signal(answer, "implicit", click)) == MUTED
    assert factor(learner.signal(answer, "implicit", save)) == 1.0
    assert factor(learner.signal(answer, "thumbs", value=True)) == 1.0
    learner.lens.adopt({})
    assert factor(learner.signal(answer, "implicit", click)) == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": "small"},
        {"wait_s": -1.0},
        {"wait_s": math.inf},
        {"wait_s": True},
        {"weight": 2.0},
        {"mute": "yes"},
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """A bad argument says which values are taken."""
    with pytest.raises((ValueError, TypeError), match=rf"^{next(iter(options))}:? is "):
        Agreement("classification", **options)


def test_an_observer_of_a_teams_own_may_stand_in_its_place() -> None:
    """It need not know what implicit signals weigh; the default does, for its report."""
    text = {"task": "classification", "learner": "river.naive_bayes:GaussianNB"}
    for use, weight in (("the_lens:Blind", None), ("policies.implicit:Agreement", 0.1)):
        more = {"implicit_weight": 0.1, "observe": {"implicit": use}}
        lens = make_lenses(ModelSpec.model_validate(text | more))["implicit"]
        assert lens.report().get("weight") == weight


# --- memory ---------------------------------------------------------------------------------------


def test_after_a_restart_it_finds_the_same() -> None:
    """What is restored from plain JSON goes on as if nothing had been."""
    users, heir = Users(), Users()
    users.crowd(150, "click", {True: 0.1, False: 0.6})
    heir.lens.restore(json.loads(json.dumps(users.lens.state())))
    heir.now_ms, heir.answers = users.now_ms, users.answers
    for one in (users, heir):
        one.crowd(400, "click", {True: 0.1, False: 0.6}, seed=1)
    assert json.dumps(heir.lens.state()) == json.dumps(users.lens.state())
    assert len(heir.lens.alarms()) == 1
    heir.lens.restore({})
    assert heir.lens.report()["events"] == []


def test_its_memory_is_bounded() -> None:
    """However many answers are clicked on and judged, of a bounded number more is waited for."""
    users = Users(wait_s=1e6)
    for _ in range(MOST_OPEN + 50):
        users.does(users.answer(), "click")
    for _ in range(MOST_JUDGED + 50):
        users.hear(users.answer(), "thumbs", value=True)
    state = users.lens.state()
    assert len(state["open"]) == MOST_OPEN
    assert len(state["judged"]) <= MOST_JUDGED + 1
    assert len(json.dumps(state)) < 200_000


# --- in the loop ----------------------------------------------------------------------------------


async def test_with_the_default_configuration_clicks_change_no_weight(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The weights are the same bits with misleading clicks and without; the report says so."""
    clicked = await _play(await open_loop(make_settings(web={"observe": OFF})), clicks=True)
    await clicked.store.call("FLUSHALL")
    quiet = await _play(await open_loop(make_settings(web={"observe": OFF})), clicks=False)
    digests = [loop.stages("web").trainer.learner.digest() for loop in (clicked, quiet)]
    assert digests[0] == digests[1]
    report = clicked.stages("web").observer.lenses["implicit"].report()
    [told] = report["events"]
    assert (told["event"], told["n"]) == ("click", 40)
    assert "they change no weight" in report["sentence"]


async def test_no_click_settles_an_audit(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """An audit that was only clicked on settles as unanswered: clicks are never evidence."""
    loop = await open_loop(make_settings(web={"observe": OFF, "audit_deadline_s": 60.0}))
    ids = [(await loop.predict("web", {"a": 1.0}))["prediction_id"] for _ in range(4)]
    for prediction_id in ids:
        await loop.feedback(prediction_id, "implicit", event="click")
    await loop.feedback(ids[0], "correction", value=True)
    loop.ingest.clock.advance(120.0)  # type: ignore[attr-defined]
    await loop.turn("web")
    judge = loop.stages("web").gatekeeper.judge
    assert (judge.answered, judge.unanswered) == (1, 3)


async def _play(loop: Loop, *, clicks: bool) -> Loop:
    """Have 60 answers corrected by turns, and clicked on where they were wrong."""
    rng = random.Random(3)
    for number in range(120):
        answer = await loop.predict("web", {"a": rng.gauss(0, 1)})
        if clicks and number % 3 == 0:
            await loop.feedback(answer["prediction_id"], "implicit", event="click")
        if number % 2:
            await loop.feedback(answer["prediction_id"], "correction", rng.random() < 0.5)
        if number % 10 == 9:
            await loop.turn("web")
    return loop
