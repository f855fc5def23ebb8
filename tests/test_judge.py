"""Audited predictions settle in their order, each once, and count only where they may."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from online_learner.evidence import BettingTest, Duel
from online_learner.judge import Judge, entry_order
from online_learner.schema import Aliases, Audit, GateState, Output, Settled, Shadow

ALIASES = Aliases(champion=1, challengers=(2,), generation=5)
DUEL = Duel("challenger:2", "champion", version=2)
KEY = "challenger:2>champion@5"
DEADLINE_S = 60.0
START_MS = 1_700_000_000_000


def entry(n: int) -> str:
    """Return the id of the n-th prediction; two share a millisecond."""
    return f"{START_MS + n // 2}-{n % 2}"


def audit(generation: int = 5, **outputs: Output) -> Audit:
    """Return what each role answered; `challenger_2` stands for `challenger:2`."""
    roles = {
        role.replace("_", ":"): Shadow(version=1, lineage=1, step=1, output=output)
        for role, output in outputs.items()
    }
    return Audit(generation=generation, roles=roles)


WIN = audit(champion="b", challenger_2="a")  # where the truth is a
LOSS = audit(champion="a", challenger_2="b")
TIE = audit(champion="a", challenger_2="a")


def judge(state: GateState | None = None, duels: Iterable[Duel] = (DUEL,), m: float = 0.0) -> Judge:
    """Return a judge with its duels begun."""
    made = Judge(m=m, deadline_s=DEADLINE_S, state=state)
    made.open(duels, ALIASES)
    return made


def settled(judge: Judge, *, after_s: float = 1.0) -> list[tuple[str, Settled]]:
    """Settle what can settle, some seconds after the first prediction."""
    return list(judge.settle(now=START_MS / 1000 + after_s))


def entries(found: list[tuple[str, Settled]]) -> list[str]:
    """Return the ids of what has settled."""
    return [where for where, _ in found]


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_settled_in_the_order_of_predictions(seed: int) -> None:
    """Whatever the order in which labels arrive, predictions settle in their own."""
    it, order, found = judge(), list(range(20)), []
    for n in order:
        it.see_audit(entry(n), WIN)
    random.Random(seed).shuffle(order)
    for n in order:
        it.see_signal(entry(n), "a")
        found += settled(it)
    assert entries(found) == [entry(n) for n in range(20)]


def test_the_first_unlabelled_one_holds_up_the_others() -> None:
    """Nothing settles past a prediction that still may get its label."""
    it = judge()
    for n in range(3):
        it.see_audit(entry(n), WIN)
    it.see_signal(entry(1), "a")
    it.see_signal(entry(2), "a")
    assert settled(it) == []
    assert (it.waiting, it.trials[KEY].n) == (3, 0)
    it.see_signal(entry(0), "a")
    assert entries(settled(it)) == [entry(0), entry(1), entry(2)]
    assert (it.waiting, it.trials[KEY].n) == (0, 3)


def test_the_deadline_settles_what_nobody_answered() -> None:
    """At the deadline, and not before, an unlabelled prediction settles without a point."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_audit(entry(1), WIN)
    it.see_signal(entry(1), "a")
    assert settled(it, after_s=DEADLINE_S) == []
    found = settled(it, after_s=DEADLINE_S + 0.002)
    assert [item for _, item in found] == [
        Settled(answered=False, points={}),
        Settled(answered=True, points={KEY: 1.0}),
    ]
    assert (it.answered, it.unanswered) == (1, 1)


