"""Whom to believe: what is set aside and why, what weighs less, and that a replay agrees."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from the_learner import Faulty, Killed, process, quarantine_of, run, steps_of

from benchmarks.hostile.raters import Crowd, rows_of, said_of
from benchmarks.hostile.world import BELIEVED, Cost, play
from online_learner.errors import ConfigError
from online_learner.learn import Trainer
from online_learner.loop import Loop
from online_learner.release import release
from online_learner.replay import Replay
from online_learner.schema import Feedback, Option, Prediction, Said, Signal
from online_learner.settings import Settings
from online_learner.stages import check_model
from policies.signals import Signals
from policies.validation import Accept, Validation
from policies.validation.opinions import MOST_EACH, agrees, lean_of
from policies.validation.raters import WINDOW

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
TABLE = Signals("classification", [False, True])


class Stream:
    """Signals one after the other, and what the policy makes of them."""

    def __init__(self, task: Any = "classification", **options: Any) -> None:
        self.policy = Validation(task, **options)
        self.table = TABLE if task == "classification" else Signals(task)
        self.now_ms = 1_000_000
        self.answers = 0

    def answer(self, *, output: Any = True, **fields: Any) -> Prediction:
        """Return another answer, to another question unless `features` say so."""
        self.answers += 1
        fields = {"features": {"n": self.answers}, **fields}
        return Prediction(model="web", output=output, version=1, lineage=1, step=0, **fields)

    def say(
        self,
        value: Any,
        source: str = "human:ada",
        *,
        about: Prediction | None = None,
        kind: str = "correction",
        auditor: bool = False,
        after_s: float = 100.0,
    ) -> str | float:
        """Return why a signal is set aside, or what is left of a weight of 1."""
        self.now_ms += int(1000 * after_s)
        prediction = about or self.answer()
        feedback = Feedback(
            kind=kind, value=value, source=source, auditor=auditor, prediction_id=""
        )
        said = self.table.said(feedback, prediction)
        answer = json.dumps(prediction.features)
        signal = Signal(feedback, prediction, said, answer, self.now_ms)
        return self.policy.look(signal) or self.policy.weigh(signal, 1.0)

    def crowd(self, n: int = 300, raters: int = 50, *, right: float = 0.9) -> None:
        """Have a crowd speak in turn; it agrees with so many of the answers."""
        rng = random.Random(1)
        for turn in range(n):
            self.say(rng.random() < right, f"human:{turn % raters}")


def aside(found: str | float) -> str:
    """Return the code of the reason; a weight has none."""
    return found.partition(":")[0] if isinstance(found, str) else "learned"


# --- repeats --------------------------------------------------------------------------------------


def test_a_duplicate_under_another_key_is_set_aside() -> None:
    """The same source says the same of the same answer: the second time teaches nothing new."""
    stream = Stream()
    answer = stream.answer()
    assert stream.say(False, about=answer) == 1.0
    assert aside(stream.say(False, about=answer)) == "duplicate"
    assert stream.say(False, "human:bob", about=answer) == 1.0
    assert stream.say(False) == 1.0


def test_a_mind_may_be_changed_three_times() -> None:
    """The latest opinion counts; from the fourth change on they are set aside, with the count."""
    stream = Stream()
    answer = stream.answer()
    found = [stream.say(value, about=answer) for value in [True, False, True, False, True, False]]
    assert list(map(aside, found)) == ["learned"] * 4 + ["flip"] * 2
    assert "5 times" in str(found[-1])


def test_flips_are_told_apart_by_what_they_speak_of() -> None:
    """Other kinds and other flags are other subjects; a change of mind across kinds counts too."""
    stream = Stream(flips=0)
    answer = stream.answer()
    assert stream.say(True, about=answer, kind="thumbs") == 1.0
    assert stream.say(True, about=answer) == 1.0
    assert aside(stream.say(False, about=answer, kind="thumbs")) == "flip"


def test_the_opposite_in_one_payload_is_a_contradiction() -> None:
    """A thumbs-up beside another label, at one moment: the first stands. Later it is a new mind."""
    stream = Stream()
    answer = stream.answer()
    assert stream.say(True, about=answer, kind="thumbs") == 1.0
    assert aside(stream.say(False, about=answer, after_s=0)) == "contradiction"
    assert stream.say(False, "human:bob", about=answer, after_s=0) == 1.0
    assert stream.say(False, about=answer, kind="selection", after_s=1) == 1.0


def test_nobody_contradicts_themselves_on_equal_inputs() -> None:
    """Within `breath_s` the opposite label for an equal input is set aside; later it is not."""
    stream = Stream(breath_s=10.0)
    question = {"features": {"a": 1.0}}

    def ask(value: bool, source: str, after_s: float) -> str:
        answer = stream.answer(**question)
        # Another answer to the same question has another place in the log.
        signal = _signal(stream, answer, value, source, after_s)
        return aside(stream.policy.look(signal) or 1.0)

    assert ask(True, "human:ada", 1) == "learned"
    assert ask(False, "human:ada", 5) == "contradiction"
    assert ask(False, "human:bob", 1) == "learned"
    assert ask(False, "human:ada", 20) == "learned"


def _signal(stream: Stream, answer: Prediction, value: bool, source: str, after_s: float) -> Signal:
    stream.now_ms += int(1000 * after_s)
    feedback = Feedback(kind="correction", value=value, source=source, prediction_id="")
    place = f"{stream.answers}-0"
    return Signal(feedback, answer, stream.table.said(feedback, answer), place, stream.now_ms)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (Said(right=True), Said(right=True), True),
        (Said(right=True), Said(right=False), False),
        (Said(right=True), Said(right=1), False),
        (Said(right="a"), Said(wrong="a"), False),
        (Said(right="a"), Said(wrong="b"), None),
        (Said(wrong="a"), Said(wrong="b"), None),
        (Said(wrong="a"), Said(wrong="a"), True),
    ],
)
def test_when_two_labels_agree(one: Said, other: Said, found: bool | None) -> None:
    """Two right answers that differ cannot both be meant; two wrong ones can."""
    leans = [lean_of(said, "classification") for said in (one, other)]
    assert agrees(*leans) is agrees(*reversed(leans)) is found


def test_numbers_that_differ_are_no_contradiction() -> None:
    """Two numbers for one question are two opinions, and good or bad are opposites."""
    assert lean_of(Said(right=20.0), "regression") is None
    good, bad = (lean_of(Said(reward=reward), "ranking") for reward in (1.0, 0.0))
    assert agrees(good, bad) is False
    assert lean_of(Said(reward=0.5), "ranking") is None


# --- bursts ---------------------------------------------------------------------------------------


def test_a_burst_is_set_aside() -> None:
    """One of 50 raters says 300 things in three seconds: what is too much waits for an operator."""
    stream = Stream()
    for turn in range(500):
        stream.say(True, f"human:{turn % 50}", after_s=0.2)
    found = [aside(stream.say(True, "human:loud", after_s=0.01)) for _ in range(300)]
    assert found[:20] == ["learned"] * 20
    assert found[-1] == "burst"
    assert 200 < found.count("burst") < 270
    assert aside(stream.say(True, "human:1", after_s=0.01)) == "learned"
    assert aside(stream.say(True, "human:loud", after_s=60)) == "learned"


@pytest.mark.parametrize("source", ["key:app", "system:rules", "human:ada"])
def test_nobody_is_too_loud_alone(source: str) -> None:
    """An import by the application, by a rule or by the only rater there is goes through."""
    stream = Stream()
    if source != "human:ada":
        stream.crowd(100)
    assert all(aside(stream.say(True, source, after_s=0.001)) == "learned" for _ in range(500))


def test_a_rate_that_is_usual_is_no_burst() -> None:
    """Who was loud for most of an hour may be a bit louder; one who was not there may not."""
    stream = Stream(burst=3.0)

    def speaks(source: str, per_s: int, seconds: int) -> set[str]:
        found = set()
        for second in range(seconds):
            for n in (2 * second, 2 * second + 1):
                stream.say(True, f"human:{n % 20}", after_s=0)
            found |= {aside(stream.say(True, source, after_s=1 / per_s)) for _ in range(per_s)}
        return found

    assert speaks("human:loud", 3, 2400) == {"learned"}
    assert speaks("human:loud", 5, 30) == {"learned"}
    assert speaks("human:new", 5, 30) == {"learned", "burst"}
    usual = stream.policy.raters.known["human:new"].usual
    assert usual < 100
    assert "burst" in speaks("human:new", 5, 30)


# --- share ----------------------------------------------------------------------------------------


def test_one_rater_has_a_bounded_share_of_any_window() -> None:
    """Of 50 raters one gives half of the labels: in no window has that taught more than 5 %."""
    stream = Stream()
    rng = random.Random(0)
    given = []
    for _ in range(4000):
        loud = rng.random() < 0.5
        source = "human:loud" if loud else f"human:{rng.randrange(49)}"
        found = stream.say(True, source)
        assert isinstance(found, float)
        given.append((loud, found))
    for end in range(2000, 4000, 100):
        window = given[end - 1000 : end]
        loud_weight = sum(weight for loud, weight in window if loud)
        assert 0.02 < loud_weight / sum(weight for _, weight in window) < 0.05
    assert sum(weight for _, weight in given) > 0.95 * len(given)


def test_what_is_cut_from_some_is_added_to_all_up_to_twice() -> None:
    """One who says nine tenths of all: the others weigh twice, and nobody more than that."""
    stream, rng = Stream(), random.Random(0)
    given: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(6000):
        loud = rng.random() < 0.9
        given[loud].append(float(stream.say(True, f"human:{0 if loud else rng.randrange(1, 50)}")))
    assert max(given[False]) == 2.0
    assert sum(given[False][-200:]) > 0.9 * 2.0 * 200
    assert sum(given[True][-1000:]) < 0.1 * 1000


@pytest.mark.parametrize("raters", [1, 2])
def test_few_raters_are_not_cut(raters: int) -> None:
    """Where one or two speak there is no crowd to be louder than: most of it counts in full."""
    stream = Stream()
    given = [stream.say(True, f"human:{turn % raters}") for turn in range(3000)]
    assert given == [1.0] * 3000


@pytest.mark.parametrize(
    ("source", "kind", "auditor"),
    [
        ("human:eve", "correction", True),
        ("key:app", "correction", False),
        ("human:ada", "implicit", False),
    ],
)
def test_who_may_repeat_and_contradict(source: str, kind: str, *, auditor: bool) -> None:
    """An auditor's word stands; nobody knows who speaks through a key; a click is no opinion."""
    stream = Stream()
    answer = stream.answer()
    for value in [True, True, False, False, True, False]:
        found = stream.say(value, source, kind=kind, auditor=auditor, about=answer, after_s=0)
        assert found == 1.0


