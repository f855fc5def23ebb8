"""Drift: what is found to change, in which direction, what follows, and that nothing cries wolf."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.loop import Loop
from online_learner.schema import Ask, Feedback, Prediction, Said, Settled, Sighting, Signal
from online_learner.settings import Settings
from policies.drift import EFFECTS, HASTE, MOST_FEATURES, MOST_OUTPUTS, Drift
from policies.drift.traits import LEARN, Trait, number_of
from policies.drift.window import MOST, Window
from policies.validation import Validation

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

LABELS = ["ham", "spam"]
PLACE: dict[str, Any] = {"model": "mail", "version": 1, "lineage": 1, "step": 0}
HOUR_MS = 3_600_000


class World:
    """Audits, answers and corrections, one a second, and what the lens says of them."""

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        self.lens = Drift("classification", LABELS, **options)
        self.rng = random.Random(seed)
        self.now_ms = 1_000_000_000

    def tick(self) -> str:
        """Let a second pass; returns the entry of what happens then."""
        self.now_ms += 1000
        return f"{self.now_ms}-0"

    def audits(self, n: int, *, wrong: float) -> None:
        """Have audits settle of which a share was wrong."""
        for _ in range(n):
            score = float(self.rng.random() >= wrong)
            self.lens.settle(self.tick(), Settled(answered=True, scores={"champion": score}))

    def answers(self, n: int, *, output: Any = "ham", score: float = 0.9, **features: Any) -> None:
        """Have answers seen; a feature may be a function of the random source."""
        for _ in range(n):
            values = {k: f(self.rng) if callable(f) else f for k, f in features.items()}
            label = output(self.rng) if callable(output) else output
            sure = min(1.0, max(0.0, self.rng.gauss(score, 0.05)))
            scores = {str(label): sure}
            prediction = Prediction(features=values, output=label, scores=scores, **PLACE)
            self.lens.see(Sighting(self.tick(), self.now_ms, prediction))

    def corrections(self, n: int, *, wrong: float, **fields: Any) -> None:
        """Have people say unasked what is right; a share of the answers was wrong."""
        for _ in range(n):
            right = "spam" if self.rng.random() < wrong else "ham"
            prediction = Prediction(features={}, output="ham", **PLACE, **fields)
            feedback = Feedback(kind="correction", value=right, source="human:a", prediction_id="")
            entry = self.tick()
            self.lens.hear(Signal(feedback, prediction, Said(right=right), entry, self.now_ms))

    def raised(self) -> list[str]:
        """Return what alarms are about since the last time."""
        return [alarm.about for alarm in self.lens.alarms()]

    def told(self, what: str) -> dict[str, Any]:
        """Return what is reported of one detector."""
        watched: list[dict[str, Any]] = self.lens.report()["watched"]
        return next(found for found in watched if found["what"] == what)


# --- the loss -------------------------------------------------------------------------------------


def test_a_loss_that_rises_is_one_alarm() -> None:
    """It says from where to where, of how many audits, and that answers have become worse."""
    world = World()
    world.audits(1000, wrong=0.1)
    assert world.raised() == []
    world.audits(300, wrong=0.5)
    [alarm] = world.lens.alarms()
    assert (alarm.by, alarm.about, alarm.effects) == ("drift", "loss", [])
    assert alarm.numbers["before"] == pytest.approx(0.1, abs=0.03)
    assert alarm.numbers["after"] == pytest.approx(0.5, abs=0.2)
    assert 5 <= int(alarm.numbers["n"] or 0) <= 150
    assert "has risen from 0.1" in alarm.sentence
    assert "become worse" in alarm.sentence
    assert world.lens.alarms() == []


def test_a_loss_that_falls_is_noted_and_no_alarm() -> None:
    """A learner that learns is no cause for concern; what is usual now is what it has come to."""
    world = World()
    world.audits(1000, wrong=0.5)
    world.audits(1000, wrong=0.1)
    assert world.raised() == []
    assert world.told("loss")["mean"] == pytest.approx(0.1, abs=0.03)
    assert world.told("loss")["alarms"] == 0
    world.audits(300, wrong=0.4)
    assert world.raised() == ["loss"]


def test_a_loss_that_stays_raises_nothing() -> None:
    """Over 40,000 audits of eight worlds in which nothing changes there is hardly an alarm."""
    alarms = 0
    for seed in range(8):
        world = World(seed=seed)
        world.audits(5000, wrong=0.1 + 0.05 * seed)
        alarms += len(world.raised())
    assert alarms <= 1


def test_what_people_say_unasked_is_watched_apart() -> None:
    """Neither what is asked of is among it nor what other roles answered: that is another share."""
    world = World()
    world.corrections(400, wrong=0.2)
    for reason in ("audit", "uncertain", "gold"):
        world.corrections(400, wrong=0.9, ask=Ask(reason=reason, probability=0.1))
    world.corrections(400, wrong=0.9, role="challenger:2")
    world.corrections(400, wrong=0.9, explored=True)
    assert world.raised() == []
    assert world.told("volunteered loss")["n"] == 400
    world.corrections(200, wrong=0.9)
    assert world.raised() == ["volunteered loss"]


def test_one_change_is_one_alarm_until_it_has_cooled_down() -> None:
    """Audits and people tell of the same change; after `cooldown_s` it may be raised again."""
    world = World(cooldown_s=3600.0)
    for wrong in (0.1, 0.7):
        world.audits(500, wrong=wrong)
        world.corrections(500, wrong=wrong)
    assert world.raised() == ["loss"]
    assert world.told("volunteered loss")["alarms"] == 1
    world.now_ms += HOUR_MS
    world.audits(500, wrong=0.1)
    world.audits(500, wrong=0.7)
    assert world.raised() == ["loss"]


def test_an_audit_that_nobody_answered_tells_nothing() -> None:
    """What was not answered, and what the champion had no score for, is left out."""
    world = World()
    for settled in (Settled(answered=False), Settled(answered=True, scores={"challenger:2": 1.0})):
        world.lens.settle(world.tick(), settled)
    assert world.lens.report()["watched"] == []


# --- without labels -------------------------------------------------------------------------------


def test_answers_that_become_less_sure_are_an_alarm() -> None:
    """Surer ones are none; neither is a move by less than `least`."""
    world = World()
    world.answers(500, score=0.8)
    world.answers(500, score=0.9)
    world.answers(500, score=0.87)
    assert world.raised() == []
    world.answers(500, score=0.7)
    [alarm] = world.lens.alarms()
    assert alarm.about == "score"
    assert "less sure" in alarm.sentence


def test_what_creeps_is_found_in_the_end() -> None:
    """Steps that each are less than `least` add up: they are measured from the last alarm."""
    world = World()
    for step in range(12):
        world.answers(400, score=0.9 - 0.02 * step)
    assert world.raised()[0] == "score"


def test_another_mix_of_answers_is_an_alarm() -> None:
    """The share of a label, once rare, is told by name; both labels are one alarm."""
    world = World()
    world.answers(700, output=lambda rng: "spam" if rng.random() < 0.1 else "ham")
    world.answers(700, output=lambda rng: "spam" if rng.random() < 0.6 else "ham")
    [alarm] = world.lens.alarms()
    assert alarm.about in {"output ham", "output spam"}
    assert world.told("output spam")["mean"] == pytest.approx(0.6, abs=0.1)


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "number": (lambda rng: rng.gauss(3, 1), lambda rng: rng.gauss(5, 1), "feature x"),
    "heavy tails": (
        lambda rng: rng.paretovariate(0.5),
        lambda rng: 5 * rng.paretovariate(0.5),
        "feature x",
    ),
    "yes or no": (lambda rng: rng.random() < 0.2, lambda rng: rng.random() < 0.6, "feature x"),
    "it was always the same": (7, 8, "feature x"),
    "it goes missing": (lambda rng: rng.gauss(3, 1), None, "feature x"),
    "categories": (
        lambda rng: rng.choice(["de", "de", "de", "en"]),
        lambda rng: rng.choice(["de", "en", "en"]),
        "feature x",
    ),
    "a new category": (
        lambda rng: rng.choice(["de", "en"]),
        lambda rng: rng.choice(["de", "en", "fr"]),
        "feature x",
    ),
    "vectors": (
        lambda rng: [rng.gauss(0, 1) for _ in range(8)],
        lambda rng: [rng.gauss(place, 1) for place in range(8)],
        "feature x",
    ),
    "longer texts": (
        lambda rng: " ".join(rng.choices(["a", "b", "c", "d", "e"], k=rng.randint(20, 30))),
        lambda rng: " ".join(rng.choices(["a", "b", "c", "d", "e"], k=rng.randint(30, 40))),
        "length of feature x",
    ),
    "other words": (
        lambda rng: " ".join(f"w{rng.randint(0, 99)}" for _ in range(20)),
        lambda rng: " ".join(f"w{rng.randint(50, 149)}" for _ in range(20)),
        "unknown words in feature x",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_asked_is_watched_whatever_it_is(kind: str) -> None:
    """A feature of any kind that becomes another is an alarm, and one that does not is none."""
    before, after, about = CHANGES[kind]
    world = World()
    world.answers(1500, x=before, y=lambda rng: rng.random())
    assert world.raised() == []
    world.answers(600, x=after, y=lambda rng: rng.random())
    assert world.raised() == [about]


def test_after_an_alarm_what_is_usual_is_learned_anew() -> None:
    """A feature far beyond all that it was is ranked among its like again, and found to return."""
    world = World(cooldown_s=0.0)
    for mean in (0.0, 1000.0, 1003.0):
        world.answers(600, x=lambda rng, mean=mean: rng.gauss(mean, 1))
    assert world.raised() == ["feature x", "feature x"]


def test_a_planted_question_is_none_of_the_traffic() -> None:
    """What an operator asks to learn about raters is not what users ask."""
    world = World()
    gold = Ask(reason="gold", probability=1.0)
    prediction = Prediction(features={"x": 1}, output="ham", scores={"ham": 0.9}, ask=gold, **PLACE)
    world.lens.see(Sighting(world.tick(), world.now_ms, prediction))
    assert world.lens.report()["watched"] == []


def test_a_number_answered_is_watched_by_rank() -> None:
    """In regression the answer itself has its ranks, and no score."""
    lens, rng = Drift("regression"), random.Random(0)
    for t in range(1500):
        price = rng.gauss(100 if t < 1000 else 110, 5)
        prediction = Prediction(features={}, output=price, **PLACE)
        lens.see(Sighting(f"{t}-0", 1000 * t, prediction))
    assert [alarm.about for alarm in lens.alarms()] == ["output"]


# --- what follows ---------------------------------------------------------------------------------


def test_by_default_an_alarm_is_all() -> None:
    """Nothing is asked more, nothing is told to the learner."""
    world = World()
    world.audits(500, wrong=0.1)
    world.audits(200, wrong=0.7)
    assert world.raised() == ["loss"]
    assert (world.lens.ask(), world.lens.table()) == (1.0, {})
    assert world.lens.report()["effects"] == {}


def test_effects_are_in_force_for_a_time_of_the_stream() -> None:
    """They are named in the alarm, begin with it, and end when the stream has gone on so far."""
    world = World(effects=list(EFFECTS), effect_s=600.0, ask_factor=3.0)
    world.audits(500, wrong=0.1)
    assert (world.lens.ask(), world.lens.table()) == (1.0, {})
    world.audits(60, wrong=0.9)
    [alarm] = world.lens.alarms()
    assert alarm.effects == list(EFFECTS)
    table = world.lens.table()
    assert (world.lens.ask(), table["haste"]) == (3.0, HASTE)
    assert world.now_ms < table["suspend_until_ms"] <= world.now_ms + 600_000
    assert set(world.lens.report()["effects"]) == {*EFFECTS, "until_ms"}
    world.now_ms = table["suspend_until_ms"]
    world.audits(1, wrong=0.0)
    assert (world.lens.ask(), world.lens.table()) == (1.0, {})
    assert world.lens.report()["effects"] == {}


@pytest.mark.parametrize(("upon", "asks"), [("loss", 1.0), ("any", 2.0)])
def test_upon_which_alarms_effects_follow(upon: str, asks: float) -> None:
    """By default only the loss has effects: that others ask may do no harm."""
    world = World(effects=["ask"], upon=upon)
    world.answers(500, score=0.9)
    world.answers(200, score=0.6)
    [alarm] = world.lens.alarms()
    assert (alarm.about, world.lens.ask()) == ("score", asks)
    assert alarm.effects == (["ask"] if upon == "any" else [])


@pytest.mark.parametrize(
    "options",
    [
        {"delta": 0.0},
        {"least": 1.0},
        {"most_features": 1000},
        {"cooldown_s": -1.0},
        {"effect_s": 0.0},
        {"effects": ["panic"]},
        {"effects": "ask"},
        {"upon": "nothing"},
        {"ask_factor": 0.5},
        {"delta": "small"},
        {"most_features": 2.5},
        {"cooldown_s": math.nan},
        {"effect_s": math.inf},
        {"effects": 3},
        {"effects": [["ask"]]},
        {"upon": ["loss"]},
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """A bad argument says which values are taken."""
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(options))}:? is "):
        Drift("classification", **options)


# --- memory ---------------------------------------------------------------------------------------


def _busy(world: World, n: int) -> None:
    """Have something of all that is watched happen."""
    for _ in range(n):
        world.audits(1, wrong=0.2)
        world.corrections(1, wrong=0.3)
        world.answers(
            1,
            output=lambda rng: rng.choice(LABELS),
            number=lambda rng: rng.gauss(0, 1),
            text=lambda rng: " ".join(f"w{rng.randint(0, 999)}" for _ in range(60)),
            kind=lambda rng: rng.choice("abc"),
        )


@pytest.mark.parametrize("before", [50, LEARN + 10, 700, MOST + 100])
def test_after_a_restart_it_finds_the_same(before: int) -> None:
    """Detectors are built again from the values: later alarms and reports are the same."""
    world, heir = World(), World()
    _busy(world, before)
    heir.lens.restore(json.loads(json.dumps(world.lens.state())))
    heir.rng.setstate(world.rng.getstate())
    heir.now_ms = world.now_ms
    for one in (world, heir):
        _busy(one, 300)
        one.audits(200, wrong=0.8)
    assert [alarm.sentence for alarm in world.lens.alarms()] == [
        alarm.sentence for alarm in heir.lens.alarms()
    ]
    assert json.dumps(world.lens.state()) == json.dumps(heir.lens.state())
    assert world.lens.report() == heir.lens.report()


def test_fewer_features_are_watched_after_a_restart_that_wants_fewer() -> None:
    """The commonest stay, with what was known of them; the others are dropped, and none comes."""
    world, heir = World(), World(most_features=1)
    texts = [" ".join(f"w{n}" for n in range(first, first + 60)) for first in range(60)]
    few: dict[str, Any] = {"number": lambda rng: rng.gauss(0, 1)}
    world.answers(50, **few)
    world.answers(3 * LEARN, text=lambda rng: texts[int(60 * rng.random())], **few)
    watched = {found["what"] for found in world.lens.report()["watched"]}
    assert {"feature number", "length of feature text"} <= watched
    heir.lens.restore(json.loads(json.dumps(world.lens.state())))
    heir.answers(50, text="other", **few)
    assert {found["what"] for found in heir.lens.report()["watched"]} == {
        "score",
        "output ham",
        "feature number",
    }
    assert heir.told("feature number")["n"] == world.told("feature number")["n"] + 50


def test_a_window_that_was_cut_short_is_restored_the_same() -> None:
    """Past twice `MOST` values the oldest are forgotten, before a restart as after it."""
    rng, window = random.Random(4), Window(0.01)
    for _ in range(2 * MOST + 10):
        window.add(rng.random())
    assert (len(window.values), window.n) == (MOST + 10, 2 * MOST + 10)
    heir = Window.restored(window.state(), 0.01)
    changes = []
    for _ in range(400):
        value = 0.6 + 0.4 * rng.random()
        changes.append((window.add(value), heir.add(value)))
    assert all(one == other for one, other in changes)
    assert any(one is not None for one, _ in changes)


def test_its_memory_is_bounded() -> None:
    """With too many features, all of them texts, and labels its state stays below 300 kB."""
    world = World()
    texts = [" ".join(f"w{world.rng.getrandbits(20)}" for _ in range(60)) for _ in range(500)]
    features = {
        f"f{place}": lambda rng: texts[int(500 * rng.random())]
        for place in range(MOST_FEATURES + 9)
    }
    world.answers(2 * MOST + 190, output=lambda rng: f"label {rng.randint(0, 50)}", **features)
    report = world.lens.report()
    assert len(json.dumps(world.lens.state())) < 300_000
    assert sum(found["what"].startswith("output") for found in report["watched"]) == MOST_OUTPUTS
    assert len(report["watched"]) + report["others"] <= 1 + MOST_OUTPUTS + 2 * MOST_FEATURES
    assert len(report["watched"]) <= 50


def test_what_is_restored_from_nothing_has_seen_nothing() -> None:
    """An empty state forgets all."""
    world = World()
    world.audits(100, wrong=0.1)
    world.lens.restore({})
    assert world.lens.report()["watched"] == []


def test_no_text_is_kept() -> None:
    """Of what was asked only numbers, lengths and hashes are in its state."""
    world = World()
    world.answers(LEARN * 3, note=lambda rng: f"secret{rng.randint(0, 999)}", kind="confidential")
    state = json.dumps(world.lens.state())
    assert "secret" not in state
    assert "confidential" not in state


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [], ["a"], {}, "7", None])
def test_what_is_no_number(value: Any) -> None:
    """Neither texts and objects nor what is not finite is taken for a number."""
    assert number_of(value) is None


def test_a_trait_ranks_ties_in_the_middle() -> None:
    """What is always the same has the rank of a half; beyond it there is all or nothing."""
    trait = Trait()
    for _ in range(LEARN):
        assert list(trait.read(3)) == []
    found = [next(iter(trait.read(value)))[1] for value in (3, 4, 2, None, "x")]
    assert found == [0.5, 1.0, 0.0, 0.0, 0.0]


# --- reputation is suspended ----------------------------------------------------------------------


def _say(policy: Validation, rater: str, at_ms: int, *, agrees: bool = False) -> float:
    """Return what is left of a weight of 1 of a rater who agrees with what answered, or not."""
    prediction = Prediction(features={"at": at_ms}, output=True, **PLACE)
    feedback = Feedback(kind="correction", value=agrees, source=rater, prediction_id="")
    signal = Signal(feedback, prediction, Said(right=agrees), f"{at_ms}-{rater}", at_ms)
    return policy.weigh(signal, 1.0)


def _crowd(policy: Validation, start_ms: int, n: int, *, liar: bool = True) -> list[float]:
    """Have a crowd agree by turns, and one rater say the opposite; returns the latter's weights."""
    found = []
    for turn in range(n):
        for one in range(4):
            _say(policy, f"human:{one}", start_ms + 1000 * turn + one, agrees=True)
        if liar:
            found.append(_say(policy, "human:odd", start_ms + 1000 * turn + 9))
    return found