def test_an_answer_that_tells_no_truth_waits_for_one() -> None:
    """A signal that does not say what is right leaves the audit open until the deadline."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_signal(entry(0), None)
    assert settled(it) == []
    [(_, item)] = settled(it, after_s=DEADLINE_S + 1)
    assert item == Settled(answered=True, points={})
    assert (it.answered, it.unanswered) == (1, 0)


def test_a_label_after_the_deadline_is_too_late() -> None:
    """A prediction that has settled as unanswered stays so."""
    it = judge()
    it.see_audit(entry(0), WIN)
    settled(it, after_s=DEADLINE_S + 1)
    it.see_signal(entry(0), "a")
    assert settled(it, after_s=DEADLINE_S + 2) == []
    assert it.trials[KEY].n == 0


def test_entries_sort_as_the_stream_does() -> None:
    """Ids compare as numbers, milliseconds first."""
    found = ["9-0", "10-2", "10-10", "1700000000000-0"]
    assert sorted(found, key=entry_order) == found
    assert entry_order("5") == (5, 0)


# --- points ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "d"), [(WIN, 1.0), (LOSS, -1.0), (TIE, 0.0)])
def test_points(record: Audit, d: float) -> None:
    """A point says who alone was right."""
    it = judge()
    it.see_audit(entry(0), record)
    it.see_signal(entry(0), "a")
    assert settled(it) == [(entry(0), Settled(answered=True, points={KEY: d}))]


def test_one_point_a_prediction() -> None:
    """Five raters on one answer make one point, and the last of them stands."""
    it = judge()
    it.see_audit(entry(0), WIN)
    for said in ("a", "a", "a", "a", "b"):
        it.see_signal(entry(0), said)
    [(_, item)] = settled(it)
    assert item.points == {KEY: -1.0}
    it.see_signal(entry(0), "a")
    assert settled(it) == []
    assert (it.trials[KEY].n, it.answered) == (1, 1)


def test_a_signal_without_truth_does_not_take_one_back() -> None:
    """What was said about the truth stands when a later signal says nothing about it."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_signal(entry(0), "a")
    it.see_signal(entry(0), None)
    assert settled(it)[0][1].points == {KEY: 1.0}


def test_no_evidence_from_unaudited_predictions() -> None:
    """A signal on a prediction that no coin drew counts for nothing."""
    it = judge()
    it.see_signal(entry(0), "a")
    assert settled(it, after_s=DEADLINE_S + 1) == []
    assert (it.answered, it.trials[KEY].n) == (0, 0)


@pytest.mark.parametrize(
    "record",
    [
        audit(champion="b"),
        audit(challenger_2="a"),
        audit(champion="b", challenger_3="a"),
        audit(generation=4, champion="b", challenger_2="a"),
        audit(generation=6, champion="b", challenger_2="a"),
    ],
    ids=["no challenger", "no reference", "another", "before", "after"],
)
def test_a_record_counts_only_under_its_key(record: Audit) -> None:
    """Both roles must have answered, at prediction time, under the generation of the duel."""
    it = judge()
    it.see_audit(entry(0), record)
    it.see_signal(entry(0), "a")
    assert settled(it) == [(entry(0), Settled(answered=True, points={}))]
    assert it.trials[KEY].n == 0


def test_number_scores() -> None:
    """Numbers are scored by their distance, over the reference's error so far."""
    it = judge()
    for n, (champion, challenger) in enumerate([(6.0, 10.0), (8.0, 10.0), (10.0, 12.0)]):
        it.see_audit(entry(n), audit(champion=champion, challenger_2=challenger))
        it.see_signal(entry(n), 10.0)
    points = [item.points[KEY] for _, item in settled(it)]
    assert points == [0.0, pytest.approx(2 / 8), pytest.approx(-2 / 6)]


# --- duels ----------------------------------------------------------------------------------------


def test_a_new_generation_begins_anew() -> None:
    """Where the reference moves, old evidence is dropped and survivors are new candidates."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_signal(entry(0), "a")
    settled(it)
    assert (it.trials[KEY].n, it.candidates) == (1, 1)
    it.open([DUEL], ALIASES.model_copy(update={"generation": 6}))
    [(key, trial)] = it.trials.items()
    assert key == "challenger:2>champion@6"
    assert (trial.n, trial.k, it.candidates) == (0, 2, 2)


def test_an_open_duel_goes_on() -> None:
    """Asking for the same duel again changes nothing; one no longer asked for is dropped."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_signal(entry(0), "a")
    settled(it)
    third = Duel("challenger:3", "champion", version=3)
    it.open([DUEL, third], ALIASES)
    assert [(trial.n, trial.k) for trial in it.trials.values()] == [(1, 1), (0, 2)]
    it.open([third], ALIASES)
    assert list(it.trials) == ["challenger:3>champion@5"]