def test_auditors_system_and_application_are_not_cut() -> None:
    """They weigh what the table says, however much they say, and count for no share."""
    stream = Stream()
    stream.crowd(200)
    before = stream.policy.raters.pack()
    for source, auditor in [("human:eve", True), ("system:rules", False), ("key:app", False)]:
        assert [stream.say(True, source, auditor=auditor) for _ in range(200)] == [1.0] * 200
    assert stream.policy.raters.pack()["window"] == before["window"]


# --- reputation -----------------------------------------------------------------------------------


def test_who_lies_is_believed_less_and_less_down_to_the_floor() -> None:
    """The opposite of what answers, again and again, where the crowd agrees: 3 % is left."""
    stream = Stream(share=None)
    stream.crowd()
    found = []
    for turn in range(8):
        found.append(stream.say(False, "human:liar"))
        stream.crowd(10)
        assert turn == 0 or found[turn] <= found[turn - 1]
    assert found[0] == 1.0
    assert found[-1] == 0.03


def test_who_comes_to_their_senses_is_heard_again() -> None:
    """Doubt has a bottom: a few dozen honest labels make up for any number of lies."""
    stream = Stream(share=None)
    stream.crowd()
    for _ in range(100):
        stream.say(False, "human:liar")
        stream.crowd(5)
    for _ in range(40):
        stream.say(True, "human:liar")
    assert stream.say(True, "human:liar") == 1.0