def test_while_it_is_suspended_reputation_holds_nothing_against_anybody() -> None:
    """What was held against a rater is forgiven, and nothing new is until the time has come."""
    policy = Validation("classification", share=None)
    assert _crowd(policy, 0, 40)[-1] < 0.1
    policy.suspend(200_000)
    assert _crowd(policy, 100_000, 40) == [1.0] * 40
    assert _crowd(policy, 200_000, 40)[-1] < 0.1


def test_an_earlier_end_changes_nothing() -> None:
    """What is told again, or ends before what was told, forgives nobody."""
    policy = Validation("classification", share=None)
    policy.suspend(50_000)
    doubted = _crowd(policy, 60_000, 40)[-1]
    policy.suspend(50_000)
    policy.suspend(40_000)
    assert _say(policy, "human:odd", 120_000) <= doubted < 0.1


def test_a_suspension_survives_a_restart() -> None:
    """It is part of what is remembered, even where nobody has spoken; an old state has none."""
    policy, heir = (Validation("classification", share=None) for _ in range(2))
    policy.suspend(100_000)
    heir.restore(json.loads(json.dumps(policy.state())))
    for one in (policy, heir):
        assert _crowd(one, 50_000, 30) == [1.0] * 30
    assert policy.state() == heir.state()
    state = policy.state()
    del state["suspended_until_ms"]
    heir.restore(state)
    assert heir.suspended_until_ms == 0


