"""Whom to believe: how raters are told apart, what they weigh, and when the learner is told."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from benchmarks.policies.crowds import Plan, planted
from online_learner.schema import Ask, Feedback, Label, Option, Prediction, Signal, Task
from policies.raters import Raters
from policies.raters.confusion import MOST_FULL, Word, blank, chances, count, grown, guessed
from policies.raters.proof import MOST_WEIGHT, Proof
from policies.raters.scale import AUDITOR, Scale
from policies.raters.skene import HALF, Skene
from policies.signals import Signals

HONEST = 0.85


class Room:
    """A lens, and people who speak before it."""

    def __init__(
        self, task: Task = "classification", labels: list[Label] | None = None, **options: Any
    ) -> None:
        self.labels = labels or ["no", "yes"]
        self.table = Signals(task, self.labels)
        self.lens = Raters(task, self.labels if task == "classification" else None, **options)

    def signal(
        self,
        answer: str,
        source: str,
        value: Any,
        *,
        kind: str = "correction",
        auditor: bool = False,
        output: Any = "no",
        **fields: Any,
    ) -> Signal:
        """Return what somebody says of an answer."""
        prediction = Prediction(
            model="m", features={}, output=output, version=1, lineage=1, step=1, **fields
        )
        feedback = Feedback(
            kind=kind, value=value, source=source, auditor=auditor, prediction_id=answer
        )
        return Signal(feedback, prediction, self.table.said(feedback, prediction), answer, 0)

    def say(self, answer: str, source: str, value: Any, **fields: Any) -> None:
        """Have somebody say something of an answer."""
        self.lens.hear(self.signal(answer, source, value, **fields))

    def factor(self, source: str, **fields: Any) -> float:
        """Return what a learner would weigh the word of a rater by."""
        learner = Raters("classification", self.labels)
        learner.adopt(json.loads(json.dumps(self.lens.table())))
        return learner.factor(self.signal("new", source, self.labels[0], **fields))

    def row(self, source: str) -> dict[str, Any]:
        """Return what is reported of a rater."""
        [found] = [row for row in self.lens.report()["raters"] if row["rater"] == source]
        return dict(found)

    def crowd(
        self, answers: int = 300, *, spammers: int = 2, truths: float = 0.0, seed: int = 1
    ) -> None:
        """Have four of ten raters speak of each answer; some say anything; auditors end it."""
        rng = random.Random(seed)
        for number in range(answers):
            truth = rng.choice(self.labels)
            for rater in rng.sample(range(10), 4):
                wrong = rng.choice([one for one in self.labels if one != truth])
                label = truth if rng.random() < HONEST else wrong
                said = rng.choice(self.labels) if rater < spammers else label
                self.say(f"{number}", f"human:{rater}", said)
            if rng.random() < truths:
                self.say(f"{number}", "human:judge", truth, auditor=True)


def ratings(room: Room, answers: int = 200, *, seed: int = 2) -> None:
    """Have three rate each answer: ada reads the scale upside down, eve gives a star more."""
    rng = random.Random(seed)
    for number in range(answers):
        worth = rng.uniform(1.5, 4.5)
        for name in ("ada", "eve", "bob", "cy"):
            stars = worth + rng.gauss(0, 0.5) + (0.7 if name == "eve" else 0.0)
            stars = min(5, max(1, round(6 - stars if name == "ada" else stars)))
            value = {"value": stars, "scale": [1, 5]}
            room.say(f"{number}", f"human:{name}", value, kind="rating", output="yes")


# --- what is told of raters ---------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 5, MOST_FULL + 4])
def test_who_says_anything_weighs_less_than_others(labels: int) -> None:
    """Without any truth, spammers are told from honest raters, with few labels and with many."""
    room = Room(labels=[f"label {n}" for n in range(labels)], weigh="on")
    room.crowd(600)
    found = {name: room.factor(f"human:{name}") for name in range(10)}
    assert max(found[0], found[1]) < 0.5
    assert min(found[n] for n in range(2, 10)) > 0.9


def test_who_always_says_the_most_frequent_label_is_not_believed() -> None:
    """To be right as often as a label is true tells nothing."""
    rng, skene = random.Random(3), Skene(["no", "yes"])
    for number in range(600):
        truth = "yes" if rng.random() < 0.2 else "no"
        for rater in rng.sample(range(8), 4):
            other = "no" if truth == "yes" else "yes"
            said = truth if rng.random() < HONEST else other
            skene.hear(f"{number}", f"{rater}", "no" if rater == 0 else said)
    assert skene.weights["0"] < 0.3
    assert min(skene.weights[f"{n}"] for n in range(1, 8)) > 0.7


def test_raters_who_are_alike_weigh_alike() -> None:
    """What chance makes of equal raters is no difference."""
    room = Room(weigh="on")
    room.crowd(400, spammers=0)
    assert all(0.7 <= room.factor(f"human:{n}") <= 1.3 for n in range(10))


def test_the_vote_by_weights_is_better_than_the_majority() -> None:
    """On a planted crowd the words, each with the weight known before, name more true labels."""
    crowd, _ = planted(Plan(), seed=5)
    skene, votes, plain = Skene(crowd.labels), dict[str, float](), dict[str, float]()
    for rater, item, label in crowd.words:
        sign = 1.0 if label == "1" else -1.0
        votes[item] = votes.get(item, 0.0) + sign * skene.weights.get(rater, skene.default)
        plain[item] = plain.get(item, 0.0) + sign
        skene.hear(item, rater, label)
    right = {item: 1.0 if label == "1" else -1.0 for item, label in crowd.truth.items()}
    weighed, majority = (
        float(np.mean([0.5 + 0.5 * np.sign(found[item]) * right[item] for item in right]))
        for found in (votes, plain)
    )
    assert weighed > majority + 0.01


def test_an_auditors_word_counts_in_full() -> None:
    """The truth of an answer is what an auditor says, against any number of raters."""
    skene = Skene(["no", "yes"])
    for rater in "abc":
        skene.hear("1", rater, "no")
    assert skene.posterior("1")["no"] > 0.8
    skene.tell("1", "yes")
    assert skene.posterior("1") == {"no": 0.0, "yes": 1.0}


def test_of_who_speaks_alone_nothing_is_learned() -> None:
    """Nobody is judged by answers of which nobody else spoke, nor by what answered."""
    room = Room(weigh="on")
    for number in range(300):
        room.say(f"{number}", "human:ada", "yes" if number % 2 else "no", output="no")
    assert room.factor("human:ada") == pytest.approx(1.0, abs=0.05)
    assert room.row("human:ada")["agreement"] is None


def test_what_an_answer_taught_is_taken_back_in_full() -> None:
    """Whatever they said of an answer before, a rater is counted by their last word on it."""
    skene = Skene(["no", "yes"])
    for rater, label in (("a", "no"), ("b", "no"), ("b", "yes"), ("a", "no"), ("b", "no")):
        skene.hear("1", rater, label)
        skene.hear("2", rater, "yes")
    skene.tell("1", "yes")
    skene.tell("2", "yes")
    counted = 0.5 ** (1.0 / HALF)  # of what was said a word ago
    assert skene.raters["a"].counts == pytest.approx(np.array([[0, 0], [counted, 1]]), abs=1e-9)
    assert skene.raters["b"].counts == pytest.approx(np.array([[0, 0], [counted, 1]]), abs=1e-9)


def test_who_improves_is_heard_again() -> None:
    """A rater who said anything for 400 words has three quarters of a weight 500 words later."""
    rng, skene, weight = random.Random(4), Skene(["no", "yes"]), {}
    for number in range(901):
        for rater in range(4):
            spams = rater == 0 and number < 400
            right = rng.random() < (0.5 if spams else 0.9)
            skene.hear(f"{number}", f"{rater}", "yes" if right == bool(number % 2) else "no")
        weight[number] = skene.weights.get("0", 1.0)
    assert weight[400] < 0.4
    assert weight[900] > 0.75


def test_who_reads_a_scale_upside_down_may_learn_better() -> None:
    """They are called so, and believed the least; 400 better words later they are neither."""
    rng, room, found = random.Random(6), Room(weigh="on"), {}
    for number in range(1001):
        truth = rng.choice(room.labels)
        other = "no" if truth == "yes" else "yes"
        for rater in range(4):
            right = (rng.random() < HONEST) != (rater == 0 and number < 600)
            room.say(f"{number}", f"human:{rater}", truth if right else other)
        if number in {600, 1000}:
            found[number] = room.row("human:0")
    assert found[600]["inverted"]
    assert found[600]["weight"] < 0.1
    assert not found[1000]["inverted"]
    assert found[1000]["weight"] > 0.3


def test_labels_that_are_met_on_the_way_change_nothing_that_was_known() -> None:
    """Counts grow with the labels, and become right and wrong where there are many."""
    counts = guessed(2, 0.75, 8.0)
    assert grown(counts, 3).tolist() == [[6.0, 2.0, 0.0], [2.0, 6.0, 0.0], [0.0, 0.0, 0.0]]
    assert grown(counts, MOST_FULL + 1).tolist() == [12.0, 4.0]
    room = Room(labels=[f"label {n}" for n in range(MOST_FULL + 3)], weigh="on")
    room.lens = Raters("classification", weigh="on")
    room.crowd(600)
    assert room.row("human:0")["weight"] < 0.5 < room.row("human:5")["weight"]


@pytest.mark.parametrize("labels", [3, MOST_FULL + 2])
def test_a_word_of_doubt_speaks_for_all_other_labels(labels: int) -> None:
    """That a label is wrong is likely where another one is true, and can be taken back."""
    usual = guessed(labels, 0.7, 1.0)
    usual = usual / (usual.sum() if usual.ndim == 1 else 1.0)
    word, strength = Word(1, wrong=True), np.ones(labels)
    found = chances(blank(labels), word, usual, strength)
    assert found[1] == pytest.approx(0.3)
    assert found[0] > 0.8
    counts, posterior = blank(labels), np.full(labels, 1.0 / labels)
    count(counts, word, posterior, 1.0)
    assert counts.sum() == pytest.approx(1.0)
    count(counts, word, posterior, -1.0)
    assert counts == pytest.approx(blank(labels))


# --- scales -------------------------------------------------------------------------------------


def test_leniency_and_inverted_scales_are_found() -> None:
    """Who gives more has a leniency above 0; for whom 1 is best has a slope below 0."""
    room = Room("ranking")
    options = {"output": ["a"], "options": [Option(id="a")]}
    rng = random.Random(2)
    for number in range(200):
        worth = rng.uniform(1.5, 4.5)
        for name in ("ada", "eve", "bob", "cy"):
            stars = worth + rng.gauss(0, 0.5) + (0.7 if name == "eve" else 0.0)
            stars = min(5, max(1, round(6 - stars if name == "ada" else stars)))
            value = {"value": stars, "scale": [1, 5]}
            room.say(f"{number}", f"human:{name}", value, kind="rating", **options)
    ada, eve, bob = (room.row(f"human:{name}") for name in ("ada", "eve", "bob"))
    assert ada["slope"] < 0 < bob["slope"]
    assert (ada["inverted"], eve["inverted"], bob["inverted"]) == (True, False, False)
    assert eve["leniency"] > 0.1 > abs(bob["leniency"])
    assert ada["weight"] == 0.05 < bob["weight"]
    [alarm] = room.lens.alarms()
    assert (alarm.about, alarm.sentence.split()[0]) == ("rater", "human:ada")
    assert not room.lens.alarms()


def test_ratings_of_labels_tell_scales_too() -> None:
    """In classification a rating is compared with what others think of the same answer."""
    room = Room()
    ratings(room)
    assert room.row("human:ada")["inverted"]
    assert not room.row("human:cy")["inverted"]


def test_a_scale_is_not_called_inverted_by_chance() -> None:
    """Bounds hold at every look: of 60 who rate at random hardly anybody is taken for inverted."""
    rng, scale, ever = random.Random(6), Scale(), set()
    for number in range(1500):
        for rater in rng.sample(range(60), 4):
            scale.hear(f"{number}", f"{rater}", rng.randrange(5) / 4)
            if scale.raters[f"{rater}"].inverted:
                ever.add(rater)
    assert len(ever) <= 1


def test_an_auditors_value_takes_the_place_of_the_crowds() -> None:
    """With an auditor the gap to others is no leniency."""
    scale = Scale()
    for number in range(40):
        scale.hear(f"{number}", "high", 0.9)
        scale.hear(f"{number}", "low", 0.5)
    assert scale.raters["high"].leniency == pytest.approx(-(scale.raters["low"].leniency or 0))
    for number in range(40):
        scale.hear(f"{number}", AUDITOR, 0.9)
    assert scale.raters["high"].leniency == pytest.approx(0.0, abs=0.02)
    assert scale.raters["low"].leniency == pytest.approx(-0.31, abs=0.03)


def test_numbers_are_compared_by_their_usual_spread() -> None:
    """In regression who sends far higher numbers than others is lenient."""
    room, rng = Room("regression"), random.Random(7)
    for number in range(150):
        worth = rng.gauss(1000, 50)
        for name, more in (("ada", 0), ("bob", 0), ("eve", 40)):
            room.say(f"{number}", f"human:{name}", worth + more + rng.gauss(0, 5), output=1000.0)
    assert room.row("human:eve")["leniency"] > 0.05 > room.row("human:ada")["leniency"]
    assert room.row("human:ada")["slope"] == pytest.approx(1.0, abs=0.15)


def test_preferences_are_words_on_a_pair() -> None:
    """Who prefers the other option than everybody else is told from the others."""
    room = Room("generation", weigh="on")
    options = {"output": ["a", "b"], "options": [Option(id="a"), Option(id="b")]}
    rng = random.Random(8)
    for number in range(300):
        best = rng.choice("ab")
        for name in range(4):
            taken = best if name else rng.choice("ab")
            value = {"chosen": taken, "rejected": "ab".replace(taken, "")}
            room.say(f"{number}", f"human:{name}", value, kind="preference", **options)
    assert room.row("human:0")["weight"] < 0.3 < room.row("human:1")["weight"]


# --- when it takes effect -----------------------------------------------------------------------


def test_nothing_reaches_the_learner_before_weights_have_won() -> None:
    """Without a truth raters are reported only, and the report says what is missing."""
    room = Room()
    room.crowd(500)
    assert room.lens.table() == {}
    weighing = room.lens.report()["weighing"]
    assert (weighing["mode"], weighing["on"], weighing["n"]) == ("auto", False, 0)
    assert weighing["raw"] is None
    assert "Plant gold questions" in weighing["sentence"]
    assert room.row("human:0")["weight"] < 0.5


def test_weights_are_switched_on_once_they_have_won_on_audits() -> None:
    """With auditors' words the learner is told once the vote by weights has proved better."""
    room = Room()
    room.crowd(900, spammers=4, truths=0.5)
    weighing = room.lens.report()["weighing"]
    assert weighing["on"]
    assert weighing["corrected"] > weighing["raw"]
    assert room.factor("human:0") < 0.5 < room.factor("human:9")