def test_a_good_record_is_no_credit() -> None:
    """One who was honest for long and turns is doubted as fast as a newcomer."""
    stream = Stream(share=None)
    stream.crowd(1000)

    def lies(source: str) -> list[str | float]:
        found = []
        for _ in range(4):
            found.append(stream.say(False, source))
            stream.crowd(10)
        return found

    assert lies("human:30")[-1] == lies("human:new")[-1] == 0.03


def test_who_only_corrects_among_those_who_do_is_believed() -> None:
    """Where everybody speaks of errors only, disagreeing is what the crowd does."""
    stream = Stream(share=None)
    for turn in range(500):
        stream.say(False, f"human:{turn % 50}")
    assert stream.say(False, "human:7") == 1.0


def test_nobody_is_punished_when_the_world_changes() -> None:
    """All disagree at once: all is forgiven, and after the change all are believed in full."""
    stream = Stream(share=None)
    stream.crowd(1000)
    assert stream.policy.reputation.amnesties == 0
    stream.crowd(100, right=0.1)
    assert stream.policy.reputation.amnesties == 1
    found = [stream.say(False, f"human:{turn % 50}") for turn in range(100)]
    assert sum(float(weight) for weight in found) > 95


def test_liars_under_new_names_are_judged_as_one() -> None:
    """Each lie comes from a name never heard before: the names that are new are not believed."""
    stream = Stream(share=None)
    stream.crowd(500)
    found = []
    for turn in range(30):
        found.append(stream.say(False, f"human:new {turn}"))
        stream.crowd(2)
    assert found[0] == 1.0
    assert found[-1] == 0.03
    assert stream.say(True, "human:1") == 1.0