# --- in the loop ----------------------------------------------------------------------------------

OFF: dict[str, Any] = dict.fromkeys(("response", "raters", "implicit", "scores"))


async def test_in_the_loop_a_rising_loss_suspends_reputation_and_asks_more(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The alarm is on the stream, the learner was told, and twice as much is asked."""
    lens = {"use": "policies.drift:Drift", "effects": [*EFFECTS]}
    web = {"audit": 1.0, "observe": OFF | {"drift": lens}, "promotion": {"policy": MANUAL}}
    loop = await open_loop(make_settings(web=web))
    stages = loop.stages("web")
    for truth in (False, True):
        for _ in range(120):
            answer = await loop.predict("web", {"a": 0.0})
            right = answer["output"] if truth is False else not answer["output"]
            await loop.feedback(answer["prediction_id"], "correction", right)
    await loop.turn("web")
    await loop.turn("web")
    alarms = await stages.registry.store.range(stages.registry.keys.alarms)
    assert [json.loads(fields[b"a"])["about"] for _, fields in alarms] == ["loss"]
    interpreter: Any = stages.trainer.interpreter
    told = interpreter.corrections.tables["drift"]
    assert told["haste"] == HASTE
    assert interpreter.validation.suspended_until_ms == told["suspend_until_ms"]
    assert stages.observer.at is not None
    assert stages.observer.at.advice.ask == 2.0


MANUAL = "policies.promotion:Manual"