def test_weights_are_switched_on_by_gold_questions() -> None:
    """Where the truth is told first, and single raters speak after it, that proves it as well."""
    room, rng = Room(), random.Random(9)
    gold = {"ask": Ask(reason="gold", probability=1.0)}
    for number in range(1500):
        truth = rng.choice(["no", "yes"])
        rater = rng.randrange(10)
        right = rng.random() < (0.5 if rater < 4 else 0.95)
        room.say(f"{number}", "human:judge", truth, auditor=True, **gold)
        said = truth if right else {"no": "yes", "yes": "no"}[truth]
        room.say(f"{number}", f"human:{rater}", said, **gold)
    assert room.lens.report()["weighing"]["on"]
    assert room.row("human:0")["gold"]["share"] < 0.65 < room.row("human:9")["gold"]["low"]


def test_weights_that_do_not_help_are_rarely_switched_on() -> None:
    """Where raters are alike, 20 crowds with many audits begin to weigh once or never."""
    began = 0
    for seed in range(20):
        room = Room()
        room.crowd(150, spammers=0, truths=0.8, seed=seed)
        began += room.lens.report()["weighing"]["on"]
    assert began <= 1


def test_the_reverse_test_switches_weights_off_again() -> None:
    """Once those who weigh more are wrong more often, weighing ends."""
    proof = Proof()
    for turn in range(400):
        proof.word(1.8 if turn % 2 else 0.2, right=bool(turn % 2))
    assert proof.on
    for turn in range(800):
        proof.word(1.8 if turn % 2 else 0.2, right=not turn % 2)
    assert not proof.on