@pytest.mark.parametrize("first", ["auditor", "rater"])
def test_an_auditor_knows_better(first: str) -> None:
    """Who contradicts an auditor on an answer, before or after, is doubted; who agrees is not."""
    stream = Stream(share=None)
    stream.crowd(300)
    for rater in "1122":
        stream.say(True, f"human:{rater}")
    answer = stream.answer()
    said = [(False, "human:auditor", True), (True, "human:1", False), (False, "human:2", False)]
    for value, source, auditor in said if first == "auditor" else said[::-1]:
        stream.say(value, source, auditor=auditor, about=answer)
    assert stream.say(True, "human:1") == 0.03
    assert stream.say(True, "human:2") == 1.0


@pytest.mark.parametrize("place", range(5))
def test_raters_of_one_answer_are_compared(place: int) -> None:
    """Where five see each answer, the one who differs is doubted, also where they speak first."""
    stream, given = Stream(share=None), []
    for _ in range(60):
        answer = stream.answer(output=None)
        given.append([stream.say(n != place, f"human:{n}", about=answer) for n in range(5)])
    assert given[-1][place] == 0.03
    for weights in given[20:]:
        assert all(weight > 0.99 for n, weight in enumerate(weights) if n != place)


def test_nobody_is_doubted_for_coming_after_a_liar() -> None:
    """Where a doubted rater is the only other one, their word hardly counts against anybody."""
    stream = Stream(share=None)
    for turn in range(200):
        answer = stream.answer(output=None)
        for n in range(3):
            stream.say(
                n > 0 or turn < 100, f"human:{(turn + n) % 20 if n else 'liar'}", about=answer
            )
    for _ in range(10):
        answer = stream.answer(output=None)
        assert stream.say(False, "human:liar", about=answer) == 0.03
        found = stream.say(True, "human:after", about=answer)
        assert isinstance(found, float)
        assert found > 0.7