def test_a_detector_is_no_candidate() -> None:
    """Watching what is served uses up none of the level for promotions."""
    it = judge(duels=[Duel("anchor", "champion", detector=True)])
    assert it.candidates == 0


def test_a_duel_restarts_as_another_candidate() -> None:
    """After its labels are used up a duel starts anew, and the restart counts as a candidate."""
    it = judge(duels=[Duel("challenger:2", "champion", restart_after=3)])
    for n in range(7):
        it.see_audit(entry(n), LOSS)
        it.see_signal(entry(n), "a")
    settled(it)
    trial = it.trials[KEY]
    assert (trial.n, trial.k, it.candidates) == (1, 3, 3)
    assert trial.log_e == pytest.approx(_log_e([-1.0]))


def _log_e(d: list[float]) -> float:
    test = BettingTest.fresh(0.0)
    for value in d:
        test.update(value)
    return test.log_e


def test_the_caller_may_stop_between_two() -> None:
    """Nothing after the one that is yielded has been counted yet."""
    it = judge()
    for n in range(3):
        it.see_audit(entry(n), WIN)
        it.see_signal(entry(n), "a")
    steps = it.settle(now=START_MS / 1000)
    next(steps)
    assert (it.trials[KEY].n, it.waiting, it.settled) == (1, 2, entry(0))
    assert entries(settled(it)) == [entry(1), entry(2)]


def test_the_null_is_raised() -> None:
    """Each duel is judged against the raised null."""
    it = judge(m=0.2)
    it.see_audit(entry(0), WIN)
    it.see_signal(entry(0), "a")
    settled(it)
    assert 0 < it.trials[KEY].log_e < _log_e([1.0])


# --- restarts -------------------------------------------------------------------------------------

Event = tuple[Callable[..., None], str, Any]


def events(seed: int) -> list[tuple[str, str, Any]]:
    """Return audits and the signals on them, delayed at random, as they would be read."""
    rng, found = random.Random(seed), []
    for n in range(60):
        record = audit(champion=rng.choice("ab"), challenger_2=rng.choice("aab"))
        found.append((float(n), "audit", entry(n), record))
        for _ in range(rng.choice([0, 1, 1, 2])):
            said = rng.choice(["a", "a", "b", None])
            found.append((n + rng.expovariate(0.1), "signal", entry(n), said))
    found.sort(key=lambda item: item[0])
    return [item[1:] for item in found]


def feed(it: Judge, what: str, where: str, value: Any) -> None:
    """Have the judge see one event."""
    (it.see_audit if what == "audit" else it.see_signal)(where, value)


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_changes_nothing(seed: int) -> None:
    """Restarted at any event, a judge that reads again what is pending finds the same bits."""
    stream = events(seed)
    whole, expected = judge(m=0.2), []
    for event in stream:
        feed(whole, *event)
        expected += settled(whole)
    expected += settled(whole, after_s=DEADLINE_S + 1)
    for cut in range(0, len(stream), 7):
        it, found = judge(m=0.2), []
        for event in stream[:cut]:
            feed(it, *event)
            found += settled(it)
        kept = it.state(now=0.0).pack()
        it = judge(GateState.model_validate_json(kept), m=0.2)
        for event in stream[:cut]:  # what is still pending is read again
            feed(it, *event)
        for event in stream[cut:]:
            found += settled(it)
            feed(it, *event)
        found += settled(it)
        found += settled(it, after_s=DEADLINE_S + 1)
        assert [where for where, _ in found] == [where for where, _ in expected]
        assert found == expected
        assert it.state(now=0.0) == whole.state(now=0.0)


def test_state_is_plain_json() -> None:
    """The state of a judge, detectors that have seen nothing included, is valid JSON."""
    it = judge(duels=[DUEL, Duel("anchor", "champion", detector=True)])
    state = json.loads(it.state(now=1.0).pack())
    assert set(state["trials"]) == {KEY, "anchor>champion@5"}
    twin = judge(
        GateState.model_validate(state), duels=[DUEL, Duel("anchor", "champion", detector=True)]
    )
    assert twin.trials["anchor>champion@5"].log_e == -math.inf
    assert twin.state(now=1.0) == it.state(now=1.0)