def test_words_that_become_truer_while_weights_change_prove_nothing() -> None:
    """Who weighs more is right as often as others are, at any time: of 40 runs hardly one wins."""
    began = 0
    for seed in range(40):
        rng, proof = random.Random(seed), Proof()
        for turn in range(600):
            later = turn > 200
            weight = rng.uniform(0.8, 1.2) + 0.4 * later
            proof.word(weight, right=rng.random() < (0.9 if later else 0.5))
        began += proof.switches > 0
    assert began <= 3


def test_numbers_prove_weights_by_their_distance() -> None:
    """A mean by weights that is nearer to what auditors say switches them on."""
    proof = Proof()
    for _ in range(60):
        proof.number([(0.9, 0.1), (0.5, 1.5)], 0.5)
    assert proof.on
    assert proof.told()["corrected"] > proof.told()["raw"]


def test_it_is_on_or_off_by_configuration() -> None:
    """An operator's word goes before the evidence; YAML's bare words are understood."""
    for mode, on in (("on", True), (True, True), ("off", False), (False, False)):
        room = Room(weigh=mode)
        room.crowd(300)
        assert bool(room.lens.table()) is on
        assert "configured" in room.lens.report()["weighing"]["sentence"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weigh": "maybe"}, "weigh is auto, on or off"),
        ({"alpha": 0.0}, "alpha is a probability"),
        ({"floor": 0.0}, "floor is above 0"),
        ({"floor": "low"}, "floor is above 0"),
        ({"most": 0}, "most is a number of raters, 1 or more"),
    ],
)
def test_a_bad_argument_says_what_is_taken(options: dict[str, Any], words: str) -> None:
    """Arguments outside their range are refused with a sentence."""
    with pytest.raises(ValueError, match=words):
        Raters("classification", **options)