def test_of_numbers_those_far_off_are_doubted() -> None:
    """Where the crowd is 10 off, one who is 1,000 off is believed less."""
    stream = Stream("regression", share=None)
    rng = random.Random(0)
    for turn in range(400):
        stream.say(rng.gauss(20, 10), f"human:{turn % 50}", about=stream.answer(output=20.0))
    found: list[Any] = []
    for turn in range(8):
        found.append(stream.say(1020.0, "human:liar", about=stream.answer(output=20.0)))
        for n in range(turn * 5, turn * 5 + 5):
            about = stream.answer(output=20.0)
            fair = stream.say(rng.gauss(20, 10), f"human:{n}", about=about)
            assert float(fair) > 0.5
    assert found[-1] == 0.03


@pytest.mark.parametrize("change", [{"blocked": True}, {"explored": True}, {"output": None}])
def test_what_was_not_answered_is_no_measure(change: dict[str, Any]) -> None:
    """A fallback, a label shown by chance, and no answer at all say nothing about who disagrees."""
    stream = Stream(share=None)
    stream.crowd()
    for _ in range(10):
        answer = stream.answer(**{"output": True, **change})
        assert stream.say(False, "human:7", about=answer) == 1.0


def test_options_in_an_order_are_not_held_against_anybody() -> None:
    """A ranking knows no right answer: shares hold, and repeats are set aside."""
    stream = Stream("ranking")
    options = [Option(id=name) for name in "ab"]
    for _ in range(30):
        answer = stream.answer(output=["a", "b"], options=options)
        assert stream.say("b", about=answer, kind="selection") == 1.0
        assert aside(stream.say("b", about=answer, kind="selection")) == "duplicate"


# --- state ----------------------------------------------------------------------------------------

signals = st.lists(
    st.tuples(
        st.sampled_from(["human:a", "human:b", "human:c", "human:d", "key:app", "system:s"]),
        st.booleans(),
        st.integers(0, 3),  # of four questions
        st.sampled_from(["correction", "thumbs"]),
        st.sampled_from([0.0, 0.001, 1.0, 60.0]),
        st.booleans(),
    ),
    max_size=60,
)


@given(signals, signals)
def test_packed_and_unpacked_it_decides_the_same_bits(before: list[Any], after: list[Any]) -> None:
    """Its state is plain JSON; what it says of all that comes later is the same to the last bit."""
    one = Stream(most=3)
    for said in before:
        _replay(one, said)
    other = Stream(most=3)
    other.policy.restore(json.loads(json.dumps(one.policy.state())))
    other.now_ms = one.now_ms
    assert [_replay(other, said) for said in after] == [_replay(one, said) for said in after]
    assert json.dumps(other.policy.state()) == json.dumps(one.policy.state())


def _replay(stream: Stream, said: Any) -> str | float:
    source, value, question, kind, after_s, auditor = said
    answer = Prediction(
        model="web", features={"n": question}, output=True, version=1, lineage=1, step=0
    )
    found = stream.say(value, source, about=answer, kind=kind, after_s=after_s, auditor=auditor)
    assert isinstance(found, str) or 0.0 < found <= 2.0
    return found


def test_its_memory_is_bounded() -> None:
    """10,000 names leave no more than the latest `most`, and a state of a few hundred kB."""
    stream = Stream(most=500)
    for turn in range(10_000):
        stream.say(True, f"human:{turn}", after_s=0.01)
    policy = stream.policy
    assert len(policy.raters.known) == len(policy.opinions.answers) == 500
    assert len(policy.opinions.inputs) <= 501
    assert len(json.dumps(policy.state())) < 250_000
    assert 0 < policy.raters.active <= WINDOW
    answer = stream.answer()
    for turn in range(100):
        stream.say(True, f"human:{turn}", about=answer, after_s=0.01)
    assert len(policy.opinions.answers[json.dumps(answer.features)]) == MOST_EACH


