"""The guards: what is plainly broken is found within a stated number of audits, without a label."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from online_learner.evidence.watch import FEWEST_COMPARED, WINDOW, Watch
from online_learner.schema import Alarm, Aliases, Audit, GateState, Output, Shadow
from online_learner.settings import GuardsSpec

STATIC = Aliases(champion=0, generation=4, challengers=(7,))
LEASHED = Aliases(champion=0, generation=4, following=True, anchor=0, challengers=(7,))
LIMITS = GuardsSpec(latency_ms=10.0)


def says(output: Output = None, *, failed: bool = False, took_ms: float = 1.0) -> Shadow:
    """Return what a role said."""
    place = {"version": 0, "lineage": 1, "step": 0}
    return Shadow(**place, output=output, failed=failed, took_ms=took_ms)


def audit(*, generation: int = 4, **roles: Any) -> Audit:
    """Return an audit; a role is given by what it says, `challenger_7` for `challenger:7`."""
    found = {
        role.replace("_", ":"): said if isinstance(said, Shadow) else says(said)
        for role, said in roles.items()
    }
    return Audit(generation=generation, roles=found)


def watched(audits: Iterable[Audit]) -> Watch:
    """Return a watch that has seen these."""
    watch = Watch()
    for one in audits:
        watch.see(one)
    return watch


def found(
    audits: Iterable[Audit], aliases: Aliases = LEASHED, limits: GuardsSpec = LIMITS
) -> list[Alarm]:
    """Return the alarms after these."""
    return watched(audits).alarms(aliases, limits)


def names(alarms: Iterable[Alarm]) -> set[tuple[str, str]]:
    """Return who is accused of what."""
    return {(alarm.role, alarm.guard) for alarm in alarms}


def until(audits: Iterator[Audit], guard: str, aliases: Aliases = LEASHED) -> tuple[int, Alarm]:
    """Return after how many audits a guard fires, and its alarm."""
    watch = Watch()
    for count, one in enumerate(audits, start=1):
        watch.see(one)
        for alarm in watch.alarms(aliases, LIMITS):
            assert alarm.guard == guard, alarm
            return count, alarm
    pytest.fail("no alarm")


def mixed(seed: int = 0, agree: float = 0.95, **change: Any) -> Iterator[Audit]:
    """Yield audits of healthy roles forever: two labels, and the anchor agrees to a given share."""
    rng = random.Random(seed)
    while True:
        label = rng.choice(["ham", "spam"])
        other = {"ham": "spam", "spam": "ham"}[label]
        anchor = label if rng.random() < agree else other
        roles = {"champion": label, "anchor": anchor, "challenger_7": label}
        yield audit(**(roles | change))


def healthy(count: int, seed: int = 0, **change: Any) -> list[Audit]:
    """Return some of them."""
    audits = mixed(seed, **change)
    return [next(audits) for _ in range(count)]


# --- what is no alarm -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("agree", [0.5, 0.9, 1.0])
def test_healthy_roles_raise_no_alarm(seed: int, agree: float) -> None:
    """Over thousands of audits nothing fires, however well champion and anchor agree."""
    watch, audits = Watch(), mixed(seed, agree)
    for _ in range(3000):
        watch.see(next(audits))
        assert watch.alarms(LEASHED, LIMITS) == []


def test_a_watch_that_has_seen_nothing_is_quiet() -> None:
    """Before the first audit, and where the state is empty, there is no alarm."""
    assert Watch().alarms(LEASHED, LIMITS) == []
    assert Watch.unpack({}) == Watch() == Watch.unpack(Watch().pack())


OFF = GuardsSpec(latency_ms=None, failures=0.0, collapse=0.0, jump=0.0)


def test_each_guard_can_be_switched_off() -> None:
    """With every limit at 0 or None, the worst of roles raise no alarm."""
    bad = healthy(400) + [
        audit(champion=says(failed=True), anchor="ham", challenger_7=says("x", took_ms=1e6))
        for _ in range(400)
    ]
    assert names(found(bad)) >= {("champion", "failure"), ("challenger:7", "latency")}
    assert found(bad, limits=OFF) == []


# --- failures ---------------------------------------------------------------------------------

FAILED = says(failed=True)


@pytest.mark.parametrize("role", ["challenger:7", "latest", "champion"])
def test_a_role_that_fails_too_often_is_found(role: str) -> None:
    """Three failures in the last hundred audits, and more than is allowed, are an alarm."""
    fine = audit(champion=1, latest=1, challenger_7=1)
    failing = audit(
        **{"champion": 1, "latest": 1, "challenger_7": 1, role.replace(":", "_"): FAILED}
    )
    assert found([fine, failing, failing], STATIC) == []
    [alarm] = found([fine, failing, failing, failing], STATIC)
    assert (alarm.role, alarm.guard) == (role, "failure")
    assert alarm.numbers == {"failed": 3, "seen": 4, "share": 0.75, "limit": 0.01}
    assert "failed on 3 of the last 4 audited questions (75.0%, and 1.0% are allowed)" in (
        alarm.sentence
    )
    assert found([failing] * 3 + [fine] * WINDOW, STATIC) == []


def test_failures_are_allowed_up_to_the_limit() -> None:
    """The limit is a share: where it is larger, more failures are taken."""
    fine, failing = audit(champion=1, latest=1), audit(champion=1, latest=FAILED)
    limits = GuardsSpec(failures=0.05)
    assert found([fine] * 95 + [failing] * 5, STATIC, limits) == []
    assert names(found([fine] * 94 + [failing] * 6, STATIC, limits)) == {("latest", "failure")}


def test_a_champion_on_the_leash_may_not_fail() -> None:
    """Where the anchor had to answer three times, there is an alarm, whatever share is allowed."""
    failing = audit(champion=FAILED, anchor=True)
    limits = GuardsSpec(failures=0.5)
    before = [audit(champion=True, anchor=True)] * 90
    assert found([*before, failing, failing], limits=limits) == []
    [alarm] = found([*before, failing, failing, failing], limits=limits)
    assert (alarm.role, alarm.guard) == ("champion", "failure")


# --- collapse ---------------------------------------------------------------------------------


def test_one_label_in_place_of_many_is_found() -> None:
    """A champion that says one thing only is found within 200 audits, and named with its label."""
    stuck = (audit(champion="spam", anchor=one.roles["anchor"]) for one in mixed())
    count, alarm = until(stuck, "collapse")
    assert WINDOW <= count <= 200
    assert (alarm.role, alarm.numbers["label"]) == ("champion", "spam")
    assert alarm.numbers["share"] == 1.0
    assert "answers 'spam' to 100.0% of the audited questions" in alarm.sentence


def test_a_collapse_after_good_times_is_found_as_the_past_fades() -> None:
    """After a thousand healthy audits, it takes some 160 more."""
    watch, audits = watched(healthy(1000)), mixed(3)
    for count in range(1, 400):
        one = next(audits)
        watch.see(audit(champion="spam", anchor=one.roles["anchor"]))
        alarms = watch.alarms(LEASHED, GuardsSpec(jump=0.0))
        if alarms:
            assert 100 <= count <= 200
            assert names(alarms) == {("champion", "collapse")}
            return
    pytest.fail("no alarm")


@pytest.mark.parametrize("aliases", [STATIC, LEASHED], ids=["static", "leashed"])
def test_a_challenger_that_collapses_is_found(aliases: Aliases) -> None:
    """It is compared with what it wants to beat: the anchor on the leash, else the champion."""
    audits = healthy(300, challenger_7=True, latest="ham")
    accused = {("challenger:7", "collapse")}
    assert names(found(audits, aliases)) - {("latest", "collapse")} == accused


def test_a_label_that_is_common_is_no_collapse() -> None:
    """Where the reference says hardly anything else either, nothing has collapsed."""
    rare = [audit(champion="ham", anchor="spam" if n % 20 == 0 else "ham") for n in range(400)]
    assert found(rare) == []
    varied = [audit(champion="ham", anchor="spam" if n % 4 == 0 else "ham") for n in range(400)]
    assert names(found(varied)) == {("champion", "collapse")}


def test_a_static_champion_has_no_reference() -> None:
    """What stands without an anchor is not accused: nobody says what else would be right."""
    assert found([audit(champion="ham", latest=one) for one in ["ham", "spam"] * 300], STATIC) == []


def test_numbers_do_not_collapse() -> None:
    """A regression that says one number, or a ranking with one option first, is no classifier."""
    numbers = [audit(champion=3.0, anchor=float(n)) for n in range(400)]
    orders = [audit(champion=["a", "b"], anchor=["a", "b"][:: 1 - 2 * (n % 2)]) for n in range(400)]
    assert found(numbers, limits=GuardsSpec(jump=0.0)) == []
    assert found(orders, limits=GuardsSpec(jump=0.0)) == []


def test_labels_without_end_take_no_memory_without_end() -> None:
    """What has not been said for long is forgotten."""
    watch = watched(audit(champion=f"label {n}") for n in range(20_000))
    assert len(watch.roles["champion"].labels.weights) < 2000


# --- time -------------------------------------------------------------------------------------


def test_slow_weights_are_found() -> None:
    """A mean time over the limit is an alarm once twenty answers have been timed."""
    slow = audit(champion=says(1, took_ms=12.5), anchor=1)
    assert found([slow] * 19) == []
    [alarm] = found([slow] * 20)
    assert (alarm.role, alarm.guard) == ("champion", "latency")
    assert alarm.numbers == {"took_ms": 12.5, "seen": 20, "limit_ms": 10.0}
    assert "takes 12.5 ms to answer, on average of late, and 10 ms are allowed" in alarm.sentence


def test_one_pause_is_not_slowness() -> None:
    """A single answer that took two seconds raises no alarm; weights that stay slow do, soon."""
    quick, paused = (
        audit(champion=says(1), anchor=1),
        audit(champion=says(1, took_ms=2e3), anchor=1),
    )
    assert found([quick] * 50 + [paused] + [quick] * 5) == []
    assert names(found([quick] * 50 + [paused] * 30)) == {("champion", "latency")}


# --- jump -------------------------------------------------------------------------------------


def test_a_sudden_loss_of_agreement_is_found() -> None:
    """A champion that turns against its anchor is found within a few dozen audits."""
    watch, audits = watched(healthy(1000)), mixed(5, agree=0.1)
    for count in range(1, 200):
        watch.see(next(audits))
        alarms = watch.alarms(LEASHED, LIMITS)
        if alarms:
            [alarm] = alarms
            assert (alarm.role, alarm.guard) == ("champion", "jump")
            assert 15 <= count <= 40
            agreement, before = alarm.numbers["agreement"], alarm.numbers["before"]
            assert isinstance(agreement, float)
            assert isinstance(before, float)
            assert agreement < before - LIMITS.jump
            return
    pytest.fail("no alarm")


def test_a_jump_needs_a_past() -> None:
    """Before there are two hundred comparisons, no loss of agreement is sudden."""
    fine, odd = audit(champion="a", anchor="a"), audit(champion="b", anchor="a")
    early, late = FEWEST_COMPARED - 61, FEWEST_COMPARED - 60
    assert found([fine] * early + [odd] * 60) == []
    assert names(found([fine] * late + [odd] * 60)) == {("champion", "jump")}
    assert found([fine] * late + [odd] * 60, STATIC) == []


@pytest.mark.parametrize(
    ("anchor", "near", "far"),
    [
        (["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"]),
        (100.0, 109.0, 111.0),
        (True, True, 1),
    ],
    ids=["first place", "a tenth", "label"],
)
def test_what_agrees(anchor: Output, near: Output, far: Output) -> None:
    """Rankings agree by their first, numbers within a tenth of the usual size, labels exactly."""
    far_off = [audit(champion=far, anchor=anchor)] * 60
    assert names(found([audit(champion=near, anchor=anchor)] * 300 + far_off)) >= {
        ("champion", "jump")
    }
    assert watched(far_off).company.slow.value == 0.0


# --- what is forgotten, and what is kept ------------------------------------------------------


def test_a_new_generation_begins_anew() -> None:
    """What was seen of another reference does not count, nor does an audit that comes behind."""
    failing = audit(champion=FAILED, anchor=1)
    watch = watched([failing] * 3)
    assert watch.alarms(LEASHED, LIMITS)
    moved = LEASHED.model_copy(update={"generation": 5})
    assert watch.alarms(moved, LIMITS) == []
    watch.see(audit(generation=5, champion=1, anchor=1))
    for _ in range(3):
        watch.see(failing)
    assert watch.alarms(moved, LIMITS) == []
    assert watch == watched([audit(generation=5, champion=1, anchor=1)])


def test_a_challenger_that_left_is_forgotten() -> None:
    """Its number is gone with it; the next one starts clean, and the others keep their past."""
    watch = watched([audit(champion=1, challenger_7=FAILED, challenger_8=FAILED)] * 3)
    after = STATIC.model_copy(update={"challengers": (8, 9)})
    assert names(watch.alarms(after, LIMITS)) == {("challenger:8", "failure")}
    assert set(watch.roles) == {"champion", "challenger:8"}


def test_the_state_is_plain_json_and_goes_on_where_it_was() -> None:
    """A watch that travels through the store sees what the one that stayed sees."""
    stayed = Watch()
    travelled = Watch()
    for one in [*healthy(300), *healthy(90, agree=0.0), *healthy(40, champion=FAILED)]:
        stayed.see(one)
        travelled.see(one)
        kept = GateState(watch=travelled.pack()).pack()
        travelled = Watch.unpack(GateState.model_validate_json(kept).watch)
        assert travelled.alarms(LEASHED, LIMITS) == stayed.alarms(LEASHED, LIMITS)
    assert travelled == stayed
    assert stayed.alarms(LEASHED, LIMITS)
    assert json.loads(json.dumps(stayed.pack(), allow_nan=False)) == stayed.pack()


def test_a_packed_state_is_a_copy() -> None:
    """What is seen later does not alter what was packed."""
    watch = watched(healthy(10, champion=FAILED))
    packed = watch.pack()
    before = json.dumps(packed)
    again = Watch.unpack(packed)
    for one in healthy(50, champion=FAILED):
        watch.see(one)
        again.see(one)
    assert json.dumps(packed) == before