def test_gold_tells_of_all_who_answer_it() -> None:
    """However many were asked before: of thirty, the last are known as well as the first."""
    rng, room = random.Random(8), Room(weigh="on")
    for number in range(60):
        truth = rng.choice(room.labels)
        other = "no" if truth == "yes" else "yes"
        room.say(f"{number}", "human:judge", truth, auditor=True)
        for rater in range(30):
            right = rng.random() < (0.5 if rater >= 25 else 0.95)
            room.say(f"{number}", f"human:{rater}", truth if right else other)
    found = [room.factor(f"human:{rater}") for rater in range(30)]
    assert max(found[25:]) < 0.7 < min(found[:25])


def test_an_auditors_value_counts_however_many_spoke_before() -> None:
    """It takes the place of the oldest, whose value has been compared."""
    scale = Scale()
    for number in range(40):
        for rater in range(12):
            scale.hear(f"{number}", f"{rater}", 0.9)
        scale.hear(f"{number}", AUDITOR, 0.5)
        scale.hear(f"{number}", "late", 0.7)
    lenient, late = scale.raters["5"].leniency, scale.raters["late"].leniency
    assert lenient is not None
    assert late is not None
    assert lenient > 0.2
    assert 0.1 < late < 0.2


def test_only_raters_are_weighed() -> None:
    """Auditors, applications, rules and newcomers keep their weight, whatever the table."""
    room = Room(weigh="on")
    room.crowd(500)
    assert room.factor("human:0") < 0.5
    for source in ("key:1234", "system:rule"):
        assert room.factor(source) == 1.0
    assert room.factor("human:0", auditor=True) == 1.0
    assert room.factor("human:0", kind="implicit") == 1.0
    assert 0.5 < room.factor("human:new") <= 1.0