@pytest.mark.parametrize("kind", ["flag", "preference"])
def test_what_one_source_may_leave_of_one_answer_is_bounded(kind: str) -> None:
    """Flags of ever other names, and pairs of ever other options, push out the oldest."""
    stream = Stream("ranking")
    answer = stream.answer(output=["a", "b"])
    for turn in range(200):
        names = {"rule": f"{turn}" * 80, "chosen": f"{turn}", "rejected": "b", "severity": "note"}
        stream.say(names, about=answer, kind=kind)
    assert len(json.dumps(stream.policy.state())) < 3_000


def test_what_is_restored_from_nothing_knows_nobody() -> None:
    """An empty state is that of a policy that nobody has spoken to."""
    stream = Stream()
    assert stream.policy.state() == {}
    stream.crowd(50)
    stream.policy.restore({})
    assert stream.policy.state() == {}


# --- the options ----------------------------------------------------------------------------------


def test_each_rule_can_be_switched_off() -> None:
    """With None for all of them only duplicates are set aside, and every word weighs 1."""
    off = {"share": None, "floor": None, "flips": None, "breath_s": None, "burst": None}
    stream = Stream(**off)
    stream.crowd()
    answer = stream.answer()
    found = [stream.say(n % 2 == 0, about=answer, after_s=0.001) for n in range(200)]
    assert found == [1.0] * 200


def test_accept_believes_everybody() -> None:
    """It sets nothing aside, weighs nothing less and remembers nobody."""
    stream = Stream()
    policy = Accept("classification")
    signal = _signal(stream, stream.answer(), value=True, source="human:ada", after_s=0)
    assert [policy.look(signal) for _ in range(3)] == [None] * 3
    assert policy.weigh(signal, 0.7) == 0.7
    policy.restore(policy.state())
    assert policy.state() == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 0.5}, "1 or more"),
        ({"floor": 0.0}, "above 0"),
        ({"flips": -1}, "0 or more"),
        ({"breath_s": 0.0}, "null switches the rule off"),
        ({"burst": 0.5}, "1 or more"),
        ({"most": 0}, "1 or more"),
        ({"share": "much"}, "'<' not supported"),
        ({"shares": 3}, "unexpected keyword argument 'shares'"),
    ],
)
def test_a_wrong_option_is_refused(
    make_settings: MakeSettings, options: dict[str, Any], words: str
) -> None:
    """The configuration is checked before anything starts; the message names the section."""
    use = {"use": "policies.validation:Validation", **options}
    spec = make_settings(web={"validation": use}).model("web")
    with pytest.raises(ConfigError, match=f"^validation: .*{words}"):
        check_model(spec)


# --- in the loop ----------------------------------------------------------------------------------


async def tell(loop: Loop, value: bool, rater: str, **fields: Any) -> str:
    """Have an answer corrected under an idempotency key of its own; returns the entry."""
    answer = fields.pop("answer", None) or await loop.predict("web", {"a": random.random()})
    receipt = await loop.feedback(
        answer["prediction_id"], "correction", value, user_id=rater, **fields
    )
    return loop.keyring.open("feedback", str(receipt.feedback_id))[1].entry


async def test_what_is_set_aside_waits_in_quarantine_until_it_is_released(
    open_loop: OpenLoop,
) -> None:
    """It is listed with the reason; an operator's word is enough, and it is looked at no more."""
    loop = await open_loop()
    trainer = loop.stages("web").trainer
    answer = await loop.predict("web", {"a": 1.0})
    await tell(loop, True, "ada", answer=answer, idempotency_key="1")
    twice = await tell(loop, True, "ada", answer=answer, idempotency_key="2")
    await run(trainer)
    assert trainer.at.learned == 1
    [(entry, reason)] = (await quarantine_of(trainer.registry)).items()
    assert (entry, aside(reason)) == (twice, "duplicate")
    memory = trainer.memory()
    [found] = await loop.store.entries([(trainer.registry.keys.feedback, twice)])
    assert found is not None
    await release(trainer.registry, [(twice, found)], by="ops")
    await run(trainer)
    assert trainer.at.learned == 2
    assert trainer.memory() == memory