def test_a_table_that_is_none_is_refused() -> None:
    """What the learner cannot take leaves it the table that it had."""
    lens, room = Raters("classification"), Room()
    lens.adopt({"weights": {"human:a": 0.5}, "default": 1.0})
    for bad in ({"weights": {"human:a": -1.0}, "default": 1.0}, {"default": 1.0}):
        with pytest.raises((LookupError, ValueError)):
            lens.adopt(bad)
    assert lens.factor(room.signal("1", "human:a", "no")) == 0.5
    lens.adopt({})
    assert lens.factor(room.signal("1", "human:a", "no")) == 1.0


def test_factors_stay_within_bounds() -> None:
    """Nobody weighs less than the floor, or more than twice the mean."""
    room = Room(weigh="on", floor=0.1)
    room.crowd(600, spammers=6)
    assert all(0.1 <= room.factor(f"human:{n}") <= MOST_WEIGHT for n in range(10))


# --- memory -------------------------------------------------------------------------------------


def test_what_is_known_survives_a_restart() -> None:
    """A lens that takes up the state goes on like the one that wrote it."""
    room, other = Room(weigh="on"), Room(weigh="on")
    room.crowd(truths=0.2)
    state = json.loads(json.dumps(room.lens.state()))
    other.lens.restore(state)
    assert json.loads(json.dumps(other.lens.state())) == state
    assert other.lens.report() == room.lens.report()
    for one in (room, other):
        one.crowd(100, seed=5)
    before, after = (
        [round(row["weight"], 1) for row in one.lens.report()["raters"]] for one in (room, other)
    )
    assert before == pytest.approx(after, abs=0.11)


def test_memory_is_bounded() -> None:
    """The least recent raters and answers are forgotten, and the report names fifty raters."""
    room = Room(most=60)
    rng = random.Random(10)
    for number in range(400):
        for _ in range(3):
            room.say(f"{number}", f"human:{rng.randrange(500)}", rng.choice(["no", "yes"]))
    state, report = room.lens.state(), room.lens.report()
    assert len(state["known"]) == len(state["skene"]["raters"]) == 60
    assert len(state["skene"]["answers"]) == 120
    assert (len(report["raters"]), report["others"]) == (50, 10)
    assert len(json.dumps(state)) < 100_000


def test_what_is_no_opinion_is_not_heard() -> None:
    """Implicit signals, flags and words of applications make nobody a rater."""
    room = Room()
    room.say("1", "human:ada", {"event": "click", "value": None}, kind="implicit")
    room.say("1", "key:1234", "yes")
    room.say("1", "system:rule", "yes")
    assert room.lens.report()["raters"] == []