async def test_a_rating_that_was_set_aside_is_read_once(open_loop: OpenLoop) -> None:
    """The rater's habit is learned when it is released, and not before."""
    loop = await open_loop()
    trainer = loop.stages("web").trainer
    answer = await loop.predict("web", {"a": 1.0})
    entries = []
    for key in "12":
        receipt = await loop.feedback(
            answer["prediction_id"], "rating", 5, user_id="ada", idempotency_key=key
        )
        entries.append(loop.keyring.open("feedback", str(receipt.feedback_id))[1].entry)
    await run(trainer)
    assert _ratings(trainer) == 1
    [found] = await loop.store.entries([(trainer.registry.keys.feedback, entries[1])])
    assert found is not None
    await release(trainer.registry, [(entries[1], found)], by="ops")
    await run(trainer)
    assert _ratings(trainer) == 2


def _ratings(trainer: Trainer) -> int:
    return int(trainer.memory()["signals"]["raters"]["human:ada"][0])


async def test_a_replay_weighs_the_same_bits(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """From the first version on, and from the newest state, weights and memory are the same."""
    loop = await open_loop(make_settings(web={"batch_max": 7, "publish_s": 3600.0}))
    trainer, rng = loop.stages("web").trainer, random.Random(3)
    for n in range(120):
        rater = "loud" if n % 2 else f"r{rng.randrange(8)}"
        await tell(loop, rng.random() < 0.3, rater)
        if n == 60:
            await run(trainer)
    while await trainer.turn():
        pass
    state = (trainer.at, trainer.learner.digest(), trainer.memory())
    assert min(rater[2] for rater in state[2]["validation"]["raters"]["known"].values()) < 30
    heir = process(loop)
    await heir.restore()
    assert (heir.at, heir.learner.digest(), heir.memory()) == state
    await heir.rewind()
    while await heir.replay_step():
        pass
    assert (heir.at, heir.learner.digest(), heir.memory()) == state


async def test_believed_or_not_changes_what_is_learned(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The policy that the configuration names is the one in the loop."""
    accept = make_settings(web={"validation": "policies.validation:Accept"})
    for settings, learned in [(make_settings(), 1), (accept, 2)]:
        loop = await open_loop(settings)
        await loop.store.call("FLUSHALL")
        loop = await open_loop(settings)
        answer = await loop.predict("web", {"a": 1.0})
        for key in "12":
            await tell(loop, True, "ada", answer=answer, idempotency_key=key)
        trainer = loop.stages("web").trainer
        await run(trainer)
        assert trainer.at.learned == learned


class Hasty(Validation):
    """A team's own policy, with mistakes in it that only some raters meet."""

    def look(self, signal: Signal) -> str | None:
        """Stumble over one rater, halfway through."""
        found = super().look(signal)
        if signal.feedback.source == "human:eve":
            raise ZeroDivisionError("of eve's")
        return found

    def weigh(self, signal: Signal, weight: float) -> float:
        """Have no number for another."""
        given = super().weigh(signal, weight)
        return {"human:nan": math.nan, "human:none": 0.0}.get(signal.feedback.source, given)


async def test_a_policy_that_fails_stops_nobody(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """What it raises, or a weight that is none, sets that one signal aside, in the same commit."""
    hasty = {"validation": f"{__name__}:Hasty", "publish_s": 3600.0}
    loop = await open_loop(make_settings(web=hasty))
    trainer = loop.stages("web").trainer
    raters = ["ada", "eve", "bob", "nan", "none", "ada"]
    entries = [await tell(loop, True, rater) for rater in raters]
    while await trainer.turn():
        pass
    assert trainer.at.learned == 3
    found = await quarantine_of(trainer.registry)
    assert found == {
        entries[1]: "unreadable: of eve's",
        entries[3]: "unreadable: the validation policy gave it a weight of nan",
        entries[4]: "unreadable: the validation policy gave it a weight of 0",
    }
    [(_, step)] = await steps_of(trainer.registry)
    assert (step.signals, step.set_aside) == (6, found)
    heir = process(loop)
    await heir.restore()
    assert (heir.learner.digest(), heir.memory()) == (trainer.learner.digest(), trainer.memory())


@pytest.mark.parametrize("seed", range(4))
async def test_killed_at_any_moment_it_comes_to_the_same_bits(
    open_loop: OpenLoop, make_settings: MakeSettings, seed: int
) -> None:
    """Learners die before or after commands of theirs, and know every rater as if none had."""
    rng = random.Random(seed)
    publish_s = rng.choice([0.0, 3600.0])
    loop = await open_loop(make_settings(web={"batch_max": 5, "publish_s": publish_s}))
    asked = [await loop.predict("web", {"a": rng.gauss(0, 1)}) for _ in range(40)]
    deaths = 0
    for turn in range(16):
        for _ in range(rng.randrange(12)):
            rater, key = f"r{rng.choice([0, 0, 0, 1, 2, 3])}", f"{rng.random()}"
            await tell(
                loop, rng.random() < 0.3, rater, answer=rng.choice(asked), idempotency_key=key
            )
        deaths += await _dies(loop, rng, seed=turn)
    trainer = process(loop)
    await run(trainer)
    whole = process(loop)
    await whole.rewind()
    while await whole.replay_step():
        pass
    assert (whole.at, whole.learner.digest()) == (trainer.at, trainer.learner.digest())
    assert json.dumps(whole.memory()) == json.dumps(trainer.memory())
    never = Replay(trainer.registry, TABLE, (await _first(trainer)), Validation("classification"))
    batch = never.interpret(await loop.store.range(trainer.registry.keys.feedback))
    never.learner.learn(batch.keep())
    assert never.learner.digest() == trainer.learner.digest()
    assert never.memory() == trainer.memory()
    assert batch.set_aside == await quarantine_of(trainer.registry)
    assert len(batch.set_aside) >= 5
    assert deaths >= 6


async def _dies(loop: Loop, rng: random.Random, *, seed: int) -> bool:
    """Have a learner start, learn, and die at one of its next commands; tell whether it did."""
    store = Faulty(loop.store.url, rng.randrange(14), done=seed % 2 == 0, error=Killed())
    try:
        await run(process(loop, store=store))
    except Killed:
        return True
    finally:
        await store.close()
    return False


async def _first(trainer: Trainer) -> Any:
    return (await trainer.registry.load_version(0, trainer.learner))[1]


# --- what it is for -------------------------------------------------------------------------------


def test_liars_cost_little_and_honest_raters_nothing() -> None:
    """A tenth of the raters lie, ten times as active: 1 point at the end, 3 at worst."""
    rows, crowd = rows_of("Phishing", 1)[:6000], Crowd(liars=0.1, activity=10.0)
    lies, truths = (said_of(rows, crowd, 1, honest=honest) for honest in (False, True))
    without, _ = play(rows, lies, BELIEVED, silent=True)
    believed, _ = play(rows, lies, BELIEVED)
    defended, _ = play(rows, lies, Validation("classification"))
    assert Cost.of(believed, without).end > 30.0
    cost = Cost.of(defended, without)
    assert cost.end <= 1.0
    assert cost.worst <= 3.0
    honest = [play(rows, truths, p)[0] for p in (BELIEVED, Validation("classification"))]
    assert Cost.of(honest[1], honest[0]).mean <= 0.5
